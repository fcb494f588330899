"""One runner as the operating system sees it: spawned by us, or by the daemon before us."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from longshore.schemas.failures import FAILURES, Failure
from longshore.worker_host import locks
from longshore.worker_host.runners import runner_config
from longshore.worker_host.runners.instances import Instance, RunPaths

_RUNNER = Path(__file__).with_name("runner.py")

# The end of its log that travels with a failure: enough for a traceback, little enough for a payload.
_LOG_TAIL_BYTES = 8000


@dataclass(frozen=True)
class Exit:
    """How a runner ended. `status` is negative for a signal; None for an adopted one, whose parent we are not."""

    status: int | None

    def __str__(self) -> str:
        if self.status is None:
            return "ended"
        if self.status < 0:
            return f"was ended by {signal.Signals(-self.status).name}"
        return f"exited with status {self.status}"


class RunnerProcess:
    """A living runner. Its process group has the number `pid`."""

    def __init__(self, pid: int, lock: Path, wait: Callable[[], int | None]) -> None:
        self.pid = pid
        self._lock = lock
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[Exit] = self._loop.create_future()
        # A thread of its own: the shared pool has few, and this one waits for as long as the model runs.
        threading.Thread(target=self._watch, args=(wait,), name=f"runner-{pid}", daemon=True).start()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the runner and all that it has started, if it still lives."""
        if locks.held(self._lock):
            signal_group(self.pid, number)

    async def ended_within(self, seconds: float) -> bool:
        await asyncio.wait([self.exited], timeout=seconds)
        return self.exited.done()

    def _watch(self, wait: Callable[[], int | None]) -> None:
        status = wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            self._loop.call_soon_threadsafe(self._ended, Exit(status))

    def _ended(self, end: Exit) -> None:
        # What it had forked goes with it. The group's number is not given out again while the group has a member.
        signal_group(self.pid, signal.SIGKILL)
        if not self.exited.done():
            self.exited.set_result(end)


def spawn(instance: Instance, paths: RunPaths, support: Path) -> RunnerProcess:
    """Start a runner in a session of its own. Raises OSError; then nothing has been started.

    Not in a thread, though it takes some milliseconds: a cancellation between the start and its notice would leave a
    process behind.
    """
    lock_path, home = paths.lock(instance.instance_id), paths.home(instance.instance_id)
    home.mkdir(mode=0o700, exist_ok=True)
    lock = locks.take(lock_path)
    try:
        config = paths.config(instance.instance_id)
        config.write_text(json.dumps(runner_config.config(instance, paths, support, lock)))
        with paths.log(instance.instance_id).open("ab") as log:
            process = subprocess.Popen(
                [instance.python, "-I", str(_RUNNER), str(config)],
                cwd=instance.checkout,
                env=runner_config.environment(instance, home),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[lock],
                start_new_session=True,
            )
    finally:
        os.close(lock)
    return RunnerProcess(process.pid, lock_path, process.wait)


def adopt(instance: Instance, paths: RunPaths, pid: int) -> RunnerProcess:
    """Watch over a runner that another daemon has spawned."""
    lock = paths.lock(instance.instance_id)
    return RunnerProcess(pid, lock, lambda: locks.wait_until_free(lock))


def failure(instance: Instance, paths: RunPaths, end: Exit, *, oom: bool) -> Failure:
    """Say why a runner ended that was not asked to: its own last words, want of memory, or how it ended and its log."""
    who = f"{instance.deployment_id} {instance.version}: the runner"
    if words := _last_words(paths.last_words(instance.instance_id)):
        return words
    if oom and end.status in (-signal.SIGKILL, None):
        memory = instance.spec.card.resources.memory
        return Failure(code="RUNNER_OOM", message=f"{who} was killed for want of memory (its card says {memory})")
    return Failure(code="RUNNER_CRASHED", message=f"{who} {end}", details=log_tail(instance, paths))


def log_tail(instance: Instance, paths: RunPaths) -> str | None:
    """Return the last lines of the runner's log; None if it has written none."""
    try:
        with paths.log(instance.instance_id).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            return log.read().decode(errors="replace").strip() or None
    except FileNotFoundError:
        return None


def _last_words(path: Path) -> Failure | None:
    try:
        words = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):  # it had none, or was killed while it wrote them
        return None
    code = words["code"] if words["code"] in FAILURES else "MODEL_LOAD_FAILED"
    return Failure(code=code, message=words["message"], details=words["traceback"])


def signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses for a group of zombies
        os.killpg(pid, number)
