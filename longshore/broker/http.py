"""An HTTP server as one side task among others: its socket is bound first, and signals are not its business."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn
from starlette.applications import Starlette

from longshore.schemas.failures import LongshoreError

log = structlog.get_logger()

# A git host gives up after 10 s; a connection that says nothing for so long is closed.
KEEP_ALIVE_SECONDS = 15


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
            app, log_config=None, access_log=False, lifespan="off", timeout_keep_alive=KEEP_ALIVE_SECONDS
        )
        await _Server(config).serve(sockets=[listener])
