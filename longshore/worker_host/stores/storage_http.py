"""Artifacts over HTTP(S)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2

from longshore.schemas.failures import LongshoreError
from longshore.worker_host.processes import redact
from longshore.worker_host.stores.storage import (
    CHUNK_BYTES,
    CONNECT_TIMEOUT,
    READ_TIMEOUT,
    Body,
    ObjectChangedError,
    Resume,
    status_error,
)

_TIMEOUT = httpx2.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT)
_MAX_REDIRECTS = 3  # FAULTS 91

_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-[0-9]+/([0-9]+)")


class HttpStorage:
    """Plain GET; credentials come from the URL or from ~/.netrc, proxies from the environment."""

    @asynccontextmanager
    async def open(self, url: str, resume: Resume | None) -> AsyncIterator[Body]:
        # The bytes as they are stored: a compressed answer would have another length and other ranges.
        headers = {"Accept-Encoding": "identity"}
        if resume:
            headers |= {"Range": f"bytes={resume.offset}-", "If-Range": resume.etag}
        try:
            async with (
                httpx2.AsyncClient(timeout=_TIMEOUT, follow_redirects=True, max_redirects=_MAX_REDIRECTS) as client,
                client.stream("GET", url, headers=headers) as response,
            ):
                yield _body(url, response, resume)
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise LongshoreError("ARTIFACT_MISSING", f"{redact(url)} is no HTTP address: {error}") from error
        except httpx2.HTTPError as error:
            said = f"{type(error).__name__} {error}".strip()
            raise LongshoreError("STORAGE_UNAVAILABLE", f"{redact(url)} cannot be read: {redact(said)}") from error


def _body(url: str, response: httpx2.Response, resume: Resume | None) -> Body:
    etag = response.headers.get("ETag")
    strong = etag if etag and not etag.startswith("W/") else None
    chunks = response.aiter_raw(CHUNK_BYTES)
    if response.status_code == httpx2.codes.OK:
        length = response.headers.get("Content-Length", "")
        return Body(chunks, start=0, size=int(length) if length.isdecimal() else None, etag=strong)
    if resume and response.status_code == httpx2.codes.PARTIAL_CONTENT:
        span = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if span is None or int(span[1]) != resume.offset or strong != resume.etag:
            raise ObjectChangedError
        return Body(chunks, start=resume.offset, size=int(span[2]), etag=strong)
    if resume and response.status_code in {
        httpx2.codes.PRECONDITION_FAILED,
        httpx2.codes.REQUESTED_RANGE_NOT_SATISFIABLE,
    }:
        raise ObjectChangedError
    raise status_error(redact(url), response.status_code)
