"""Run a program to its end: in its own process group, bounded in time, and gone when the caller is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
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
_READ_BYTES = 64 * 1024

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
        process = await asyncio.create_subprocess_exec(
            *map(str, argv),
            cwd=cwd,
            env=dict(env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise LongshoreError("PROGRAM_MISSING", f"{program} is not installed on this device") from error

    tails = (_Tail(), _Tail(on_line))
    streams = (process.stdout, process.stderr)
    readers = [asyncio.create_task(_read(s, tail)) for s, tail in zip(streams, tails, strict=True) if s is not None]
    try:
        async with asyncio.timeout(timeout):
            await process.wait()
    except TimeoutError:
        await uninterrupted(_kill_group(process))
        raise ProcessTimeoutError(program, timeout, tails[1].text()) from None
    except asyncio.CancelledError:
        await uninterrupted(_kill_group(process))
        raise
    finally:
        await uninterrupted(_finish(readers, process))
    return Completed(process.returncode or 0, tails[0].text(), tails[1].text())


class _Tail:
    """The last TAIL_CHARACTERS of a stream, told line by line to whoever listens."""

    def __init__(self, on_line: Callable[[str], None] | None = None) -> None:
        self._on_line = on_line
        self._chunks: deque[str] = deque()
        self._size = 0
        self._line = ""

    def add(self, chunk: str) -> None:
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


async def _read(stream: asyncio.StreamReader, tail: _Tail) -> None:
    while chunk := await stream.read(_READ_BYTES):
        tail.add(chunk.decode(errors="replace"))


async def _kill_group(process: asyncio.subprocess.Process) -> None:
    """End the whole group: ask it, then make it. The leader is waited for, so that no zombie stays."""
    _signal_group(process.pid, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TERM_GRACE_SECONDS):
            await process.wait()
    _signal_group(process.pid, signal.SIGKILL)
    await process.wait()


async def _finish(readers: list[asyncio.Task[None]], process: asyncio.subprocess.Process) -> None:
    """Read what is left; a descendant that still holds a pipe is killed, since it is of this group."""
    if not readers:
        return
    ended, still_open = await asyncio.wait(readers, timeout=PIPE_GRACE_SECONDS)
    if still_open:
        _signal_group(process.pid, signal.SIGKILL)
        for reader in still_open:
            reader.cancel()
        await asyncio.wait(still_open)
    for reader in ended:
        reader.result()


def _signal_group(pid: int, number: signal.Signals) -> None:
    # The leader's pid names the group, and is not given out again while the group has a member.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
