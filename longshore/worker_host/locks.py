"""Locks that live as long as a process does: inherited by it, and free in the moment in which it ends.

No pid can be mistaken for another that way: while the lock is held, the pid in its text is its holder's.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def take(path: Path) -> int:
    """Return an open file descriptor that holds the lock, to be inherited. Raises BlockingIOError if it is held."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


def held(path: Path) -> bool:
    """Whether a living process holds the lock."""
    try:
        with path.open("rb") as probe:
            # Shared, so that two who look at once do not take each other for the holder.
            fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def holder(path: Path) -> int | None:
    """Return the pid of the process that holds the lock; None if nobody does, or has not yet written its pid."""
    if not held(path):
        return None
    text = path.read_text().strip()
    return int(text) if text.isdigit() else None


def wait_until_free(path: Path) -> None:
    """Block until nobody holds the lock, or its file is gone. For a thread of its own."""
    try:
        with path.open("rb") as waiter:
            fcntl.flock(waiter, fcntl.LOCK_SH)
    except FileNotFoundError:
        return
