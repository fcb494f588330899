"""What an artifact store offers: one object, from an offset on, as a stream. Each kind has a file of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from longshore.schemas.failures import LongshoreError

# Large enough that a thread per chunk costs nothing beside the disk, small enough to notice a cancellation.
CHUNK_BYTES = 1024 * 1024

# A store that is silent for this long, in seconds, is taken for gone; a heartbeat is due every 30.
CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 30.0


@dataclass(frozen=True)
class Resume:
    """Ask for the bytes from `offset` on, but only of the very object that has this entity tag."""

    offset: int
    etag: str


@dataclass(frozen=True)
class Body:
    """An object as it comes. `start` is 0 where the store answered with the whole object instead of the rest."""

    chunks: AsyncIterator[bytes]
    start: int
    size: int | None
    """Bytes of the whole object."""
    etag: str | None
    """Only a strong one: a weak tag promises no identical bytes."""


class ObjectChangedError(Exception):
    """The object no longer has the entity tag that a Resume named: begin anew."""


class Storage(Protocol):
    """Raises LongshoreError ARTIFACT_MISSING, AUTH_FAILED or STORAGE_UNAVAILABLE, while opening and while reading."""

    def open(self, url: str, resume: Resume | None) -> AbstractAsyncContextManager[Body]:
        """Open the object at `url`. Raises ObjectChangedError where `resume` cannot be met."""


def status_error(url: str, status: int, said: str = "") -> LongshoreError:
    """Return what an HTTP status of a store means (PRD §8.2): gone, refused, or worth another attempt."""
    if status in {404, 410}:
        return LongshoreError("ARTIFACT_MISSING", f"{url} is not there ({status})", details=said or None)
    if status in {401, 403}:
        return LongshoreError("AUTH_FAILED", f"{url} was refused ({status})", details=said or None)
    return LongshoreError("STORAGE_UNAVAILABLE", f"{url} answered {status}", details=said or None)
