"""One object on its way to the disk: hashed while it comes, stopped where it grows too large, resumable.

A download in progress is a folder with `data` and, where the store gave a strong entity tag, `etag`. What was
fetched is continued only under that same tag, and the whole of it is hashed, whoever fetched which part (FAULTS 94).
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from longshore.schemas.failures import LongshoreError
from longshore.worker_host.processes import in_thread, redact
from longshore.worker_host.stores.shelves import disk_errors
from longshore.worker_host.stores.storage import CHUNK_BYTES, Body, ObjectChangedError, Resume, Storage

Beat = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Downloaded:
    """A complete object. It is not on the disk for certain until it has been synced."""

    data: Path
    sha256: str
    size: int
    etag: str | None
    resumed: bool


async def download(storage: Storage, url: str, folder: Path, *, limit: int | None, beat: Beat) -> Downloaded:
    """Fetch `url` into `folder` (which exists), going on from what is there. `beat` is given bytes had and expected.

    Raises ARTIFACT_TOO_LARGE beyond `limit` bytes, STORAGE_UNAVAILABLE where the body ends early, DISK_FULL, IO_ERROR,
    and what the storage raises. What was fetched stays in the folder.
    """
    resume = await in_thread(_resume_from, folder)
    try:
        async with storage.open(url, resume) as body:
            return await _receive(body, url, folder, limit=limit, beat=beat)
    except ObjectChangedError:
        async with storage.open(url, None) as body:
            return await _receive(body, url, folder, limit=limit, beat=beat)


async def _receive(body: Body, url: str, folder: Path, *, limit: int | None, beat: Beat) -> Downloaded:
    _refuse_beyond(limit, body.size or 0, url)
    partial = _Partial(folder)
    try:
        with disk_errors():
            await in_thread(partial.open, body)
        async for chunk in body.chunks:
            _refuse_beyond(limit, partial.size + len(chunk), url)
            with disk_errors():
                await in_thread(partial.write, chunk)
            beat(partial.size, body.size)
    finally:
        partial.close()
    if body.size not in {None, partial.size}:
        raise LongshoreError("STORAGE_UNAVAILABLE", f"{redact(url)} ended at {partial.size} of {body.size} bytes")
    return Downloaded(partial.path, partial.sha256(), partial.size, body.etag, resumed=body.start > 0)


class _Partial:
    """The file that grows."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "data"
        self.size = 0
        self._etag = folder / "etag"
        self._hash = hashlib.sha256()
        self._descriptor: int | None = None

    def open(self, body: Body) -> None:
        """Keep (and hash) what `body` continues, drop the rest, and remember whose bytes these are."""
        _require_space(self.path.parent, (body.size or 0) - body.start)
        self._etag.unlink(missing_ok=True)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(self._descriptor, body.start)
        while block := os.read(self._descriptor, CHUNK_BYTES):
            self._hash.update(block)
            self.size += len(block)
        if body.etag:
            self._etag.write_text(body.etag)

    def write(self, chunk: bytes) -> None:
        assert self._descriptor is not None  # noqa: S101 (opened before it is written)
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        self._hash.update(chunk)
        self.size += len(chunk)

    def sha256(self) -> str:
        return self._hash.hexdigest()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


def _resume_from(folder: Path) -> Resume | None:
    try:
        offset = (folder / "data").stat().st_size
        etag = (folder / "etag").read_text()
    except FileNotFoundError:
        return None
    return Resume(offset, etag) if offset and etag else None


def _refuse_beyond(limit: int | None, size: int, url: str) -> None:
    if limit is not None and size > limit:
        raise LongshoreError("ARTIFACT_TOO_LARGE", f"{redact(url)} is larger than the {limit} bytes it should have")


def _require_space(folder: Path, needed: int) -> None:
    """Refuse at once what cannot fit, before it has filled the disk that a running model may write to."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise LongshoreError("DISK_FULL", f"{needed} bytes are needed and {free} are free")
