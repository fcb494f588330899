"""Artifacts in S3, and in whatever speaks its protocol at AWS_ENDPOINT_URL_S3."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import boto3
import urllib3.exceptions
from botocore import exceptions
from botocore.config import Config

from longshore.schemas.failures import LongshoreError
from longshore.worker_host.stores.storage import (
    CHUNK_BYTES,
    CONNECT_TIMEOUT,
    READ_TIMEOUT,
    Body,
    ObjectChangedError,
    Resume,
    status_error,
)

_CONFIG = Config(
    connect_timeout=CONNECT_TIMEOUT,
    read_timeout=READ_TIMEOUT,
    # Failures are counted and retried in one place, the device's journal (DESIGN §3): one attempt and no other.
    retries={"total_max_attempts": 1, "mode": "standard"},
    # The whole object's SHA-256 is what we verify; a resumed part could not be checked anyway.
    response_checksum_validation="when_required",
)

_NO_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.TokenRetrievalError,
    exceptions.UnauthorizedSSOTokenError,
    exceptions.ProfileNotFound,
)


class S3Storage:
    """boto3 with its standard chain of credentials. Its calls block, so each is made in a thread."""

    @cached_property
    def _client(self) -> Any:
        # Without a region boto3 asks nobody, it fails; S3 itself answers for this one with the bucket's own.
        session = boto3.session.Session()
        return session.client("s3", region_name=session.region_name or "us-east-1", config=_CONFIG)

    @asynccontextmanager
    async def open(self, url: str, resume: Resume | None) -> AsyncIterator[Body]:
        try:
            answer = await asyncio.to_thread(self._get, url, resume)
            body = answer["Body"]
            reading = _Reading(body)
            try:
                yield Body(
                    reading.chunks(),
                    start=resume.offset if resume else 0,
                    size=answer["ContentLength"] + (resume.offset if resume else 0),
                    etag=answer.get("ETag"),
                )
            finally:
                reading.close()
        except exceptions.ClientError as error:
            raise _client_error(url, error, resume) from error
        except _NO_CREDENTIALS as error:
            raise LongshoreError("AUTH_FAILED", f"{url}: {error}") from error
        except exceptions.ParamValidationError as error:
            raise LongshoreError("ARTIFACT_MISSING", f"{url} is no s3://bucket/key: {error}") from error
        except (exceptions.BotoCoreError, urllib3.exceptions.HTTPError) as error:
            raise LongshoreError("STORAGE_UNAVAILABLE", f"{url} cannot be read: {error}") from error

    def _get(self, url: str, resume: Resume | None) -> dict[str, Any]:
        parts = urlsplit(url, allow_fragments=False)
        bucket, key = parts.netloc, parts.path.removeprefix("/")
        if parts.query:  # "?" is an ordinary character of a key
            key = f"{key}?{parts.query}"
        if parts.scheme != "s3" or not bucket or not key:
            raise LongshoreError("ARTIFACT_MISSING", f"{url} is no s3://bucket/key")
        condition = {"Range": f"bytes={resume.offset}-", "IfMatch": resume.etag} if resume else {}
        answer: dict[str, Any] = self._client.get_object(Bucket=bucket, Key=key, **condition)
        return answer


class _Reading:
    """One open answer. A thread may still be inside `read` when the caller is cancelled; then that thread closes."""

    def __init__(self, body: Any) -> None:
        self._body = body
        self._read: asyncio.Future[bytes] | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            self._read = asyncio.ensure_future(asyncio.to_thread(self._body.read, CHUNK_BYTES))
            chunk = await asyncio.shield(self._read)
            self._read = None
            if not chunk:
                return
            yield chunk

    def close(self) -> None:
        if self._read is None:
            self._body.close()
        else:
            self._read.add_done_callback(self._close_after)

    def _close_after(self, read: asyncio.Future[bytes]) -> None:
        if not read.cancelled():
            read.exception()  # whatever it was, nobody waits for these bytes any more
        self._body.close()


def _client_error(url: str, error: exceptions.ClientError, resume: Resume | None) -> Exception:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if resume and status in {412, 416}:
        return ObjectChangedError()
    return status_error(url, status, str(error))
