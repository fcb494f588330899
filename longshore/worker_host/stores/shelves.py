"""Folders of content-addressed entries: built aside, put in place by one rename, looked up by name ever after.

    <shelf>/.shelf       marks the folder, so that the collector finds it
    <shelf>/.staging/    what is being built; what a killed process left there goes at the next start
    <shelf>/<key>        complete, always

The state folder is locked by one daemon, so locks between processes are not needed here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import shutil
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from longshore.schemas.failures import LongshoreError
from longshore.worker_host.processes import in_thread

MARKER = ".shelf"
STAGING = ".staging"

_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn an OSError of our own file operations into DISK_FULL or IO_ERROR (FAULTS 97, 98)."""
    try:
        yield
    except OSError as error:
        code = "DISK_FULL" if error.errno in _FULL else "IO_ERROR"
        raise LongshoreError(code, f"{error.strerror or error}: {error.filename or 'the state folder'}") from error


class Shelf:
    """One such folder. An entry's modification time is when it was last asked for: the collector goes by it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._staging = folder / STAGING
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        with disk_errors():
            shutil.rmtree(self._staging, ignore_errors=True)
            self._staging.mkdir(parents=True, exist_ok=True)
            (folder / MARKER).touch()

    def entry(self, key: str) -> Path:
        return self.folder / key

    def find(self, key: str) -> Path | None:
        """Return the entry if it is there, and remember that it was asked for."""
        entry = self.entry(key)
        try:
            os.utime(entry)
        except FileNotFoundError:
            return None
        return entry

    def newest(self, most: int) -> list[str]:
        """Return the keys of the entries that were asked for last, the last one first. Raises OSError."""
        with os.scandir(self.folder) as entries:
            used = {entry.name: entry.stat().st_mtime for entry in entries if entry.name not in {MARKER, STAGING}}
        return sorted(used, key=lambda key: (-used[key], key))[:most]

    @asynccontextmanager
    async def lock(self, key: str) -> AsyncIterator[None]:
        """Let one caller at a time build `key`; the others find it built, or build it if the first gave up."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            yield

    @asynccontextmanager
    async def staging(self) -> AsyncIterator[Path]:
        """Give a fresh folder on the same file system; whatever was not put in place is removed afterwards."""
        aside = self._staging / secrets.token_hex(8)
        with disk_errors():
            aside.mkdir()
        try:
            yield aside
        finally:
            await in_thread(_remove, aside)

    async def put(self, built: Path, key: str) -> Path:
        """Put a complete folder or file in place as `key`. Raises DISK_FULL, IO_ERROR; then nothing is visible."""
        with disk_errors():
            return await in_thread(self._put, built, key)

    async def drop(self, key: str) -> None:
        """Take an entry away: out of sight by one rename, then removed."""
        async with self.staging() as aside:
            with contextlib.suppress(FileNotFoundError), disk_errors():
                self.entry(key).rename(aside / "dropped")

    def _put(self, built: Path, key: str) -> Path:
        entry = self.entry(key)
        if built.is_dir():
            # A rename can reach the disk before the files do. One sync took 0.25 s for 4,200 files, as long as
            # an fsync for each of them takes, and it covers the hard links' other names too.
            os.sync()
        else:
            fsync(built)
        built.rename(entry)
        fsync(self.folder)
        return entry


def fsync(path: Path) -> None:
    """Bring a file or folder to the disk. After a failure nothing is known of it: the caller gives up (FAULTS 98)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
