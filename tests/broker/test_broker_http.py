"""The HTTP server itself: what a sender may do to its connection (FAULTS 11)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from system import free_port

from longshore.broker import http
from longshore.broker.settings import ControlSettings
from longshore.broker.webhook import Webhook, webhook_app
from longshore.telemetry.metrics import BrokerMetrics

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def temporal_answers() -> None:
    """Raise nothing."""


@asynccontextmanager
async def connected() -> AsyncIterator[Connection]:
    """A connection to a real server with a webhook that has a secret."""
    metrics = BrokerMetrics()
    settings = ControlSettings(registry="https://git.example/ops/registry.git", webhook_secret="hush")
    app = webhook_app(Webhook(settings, lambda _: None, temporal_answers, metrics), metrics)
    port = free_port()
    serving = asyncio.create_task(http.serve_http(app, "127.0.0.1", port))
    try:
        async with asyncio.timeout(20):
            while True:
                with suppress(OSError):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    break
                await asyncio.sleep(0.02)
            yield reader, writer
            writer.close()
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


async def test_a_large_body_is_refused_before_it_is_sent() -> None:
    """The announcement is enough: the answer comes, and the connection ends, without a byte of the body."""
    async with connected() as (reader, writer):
        head = "POST /webhooks/git HTTP/1.1\r\nHost: b\r\nX-Gitlab-Token: any\r\nContent-Length: 104857600\r\n\r\n"
        writer.write(head.encode())
        head_of_answer, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert head_of_answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(body)["code"] == "WEBHOOK_TOO_LARGE"


@pytest.mark.parametrize("said", [b"", b"POST /webhooks/git HTTP/1.1\r\nHost: b\r\nX-Slow: "])
async def test_a_request_that_never_gets_to_its_end_is_cut(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """A sender of half a request line, or of none, holds no connection for ever."""
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.1)
    async with connected() as (reader, writer):
        writer.write(said)
        assert await reader.read() == b""


async def test_a_connection_serves_one_request_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline is for the head of a request, not for the time between two of them."""
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.1)
    async with connected() as (reader, writer):
        for _ in range(2):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: b\r\n\r\n")
            assert (await reader.readuntil(b"}")).endswith(b'{"status":"ok"}')
            await asyncio.sleep(0.2)
