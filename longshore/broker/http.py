"""An HTTP server as one side task among others: its socket is bound first, and signals are not its business."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from longshore.schemas.failures import LongshoreError

log = structlog.get_logger()

# A git host gives up after 10 s; a connection that says nothing for so long is closed.
KEEP_ALIVE_SECONDS = 15

# From the first byte of a request to the end of its headers; uvicorn itself would wait for ever (FAULTS 11).
HEAD_SECONDS = 10.0

# Each may hold one body of at most 1 MB. Past this uvicorn answers 503, and the poll finds the commit.
MAX_CONNECTIONS = 200


class _Protocol(H11Protocol):
    """HTTP/1.1 that closes a connection whose request does not get to the end of its headers."""

    _head_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._await_head()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if self._head_due is None:
            self._head_due = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _stop_waiting(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_http(app: Starlette, host: str, port: int) -> None:
    """Serve until cancelled. Raises LongshoreError PORT_CONFLICT where the port is taken."""
    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        raise LongshoreError("PORT_CONFLICT", f"cannot listen on {host}:{port}: {error.strerror}") from error
    with listener:
        log.info("webhook_listening", url=f"http://{host}:{listener.getsockname()[1]}/webhooks/git")
        config = uvicorn.Config(
            app,
            http=_Protocol,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            limit_concurrency=MAX_CONNECTIONS,
        )
        await _Server(config).serve(sockets=[listener])
