"""Talks to a runner over its own Unix socket: who are you, and what do you answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from longshore.schemas.base import Message
from longshore.schemas.failures import LongshoreError

# Who it is needs no thought; a runner that does not say so within this is busy in C code, and is asked again.
_IDENTITY_TIMEOUT_SECONDS = 2.0

# The first inference of a model may compile kernels; longer than this no client would wait either.
INFER_TIMEOUT_SECONDS = 60.0


class Identity(Message):
    """The answer to `GET /-/identity`."""

    instance_id: str
    deployment_id: str
    generation: int
    version: str
    digest: str
    pid: int
    started: str
    python: str
    ready: bool
    """The model has been loaded."""
    connections: int
    """How many Envoy holds; ours are left out."""
    in_flight: int


@dataclass(frozen=True)
class Answer:
    """Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def identity(socket: Path) -> Identity | None:
    """Return who answers at `socket`; None if nobody does, or nobody of ours."""
    try:
        async with _client(socket, _IDENTITY_TIMEOUT_SECONDS) as client:
            response = await client.get("/-/identity")
        return Identity.model_validate_json(response.content)
    except (httpx2.TransportError, ValueError):
        return None


async def infer(socket: Path, document: Any) -> Answer:
    """Ask for one inference. Raises LongshoreError RUNNER_CRASHED, VALIDATION_FAILED if it takes too long."""
    try:
        async with _client(socket, INFER_TIMEOUT_SECONDS) as client:
            response = await client.post("/", json=document)
    except httpx2.TimeoutException as error:
        message = f"the model did not answer within {INFER_TIMEOUT_SECONDS:g} s"
        raise LongshoreError("VALIDATION_FAILED", message) from error
    except httpx2.TransportError as error:
        raise LongshoreError("RUNNER_CRASHED", f"the runner did not answer: {error}") from error
    return Answer(response.status_code, dict(response.headers), response.content)


@asynccontextmanager
async def _client(socket: Path, timeout: float) -> AsyncIterator[httpx2.AsyncClient]:  # noqa: ASYNC109 (httpx2 applies it)
    # One connection per question: one that is kept open would count as Envoy's, and no drain would end. There is no TLS
    # on a local socket, and loading the certificates for it takes 20 ms.
    transport = httpx2.AsyncHTTPTransport(uds=str(socket), verify=False, trust_env=False)
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://runner", timeout=timeout, trust_env=False
    ) as client:
        yield client
