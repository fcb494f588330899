"""A model's files on disk: fetched once, verified, shared by content (PRD §6.2 steps 6 and 7).

objects/<sha256>     each file, whole and verified, read-only
tags/<key>           for objects without a checksum: which digest this URL had under this entity tag and size
partials/<key>/      downloads in progress; they survive a restart and are resumed
artifacts/<key>/     hard links to objects under the names that the card gives them: what a model is handed
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import structlog

from longshore.schemas import cards
from longshore.schemas.failures import Category, LongshoreError
from longshore.worker_host.breakers import Breaker
from longshore.worker_host.processes import in_thread, redact
from longshore.worker_host.stores.downloads import Beat, Downloaded, download
from longshore.worker_host.stores.shelves import Shelf, disk_errors
from longshore.worker_host.stores.storage import Storage
from longshore.worker_host.stores.storages import storage_for

log = structlog.get_logger()

# Objects named in a report: it goes out every 30 s, and what was used long before is collected first.
_TOLD = 100

# Hex digits of a digest that tell objects apart: 48 bits.
_TOLD_DIGITS = 12

# A configuration file has neither checksum nor size on the card; a larger one than this, in bytes, is no such file.
CONFIG_LIMIT = 16 * 1024 * 1024


@dataclass(frozen=True)
class _Wanted:
    """One object, and what the card says of it. `limit` is in bytes."""

    url: str
    checksum: str | None
    limit: int | None
    beat: Beat

    @property
    def key(self) -> str:
        return self.checksum or _digest(self.url)


class Artifacts:
    """The artifact store of one device. Log events carry the deployment through structlog's context variables."""

    def __init__(self, root: Path, breaker: Breaker) -> None:
        self._objects = Shelf(root / "objects")
        self._tags = Shelf(root / "tags")
        self._partials = Shelf(root / "partials")
        self._views = Shelf(root / "artifacts")
        self._breaker = breaker
        self._storages: dict[str, Storage] = {}

    async def materialise(self, artifacts: cards.Artifacts, beat: Beat) -> Path:
        """Return a folder that holds the model file and the config under their own base names, read-only.

        `beat` is given the model file's bytes so far and in all (None: unknown). A model with a checksum that was
        fetched before needs no network for it.
        Raises LongshoreError CHECKSUM_MISMATCH, ARTIFACT_MISSING, ARTIFACT_TOO_LARGE, AUTH_FAILED, STORAGE_UNSUPPORTED,
        STORAGE_UNAVAILABLE and CIRCUIT_OPEN (retriable), CARD_INVALID, DISK_FULL, IO_ERROR.
        """
        storage = self._storage(artifacts.storage_type)
        names = [base_name(url) for url in (artifacts.model_path, artifacts.config_path) if url]
        if len(set(names)) < len(names):
            raise LongshoreError("CARD_INVALID", f"model_path and config_path are both called {names[0]}")

        model = _Wanted(artifacts.model_path, artifacts.checksum, artifacts.size_bytes, beat)
        digests = [await self._object(storage, model)]
        if not artifacts.checksum:
            self._require_size(artifacts, digests[0])
        if artifacts.config_path:
            digests.append(await self._object(storage, _Wanted(artifacts.config_path, None, CONFIG_LIMIT, _silent)))
        return await self._view(dict(zip(names, digests, strict=True)))

    async def cached(self) -> tuple[str, ...]:
        """Return the first digits of the sha256 of what is here, the last used first; at most 100."""
        try:
            digests = await in_thread(self._objects.newest, _TOLD)
        except OSError as error:  # a report with nothing of it is better than none
            log.warning("cache_unreadable", error=str(error))
            return ()
        return tuple(digest[:_TOLD_DIGITS] for digest in digests)

    def _storage(self, storage_type: str) -> Storage:
        if storage_type not in self._storages:
            self._storages[storage_type] = storage_for(storage_type)
        return self._storages[storage_type]

    async def _object(self, storage: Storage, wanted: _Wanted) -> str:
        """Return the digest of an object that is in the store, having brought it there if need be."""
        async with self._partials.lock(wanted.key):
            digest = wanted.checksum or await self._recognise(storage, wanted.url)
            stored = digest and self._objects.find(digest)
            if digest and stored:
                if wanted.limit is not None and stored.stat().st_size > wanted.limit:
                    url = redact(wanted.url)
                    raise LongshoreError("ARTIFACT_TOO_LARGE", f"{url} is larger than {wanted.limit} bytes")
                return digest
            try:
                return await self._bring(storage, wanted)
            except LongshoreError as error:
                if error.failure.kind.category is not Category.NETWORK:
                    # Nothing of it is worth going on from, or there is no room for it.
                    await self._partials.drop(wanted.key)
                raise

    async def _recognise(self, storage: Storage, url: str) -> str | None:
        """Ask the store which object `url` is now, and return its digest if that very object was fetched before."""
        async with self._breaker.guard(), storage.open(url, None) as body:
            tag = self._tags.find(_tag(url, body.etag, body.size))
        return tag.read_text() if tag else None

    async def _bring(self, storage: Storage, wanted: _Wanted) -> str:
        """Download, verify, put in place. Returns the digest."""
        folder = self._partials.find(wanted.key)
        if folder is None:
            folder = self._partials.entry(wanted.key)
            with disk_errors():
                folder.mkdir()
        log.debug("artifact_download_started", artifact_path=redact(wanted.url))
        started = time.monotonic()
        got = await self._download(storage, wanted, folder)
        if got.resumed and wanted.checksum not in {None, got.sha256}:
            # The part that was there may be what is wrong (a power cut tears it); the verdict is final, so be sure.
            with disk_errors():
                got.data.unlink()
            got = await self._download(storage, wanted, folder)
        milliseconds = round((time.monotonic() - started) * 1000)
        log.debug("artifact_download_completed", size_bytes=got.size, duration_ms=milliseconds)
        _verify(wanted, got)
        with disk_errors():
            got.data.chmod(0o444)
        await self._objects.put(got.data, got.sha256)
        if got.etag and not wanted.checksum:
            await self._remember(_tag(wanted.url, got.etag, got.size), got.sha256)
        await self._partials.drop(wanted.key)
        return got.sha256

    async def _download(self, storage: Storage, wanted: _Wanted, folder: Path) -> Downloaded:
        async with self._breaker.guard():
            return await download(storage, wanted.url, folder, limit=wanted.limit, beat=wanted.beat)

    async def _remember(self, tag: str, digest: str) -> None:
        async with self._tags.staging() as aside:
            note = aside / "tag"
            with disk_errors():
                note.write_text(digest)
            await self._tags.put(note, tag)

    async def _view(self, digests: dict[str, str]) -> Path:
        key = _digest(*(part for name in sorted(digests) for part in (name, digests[name])))
        async with self._views.lock(key):
            if found := self._views.find(key):
                return found
            async with self._views.staging() as aside:
                folder = aside / "files"
                with disk_errors():
                    await in_thread(self._link, folder, digests)
                return await self._views.put(folder, key)

    def _link(self, folder: Path, digests: dict[str, str]) -> None:
        folder.mkdir()
        for name, digest in digests.items():
            os.link(self._objects.entry(digest), folder / name)

    def _require_size(self, artifacts: cards.Artifacts, digest: str) -> None:
        """Without a checksum the size is the only promise that can be held against the object."""
        size = self._objects.entry(digest).stat().st_size
        if artifacts.size_bytes is not None and size != artifacts.size_bytes:
            url = redact(artifacts.model_path)
            raise LongshoreError("CHECKSUM_MISMATCH", f"{url} has {size} bytes instead of {artifacts.size_bytes}")


def base_name(url: str) -> str:
    """Return the last segment of an object's path. Raises CARD_INVALID where that is no file name."""
    parts = urlsplit(url)
    # An HTTP path is quoted and may have a query; a key in a bucket is what it is, question marks and all.
    name = unquote(parts.path.rsplit("/", 1)[-1]) if parts.scheme.startswith("http") else url.rsplit("/", 1)[-1]
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise LongshoreError("CARD_INVALID", f"{redact(url)} does not end in a file name")
    return name


def _verify(wanted: _Wanted, got: Downloaded) -> None:
    if wanted.checksum is None:
        return
    if got.sha256 == wanted.checksum:
        log.debug("checksum_validation_success", checksum=got.sha256)
        return
    log.error("checksum_validation_failed", expected_checksum=wanted.checksum, actual_checksum=got.sha256)
    url = redact(wanted.url)
    raise LongshoreError(
        "CHECKSUM_MISMATCH", f"{url} has sha256 {got.sha256} ({got.size} bytes), the card says {wanted.checksum}"
    )


def _tag(url: str, etag: str | None, size: int | None) -> str:
    return _digest(url, etag or "", str(size))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _silent(_done: int, _total: int | None) -> None:
    """Report nothing: a configuration file is small."""
