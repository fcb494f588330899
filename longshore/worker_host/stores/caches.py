"""Keeps the caches under their bound: what has not been asked for the longest goes first (DESIGN §5).

UNLOAD removes nothing; this does, and only what nobody has named. Everything here can be made again, so the worst
that a wrong guess costs is time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import structlog

from longshore.worker_host.stores.shelves import MARKER, STAGING

log = structlog.get_logger()

# Seconds. A command names what it uses only when it has all of it, and may take this long until then.
MIN_AGE_SECONDS = 2 * 3600.0

# POSIX counts blocks in these, whatever the file system's own block size is.
_BLOCK_BYTES = 512

_Inode = tuple[int, int]


@dataclass(frozen=True)
class Collected:
    used: int
    """Bytes on the disk, afterwards; a file with many names counts once."""
    freed: int
    removed: tuple[Path, ...]


@dataclass(frozen=True)
class _Entry:
    path: Path
    last_used: float
    blocks: Counter[_Inode]
    """How many names this entry has for each file."""


async def collect(
    root: Path,
    keep: AbstractSet[Path],
    max_bytes: int,
    *,
    min_age: float = MIN_AGE_SECONDS,
    now: float | None = None,
) -> Collected:
    """Remove the least recently used entries of every shelf of `root` until they take at most `max_bytes`.

    Stays: whatever `keep` names, or names a part of (such as an environment's Python; compared as written, links are
    not followed); whatever was asked for within `min_age` seconds of `now`, a POSIX time; and whatever would free
    nothing, since all its files have other names. A crash half-way leaves whole entries, and scraps that the next
    start removes.
    """
    oldest_allowed = (time.time() if now is None else now) - min_age
    return await asyncio.to_thread(_collect, root, keep, max_bytes, oldest_allowed)


def _collect(root: Path, keep: AbstractSet[Path], max_bytes: int, oldest_allowed: float) -> Collected:
    sizes: dict[_Inode, int] = {}
    entries = sorted(_entries(root, sizes), key=lambda entry: (entry.last_used, entry.path))
    names: Counter[_Inode] = Counter()
    for entry in entries:
        names.update(entry.blocks)

    used = before = sum(sizes.values())
    kept = {path.absolute() for path in keep}
    waiting = [entry for entry in entries if entry.last_used <= oldest_allowed and not _is_kept(entry.path, kept)]
    removed: list[Path] = []
    progress = True
    while progress:  # again from the oldest: what is removed may have held the other name of what was passed over
        progress = False
        for entry in list(waiting):
            gain = sum(sizes[inode] for inode, count in entry.blocks.items() if names[inode] == count)
            if used <= max_bytes or not gain:
                continue
            waiting.remove(entry)
            if _remove(entry):
                names.subtract(entry.blocks)
                used -= gain
                removed.append(entry.path)
                progress = True
    if removed:
        log.info("cache_collected", entries=len(removed), freed_bytes=before - used, used_bytes=used)
    return Collected(used=used, freed=before - used, removed=tuple(removed))


def _entries(root: Path, sizes: dict[_Inode, int]) -> Iterator[_Entry]:
    """Yield every entry of every shelf of `root`, filling `sizes` on the way."""
    for marker in root.glob(f"*/{MARKER}"):
        for path in marker.parent.iterdir():
            if path.name not in {MARKER, STAGING}:
                # A build beside us may take its own notes away.
                with contextlib.suppress(FileNotFoundError):
                    yield _measure(path, sizes)


def _measure(path: Path, sizes: dict[_Inode, int]) -> _Entry:
    last_used = path.stat().st_mtime
    blocks: Counter[_Inode] = Counter()
    for facts in _walk(path):
        inode = (facts.st_dev, facts.st_ino)
        sizes[inode] = facts.st_blocks * _BLOCK_BYTES
        blocks[inode] += 1
    return _Entry(path, last_used, blocks)


def _walk(path: Path) -> Iterator[os.stat_result]:
    """Yield the facts of `path` itself and of all that is in it; what goes meanwhile is passed over."""
    yield path.lstat()
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            with contextlib.suppress(FileNotFoundError):
                yield os.lstat(os.path.join(folder, name))  # noqa: PTH118 (a hundred thousand; Path takes twice as long)


def _is_kept(entry: Path, kept: set[Path]) -> bool:
    return any(path.is_relative_to(entry.absolute()) for path in kept)


def _remove(entry: _Entry) -> bool:
    """Take the entry out of sight with one rename, then remove it. False if it stays, or went meanwhile."""
    aside = entry.path.parent / STAGING / secrets.token_hex(8)
    try:
        if entry.path.stat().st_mtime != entry.last_used:
            return False
        entry.path.rename(aside)
    except FileNotFoundError:
        return False
    except OSError as error:  # a sick disk or a strange owner: the others may still give what is needed
        log.warning("cache_entry_stays", path=str(entry.path), error=str(error))
        return False
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)
    return True
