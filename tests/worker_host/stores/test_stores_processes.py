"""Programs that end with their caller."""

from __future__ import annotations

import asyncio
import os
import sys

import psutil
import pytest

from longshore.schemas.failures import LongshoreError
from longshore.worker_host import processes

# A parent that ignores SIGTERM, with a child of its own; both pids are told on standard error.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.getpid(), child.pid, file=sys.stderr, flush=True)
time.sleep(600)
"""


def run(code, tmp_path, *, timeout=60, **options):
    env = processes.environment()
    return processes.run([sys.executable, "-c", code], cwd=tmp_path, env=env, timeout=timeout, **options)


def alive(pids):
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


async def test_a_program_is_heard_to_its_end(tmp_path):
    """Exit status and both streams come back."""
    done = await run("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


async def test_the_tail_of_much_output_is_kept(tmp_path):
    """A program that talks without end costs little memory."""
    done = await run("print('x' * 300_000 + 'end')", tmp_path)
    assert done.stdout.endswith("end\n")
    assert len(done.stdout) == processes.TAIL_CHARACTERS


async def test_lines_come_without_credentials(tmp_path):
    """Whoever listens to a program is not told the password in its URLs."""
    lines = []
    code = "import sys; print('from https://user:secret@example.com/x', file=sys.stderr)"
    await run(code, tmp_path, on_line=lines.append)
    assert lines == ["from https://****@example.com/x"]


async def test_a_time_out_kills_the_whole_group(tmp_path, until):
    """Neither a program that ignores SIGTERM nor its child survives the time-out."""
    with pytest.raises(processes.ProcessTimeoutError) as caught:
        await run(STUBBORN, tmp_path, timeout=1.5)
    pids = [int(pid) for pid in caught.value.stderr.split()]
    assert len(pids) == 2
    await until(lambda: not alive(pids))


async def test_cancellation_kills_the_whole_group(tmp_path, until):
    """A cancelled caller returns when the program and its child are gone."""
    lines = []
    running = asyncio.create_task(run(STUBBORN, tmp_path, on_line=lines.append))
    await until(lambda: lines)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    pids = [int(pid) for pid in lines[0].split()]
    await until(lambda: not alive(pids))


async def test_a_child_left_behind_does_not_hold_the_caller(tmp_path, until):
    """What a program leaves running with our pipe in its hands is killed."""
    code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid)"
    done = await run(code, tmp_path)
    assert done.returncode == 0
    await until(lambda: not alive([int(done.stdout)]))


async def test_a_program_sees_no_secrets_of_ours(tmp_path, monkeypatch):
    """Only what is named is inherited."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    done = await run("import os; print(sorted(os.environ))", tmp_path)
    assert "AWS_SECRET_ACCESS_KEY" not in done.stdout
    assert "PATH" in done.stdout


async def test_a_missing_program_is_named(tmp_path):
    """The operator reads what to install."""
    with pytest.raises(LongshoreError, match="no-such-program") as caught:
        await processes.run(["no-such-program"], cwd=tmp_path, env=dict(os.environ), timeout=5)
    assert caught.value.code == "PROGRAM_MISSING"
