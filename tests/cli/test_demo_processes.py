"""The demo leaves no process behind, however it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from longshore.cli.demo.processes import DemoFailed, Processes, sweep
from longshore.cli.demo.screen import Screen
from longshore.cli.demo.stage import clear_leftovers, locked

SLEEPER = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
async def processes(state: Path):
    started = Processes(state, dict(os.environ))
    yield started
    await started.stop()


async def has_said_here(process) -> bool:
    return "here" in process.log.read_text()


async def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def python(code: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)


async def until(probe, *arguments) -> None:
    async with asyncio.timeout(20):
        while not await probe(*arguments):  # noqa: ASYNC110 (another process sets no event here)
            await asyncio.sleep(0.02)


async def test_stopping_ends_all_and_what_they_started(processes: Processes):
    """A child that its parent left behind goes as well."""
    code = f"import subprocess; p = subprocess.Popen({SLEEPER!r}); print('here', p.pid, flush=True); p.wait()"
    process = await processes.start("parent", [sys.executable, "-c", code])
    await processes.until("it speaks", lambda: has_said_here(process), 20)
    grandchild = int(process.log.read_text().split()[1])
    await processes.stop()
    assert not process.running
    await until(gone, grandchild)


async def test_a_device_that_loses_its_power_is_gone_with_all_that_it_runs(processes: Processes, state: Path):
    """What runs from its folder dies too, and is not missed; what only names the folder, or another one, goes on."""
    runners = []
    for name in ("worker-a", "worker-b"):
        python_there = state / name / "bin" / "python"
        python_there.parent.mkdir(parents=True)
        python_there.symlink_to(sys.executable)
        runners.append(await asyncio.create_subprocess_exec(python_there, *SLEEPER[1:]))
    host = await processes.start("worker-a", SLEEPER)
    other = await processes.start("up", [*SLEEPER, state / "worker-a" / "a-file"])
    try:
        assert await processes.cut(host, state / "worker-a") == 2
        assert await asyncio.wait_for(runners[0].wait(), 20) == -signal.SIGKILL
        assert (host.running, other.running, runners[1].returncode) == (False, True, None)
        processes.check()
    finally:
        runners[1].kill()
        await runners[1].wait()


async def test_a_command_is_heard_to_its_end(processes: Processes):
    """What it prints is returned; another exit code than the one that is expected is told with its complaint."""
    assert await processes.says("version", code=0) == version("longshore")
    with pytest.raises(DemoFailed, match=r"(?s)longshore plan ended with code 1, not 2:.*nowhere"):
        await processes.says("plan", "nowhere", "--state", "nowhere", code=2)


async def test_a_death_is_told_with_the_last_words(processes: Processes):
    """Waiting ends at once when a process dies, and says what it said last."""
    process = await processes.start("short-lived", [sys.executable, "-c", "raise SystemExit('no such thing')"])

    async def never() -> bool:
        return False

    with pytest.raises(DemoFailed, match=r"(?s)short-lived ended with code 1:.*no such thing"):
        await processes.until("it works", never, 20)
    assert not process.running


async def test_what_does_not_happen_is_named(processes: Processes):
    """A time-out says what was waited for, and why it was not there."""

    async def refuse() -> bool:
        raise OSError("connection refused")

    with pytest.raises(DemoFailed, match=r"did not happen within 0.1 s: the server answers \(connection refused\)"):
        await processes.until("the server answers", refuse, 0.1)


async def test_a_killed_demo_leaves_nothing(state: Path):
    """kill -9 of the demo: its guardian ends what it had started."""
    code = f"""
import asyncio, os, sys
from pathlib import Path
from longshore.cli.demo.processes import Processes
async def main():
    processes = Processes(Path({str(state)!r}), dict(os.environ))
    processes.guard()
    process = await processes.start("sleeper", {SLEEPER!r})
    print(process.child.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    demo = python(code)
    sleeper = int(demo.stdout.readline())
    demo.send_signal(signal.SIGKILL)
    demo.communicate()
    await until(gone, sleeper)


def test_a_sweep_ends_only_what_carries_the_mark(state: Path, tmp_path: Path):
    """Someone else's process goes on, and so does one of a demo in another folder."""
    mark = "LONGSHORE_DEMO_STATE"
    ours = subprocess.Popen(SLEEPER, env={**os.environ, mark: str(state)}, stdout=subprocess.DEVNULL)
    others = [
        subprocess.Popen(SLEEPER, env={**os.environ, mark: str(tmp_path / "other")}, stdout=subprocess.DEVNULL),
        subprocess.Popen([*SLEEPER, str(state / "a-file")], stdout=subprocess.DEVNULL),
    ]
    try:
        assert len(sweep(state)) == 1
        assert ours.poll() is not None
        assert [process.poll() for process in others] == [None, None]
    finally:
        for process in (ours, *others):
            process.kill()
            process.wait()


def test_one_demo_at_a_time_in_a_folder(state: Path):
    """The second is told which process has the folder."""
    with locked(state), pytest.raises(DemoFailed, match=str(os.getpid())), locked(state):
        pass


def test_a_folder_of_something_else_is_left_alone(state: Path):
    """A demo empties its folder, so it must be its own."""
    (state / "photos").mkdir(parents=True)
    with pytest.raises(DemoFailed, match="no demo's folder"), locked(state):
        pass
    assert (state / "photos").is_dir()


def test_a_new_demo_keeps_the_caches_and_nothing_else(state: Path):
    """Environments and downloads stay; a device's journal does not, since the ledger begins anew."""
    keep = ["cache/artifacts/1", "devices/worker-a/cache/environments/1/python", "devices/worker-a/cache/packages/uv/1"]
    lose = ["registry/README.md", "devices/worker-a/journal.sqlite", "devices/worker-a/cache/mirrors/1", "logs/up.log"]
    for name in (*keep, *lose):
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_text("x")
    clear_leftovers(state, Screen())
    assert [name for name in keep if not (state / name).exists()] == []
    assert [name for name in lose if (state / name).exists()] == []
