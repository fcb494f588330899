"""The state folder: one daemon at a time, and where everything lies in it.

lock              held by the daemon that runs; its text is that daemon's pid
journal.sqlite    what must not be forgotten
cache/            checkouts, environments, artifacts: all of it can be made again
run/              sockets, locks and logs of runners and Envoy, or where a short path to them was made instead
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import tempfile
from pathlib import Path
from typing import Self

from longshore.schemas.failures import LongshoreError
from longshore.worker_host import locks
from longshore.worker_host.journal import Journal
from longshore.worker_host.runners.instances import RunPaths
from longshore.xds.routing import MAX_SOCKET_PATH

_RUN_NOTE = "run_dir"

# The longest name in the run directory (DESIGN §5: names of at most 16 characters) and the slash before it.
_LONGEST_NAME = 17

_POLL_SECONDS = 0.05

# A daemon that hands over waits for commands past their point of no return: drains of up to a minute.
_HANDOVER_SECONDS = 120.0


class StateDir:
    """Entered by one daemon; left when its process ends, however it ends."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self._lock: int | None = None

    @property
    def journal(self) -> Path:
        return self.root / "journal.sqlite"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    async def acquire(self, *, handover: bool) -> Self:
        """Lock the folder. With `handover` the daemon that holds it is asked to leave its models running and go.

        Raises LongshoreError SOCKET_IN_USE.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._try_lock() and not (handover and await self._take_over()):
            raise LongshoreError("SOCKET_IN_USE", f"another worker host (pid {self._holder()}) uses {self.root}")
        return self

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def run_paths(self, journal: Journal) -> RunPaths:
        """Return the directory for sockets: `run` here, or a short one elsewhere that the journal remembers."""
        here = self.root / "run"
        if len(os.fsencode(here)) + _LONGEST_NAME <= MAX_SOCKET_PATH:
            return _created(here)
        noted = journal.note(_RUN_NOTE)
        if noted and _is_ours(Path(noted)):
            return _created(Path(noted))
        # The environment's own folder for sockets is private and cleared at boot; /tmp is short everywhere.
        base = os.environ.get("XDG_RUNTIME_DIR") or "/tmp"  # noqa: S108 (mkdtemp makes a private folder in it)
        short = tempfile.mkdtemp(prefix="longshore-", dir=base)
        journal.write_note(_RUN_NOTE, short)
        return _created(Path(short))

    def _try_lock(self) -> bool:
        try:
            self._lock = locks.take(self.root / "lock")
        except BlockingIOError:
            return False
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)
        return True

    async def _take_over(self) -> bool:
        if holder := self._holder():
            with contextlib.suppress(ProcessLookupError):  # it has just gone by itself
                os.kill(holder, signal.SIGHUP)
        for _ in range(int(_HANDOVER_SECONDS / _POLL_SECONDS)):
            if self._try_lock():
                return True
            await asyncio.sleep(_POLL_SECONDS)
        return False

    def _holder(self) -> int | None:
        return locks.holder(self.root / "lock")


def _created(folder: Path) -> RunPaths:
    paths = RunPaths(folder)
    paths.create()
    return paths


def _is_ours(folder: Path) -> bool:
    """Say whether a remembered folder is still there, and not one that somebody else has put in its place."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) == stat.S_IRWXU
