"""The processes of the demo: started in order, stopped in reverse order, and none left behind.

They lead sessions of their own, so that Ctrl-C in the terminal reaches the demo alone, which then stops them. Should
the demo itself be killed, a guardian notices by the end of a pipe, and sweeps. `sweep` finds what is ours by a
variable that our processes inherit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

MARK = "LONGSHORE_DEMO_STATE"
STOP_TIMEOUT = 40.0  # seconds; a worker host drains its models within 60 s at most, idle ones within 1 s
POLL = 0.05  # seconds between two questions whether something is ready
LAST_WORDS = 15  # lines of a log that are shown when its process has died

_Value = TypeVar("_Value")


class DemoFailed(Exception):
    """A step of the demo did not go as it should; the message is for the person who watches."""


class Process:
    """One child whose output goes to a log file."""

    def __init__(self, name: str, child: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.child = child
        self.log = log

    @property
    def running(self) -> bool:
        return self.child.returncode is None

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LAST_WORDS:]
        return "\n".join(lines) or "(it said nothing)"


class Processes:
    """Starts them, waits for them, stops them. After `guard()` a demo that is killed leaves nothing behind."""

    def __init__(self, state: Path, environment: Mapping[str, str]) -> None:
        self._state = state
        self._logs = state / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._environment = {**environment, MARK: str(state)}
        self._running: list[Process] = []
        self._guardian: subprocess.Popen[bytes] | None = None

    def guard(self) -> None:
        """Start the guardian: it waits for the end of a pipe that only this process holds, then sweeps."""
        self._guardian = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self._state)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    async def start(self, name: str, argv: Sequence[str | Path], cwd: Path | None = None) -> Process:
        """Start `argv`; its output goes to `logs/<name>.log`."""
        log = self._logs / f"{name}.log"
        with log.open("ab") as output:
            child = await asyncio.create_subprocess_exec(
                *map(str, argv),
                cwd=cwd,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        process = Process(name, child, log)
        self._running.append(process)
        return process

    async def longshore(self, name: str, *arguments: str | Path) -> Process:
        """Start `longshore ARGUMENTS…` as a process of its own."""
        return await self.start(name, [sys.executable, "-m", "longshore", *arguments])

    async def cut(self, process: Process, folder: Path) -> int:
        """SIGKILL a worker host and all that it runs from `folder`, as when a device loses its power.

        The host goes first: it would start the others again. Return how many processes there were.
        """
        self._running.remove(process)
        process.child.kill()
        await process.child.wait()
        others = [other for other in psutil.process_iter() if _runs_from(other, folder)]
        for other in others:
            with contextlib.suppress(psutil.NoSuchProcess):
                other.kill()
        return 1 + len(others)

    async def says(self, *arguments: str | Path, code: int) -> str:
        """Run `longshore ARGUMENTS…` to its end and return what it prints. Raises DemoFailed on another exit code."""
        child = await asyncio.create_subprocess_exec(
            *map(str, [sys.executable, "-m", "longshore", *arguments]),
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            said, complaint = await child.communicate()
        except asyncio.CancelledError:
            child.kill()
            await child.wait()
            raise
        if child.returncode != code:
            words = (complaint or said).decode(errors="replace").strip()
            raise DemoFailed(f"longshore {arguments[0]} ended with code {child.returncode}, not {code}:\n{words}")
        return said.decode().rstrip()

    def check(self) -> None:
        """Raise DemoFailed, with its last words, when one of them has ended by itself."""
        for process in self._running:
            if not process.running:
                raise DemoFailed(f"{process.name} ended with code {process.child.returncode}:\n{process.last_words()}")

    async def until(self, what: str, probe: Callable[[], Awaitable[_Value | None]], timeout: float) -> _Value:  # noqa: ASYNC109 (the message needs it)
        """Return the first true value of `probe`, which may raise OSError or RuntimeError while it is not ready.

        Raises DemoFailed after `timeout` seconds, or as soon as one of the processes has died.
        """
        last: Exception | None = None
        try:
            async with asyncio.timeout(timeout):
                while True:
                    self.check()
                    try:
                        if value := await probe():
                            return value
                    except (OSError, RuntimeError) as error:
                        last = error
                    await asyncio.sleep(POLL)
        except TimeoutError:
            because = f" ({last})" if last else ""
            raise DemoFailed(f"did not happen within {timeout:g} s: {what}{because}") from last

    async def stop(self) -> None:
        """Stop all: worker hosts side by side, then the others in reverse order of their start."""
        hosts = [process for process in self._running if process.name.startswith("worker-")]
        others = [process for process in reversed(self._running) if process not in hosts]
        await asyncio.gather(*map(_stop, hosts))
        for process in others:
            await _stop(process)
        self._running.clear()
        await asyncio.to_thread(sweep, self._state)
        if self._guardian is not None:
            self._guardian.communicate(b"all is stopped")


async def _stop(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.child.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_TIMEOUT):
            await process.child.wait()
    except TimeoutError:
        process.child.kill()
        await process.child.wait()


def search_path() -> str:
    """Return PATH with this interpreter's own folder first: there the packaged programs are."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def sweep(state: Path) -> list[str]:
    """End what a demo on `state` has left running: ask, then kill after STOP_TIMEOUT. Return their names."""
    ours = [process for process in psutil.process_iter(["name"]) if _is_ours(process, state)]
    for process in ours:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(ours, timeout=STOP_TIMEOUT)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=STOP_TIMEOUT)
    return [process.info["name"] for process in ours]


def _is_ours(process: psutil.Process, state: Path) -> bool:
    """Tell whether `process` inherited the mark, or was started by a worker host of ours, with a bare environment."""
    try:
        return _runs_from(process, state) or bool(process.environ().get(MARK) == str(state))
    except (psutil.Error, OSError):
        return False  # someone else's, or gone


def _runs_from(process: psutil.Process, folder: Path) -> bool:
    """Tell whether `process` is an Envoy, known by its configuration in the folder, or a runner, by its interpreter."""
    try:
        program, *arguments = process.cmdline() or [""]
    except (psutil.Error, OSError):
        return False
    told = arguments if Path(program).name == "envoy" else [program]
    return any(text.startswith(f"{folder}{os.sep}") for text in told)


if __name__ == "__main__":
    told_that_all_is_well = sys.stdin.read()
    if not told_that_all_is_well:
        sweep(Path(sys.argv[1]))
