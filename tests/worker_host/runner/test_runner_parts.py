"""The small parts around a runner: locks, counters of OOM kills, the support directory, its configuration."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from longshore.schemas.failures import LongshoreError
from longshore.worker_host import locks, processes
from longshore.worker_host.runners import oom, support
from longshore.worker_host.runners.instances import RunPaths
from longshore.worker_host.runners.support import Support


def test_a_lock_lives_as_long_as_the_process_that_inherited_it(tmp_path):
    """Held while the child runs, its text the child's pid, and free in the moment in which it ends."""
    path = tmp_path / "lock"
    descriptor = locks.take(path)
    code = "import os, sys; fd = int(sys.argv[1]); os.write(fd, str(os.getpid()).encode()); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(descriptor)], stdin=subprocess.PIPE, pass_fds=[descriptor]
    )
    os.close(descriptor)
    assert locks.held(path)
    with pytest.raises(BlockingIOError):
        locks.take(path)
    free = threading.Thread(target=locks.wait_until_free, args=(path,))
    free.start()
    child.communicate()
    free.join(30)
    assert not free.is_alive()
    assert not locks.held(path)
    assert path.read_text() == str(child.pid)
    assert locks.holder(path) is None
    assert not locks.held(tmp_path / "none")


@pytest.mark.parametrize(
    ("cgroup", "file"),
    [
        ("0::/system.slice/longshore.service\n", "system.slice/longshore.service/memory.events"),
        ("9:name=systemd:/\n4:cpu,memory:/box\n0::/\n", "memory/box/memory.oom_control"),
    ],
)
def test_oom_kills_are_counted_in_either_cgroup_version(tmp_path, cgroup, file):
    """The machine's count and our cgroup's both make the number rise; what is not there counts nothing."""
    assert oom.kills(tmp_path, tmp_path) == 0
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text(cgroup)
    (tmp_path / "vmstat").write_text("pgfault 9\noom_kill 2\n")
    assert oom.kills(tmp_path, tmp_path) == 2
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text("low 0\noom 7\noom_kill 3\n")
    assert oom.kills(tmp_path, tmp_path) == 5


async def test_the_support_directory_is_made_once_and_holds_one_package(tmp_path):
    """Same interpreter, same directory; nothing of Longshore is beside jsonschema_rs."""
    made = await Support(tmp_path).materialise(sys.executable)
    assert [entry.name for entry in made.iterdir()] == ["jsonschema_rs"]
    assert not list(made.rglob("__pycache__"))
    before = made.stat().st_ino
    assert (await Support(tmp_path).materialise(sys.executable)).stat().st_ino == before


async def test_an_interpreter_that_ours_does_not_fit_gets_its_own(tmp_path, monkeypatch):
    """Where the try fails, uv is asked, for that interpreter; what it says is in the failure."""
    asked = []
    run = processes.run

    async def refuse_ours(argv, **options):
        if "pip" in argv:
            asked.append(argv)
            return processes.Completed(2, "", "error: Failed to fetch")
        if "-c" in argv and argv[-1].endswith("ours"):
            return processes.Completed(1, "", "ImportError: undefined symbol")
        return await run(argv, **options)

    monkeypatch.setattr(support.processes, "run", refuse_ours)
    with pytest.raises(LongshoreError) as caught:
        await Support(tmp_path).materialise(sys.executable)
    assert caught.value.code == "PACKAGE_INDEX_UNAVAILABLE"
    assert sys.executable in asked[0]
    assert caught.value.failure.details == "error: Failed to fetch"


async def test_a_python_that_does_not_start_is_unavailable(tmp_path):
    """A broken interpreter is named."""
    with pytest.raises(LongshoreError) as caught:
        await Support(tmp_path).materialise("/bin/false")
    assert caught.value.code == "PYTHON_UNAVAILABLE"
    assert "/bin/false" in str(caught.value)


def test_names_in_the_run_directory_fit_a_sockets_path():
    """At most 16 characters each; a directory that is too deep is refused with the reason."""
    paths = RunPaths(Path("/run/longshore"))
    assert all(len(path.name) <= 16 for path in paths.of("0123456789"))
    with pytest.raises(LongshoreError, match="SOCKET_PATH_TOO_LONG"):
        RunPaths(Path("/" + "d" * 120)).create()


def test_the_run_directory_is_for_this_user_alone(tmp_path):
    """Mode 0700, also where it was there before with another."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o755)
    RunPaths(folder).create()
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("path", "entrypoint", "module"),
    [("src/", "src.model", "src.model"), ("src/", None, "src.model"), (".", None, "model"), ("a/b", None, "a.b.model")],
)
def test_the_entrypoint_without_a_name_is_model_in_the_cards_path(bench, path, entrypoint, module):
    """PRD §2.2's layout is the default."""
    instance = bench.instance(card={"code": {"path": path, "entrypoint": entrypoint}})
    assert instance.spec.card.code.entrypoint_module == module
