"""Run a program to its end: in its own process group, bounded in time, and gone when the caller is cancelled."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import re
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

from longshore.schemas.failures import LongshoreError

# Between SIGTERM and SIGKILL: git removes its lock files in milliseconds; a heartbeat time-out is 30 s away.
TERM_GRACE_SECONDS = 2.0

# Something that outlives its parent (`git maintenance --detach`) may hold our pipes open; we do not wait for it.
PIPE_GRACE_SECONDS = 1.0

# What is kept of each stream, in characters: enough for a resolver's explanation, little enough for a payload.
TAIL_CHARACTERS = 64 * 1024

# How a device's operator says which way is out.
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")

_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")
_Result = TypeVar("_Result")
_Arguments = TypeVarTuple("_Arguments")


@dataclass(frozen=True)
class Completed:
    """How a program ended. `stdout` and `stderr` are the tails of what it wrote."""

    returncode: int
    stdout: str
    stderr: str


class ProcessTimeoutError(Exception):
    """The program did not end in time; its whole process group has been killed."""

    def __init__(self, program: str, seconds: float, stderr: str) -> None:
        super().__init__(f"{program} did not end within {seconds:g} s")
        self.stderr = stderr


def environment(*names: str, prefixes: tuple[str, ...] = (), **settings: str) -> dict[str, str]:
    """Return a minimal environment: what every program needs, our own variables of these names, and `settings`.

    Messages come in English (`LC_ALL=C.UTF-8`), since callers read them.
    """
    kept = {"PATH", "HOME", "TMPDIR", "USER", "LOGNAME", *names}
    inherited = {k: v for k, v in os.environ.items() if k in kept or (prefixes and k.startswith(prefixes))}
    return {"PATH": os.defpath, **inherited, "LC_ALL": "C.UTF-8", **settings}


def redact(text: str) -> str:
    """Return `text` without the user and password of any URL in it."""
    return _USERINFO.sub("****@", text)


async def uninterrupted(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Await `work` to its end even when the caller is cancelled; the cancellation is raised after it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # retrieved, since the caller hears of the cancellation instead
        raise


async def in_thread(function: Callable[[*_Arguments], _Result], *args: *_Arguments) -> _Result:
    """Do `asyncio.to_thread`, but never leave while the thread works: nobody closes what it still uses.

    For work that ends by itself soon, such as one write.
    """
    return await uninterrupted(asyncio.to_thread(function, *args))


async def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout: float,  # noqa: ASYNC109 (the group is killed before the time-out is raised: part of the contract)
    on_line: Callable[[str], None] | None = None,
) -> Completed:
    """Run `argv` and return how it ended, whatever its exit status.

    `timeout` is in seconds. `on_line` is given each line of standard error as it comes, without credentials.
    Raises ProcessTimeoutError, and LongshoreError PROGRAM_MISSING. On cancellation nothing of it is left running.
    """
    program = Path(argv[0]).name
    try:
        transport, output = await asyncio.get_running_loop().subprocess_exec(
            lambda: _Output(on_line),
            *map(str, argv),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise LongshoreError("PROGRAM_MISSING", f"{program} is not installed on this device") from error

    group = transport.get_pid()
    try:
        async with asyncio.timeout(timeout):
            await output.exited.wait()
    except TimeoutError:
        await uninterrupted(_kill_group(group, output))
        raise ProcessTimeoutError(program, timeout, output.stderr.text()) from None
    except asyncio.CancelledError:
        await uninterrupted(_kill_group(group, output))
        raise
    finally:
        await uninterrupted(_finish(group, output))
        transport.close()
    return Completed(transport.get_returncode() or 0, output.stdout.text(), output.stderr.text())


class _Tail:
    """The last TAIL_CHARACTERS of a stream, told line by line to whoever listens."""

    def __init__(self, on_line: Callable[[str], None] | None = None) -> None:
        self._on_line = on_line
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._chunks: deque[str] = deque()
        self._size = 0
        self._line = ""

    def add(self, data: bytes) -> None:
        chunk = self._decode(data)
        self._chunks.append(chunk)
        self._size += len(chunk)
        while self._size - len(self._chunks[0]) >= TAIL_CHARACTERS:
            self._size -= len(self._chunks.popleft())
        if self._on_line is not None:
            *lines, self._line = (self._line + chunk)[-TAIL_CHARACTERS:].replace("\r", "\n").split("\n")
            for line in filter(None, lines):
                self._on_line(redact(line))

    def text(self) -> str:
        return "".join(self._chunks)[-TAIL_CHARACTERS:]


class _Output(asyncio.SubprocessProtocol):
    """Hears a program. `exited` is when its leader has ended, `closed` when nobody holds its pipes any more.

    (`Process.wait` of asyncio's streams waits for both, and so for whatever a program leaves behind.)
    """

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self.stdout = _Tail()
        self.stderr = _Tail(on_line)
        self.exited = asyncio.Event()
        self.closed = asyncio.Event()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        tail = self.stdout if fd == 1 else self.stderr
        tail.add(data)

    def process_exited(self) -> None:
        self.exited.set()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.closed.set()


async def _kill_group(group: int, output: _Output) -> None:
    """End the whole group: ask it, then make it. The leader is waited for, so that no zombie stays."""
    _signal_group(group, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TERM_GRACE_SECONDS):
            await output.exited.wait()
    _signal_group(group, signal.SIGKILL)
    await output.exited.wait()


async def _finish(group: int, output: _Output) -> None:
    """Hear what is left. A descendant that still holds a pipe is killed: it is of this group."""
    try:
        async with asyncio.timeout(PIPE_GRACE_SECONDS):
            await output.closed.wait()
    except TimeoutError:
        _signal_group(group, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    # The leader's pid names the group, and is not given out again while the group has a member.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
