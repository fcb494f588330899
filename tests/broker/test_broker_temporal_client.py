"""Whether Temporal answers: asked briefly, and not by every webhook of a burst (FAULTS 15)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from system import free_port
from temporalio.client import Client

from longshore.broker import temporal_client
from longshore.broker.temporal_client import TemporalHealth
from longshore.schemas.failures import LongshoreError


class Server:
    """A client whose server answers as told."""

    def __init__(self, *, healthy: bool) -> None:
        self.healthy = healthy
        self.asked = 0
        self.service_client: Any = self

    async def check_health(self, *, timeout: timedelta) -> bool:
        assert timeout < timedelta(seconds=10), "the git host gives up before"
        self.asked += 1
        await asyncio.sleep(0)
        return self.healthy


async def test_a_burst_asks_once() -> None:
    """A hundred deliveries at once are one question, and all hear its answer."""
    server = Server(healthy=False)
    health = TemporalHealth(server)
    answers = await asyncio.gather(*(health.require() for _ in range(100)), return_exceptions=True)
    assert {answer.code for answer in answers if isinstance(answer, LongshoreError)} == {"TEMPORAL_UNAVAILABLE"}
    assert (len(answers), server.asked) == (100, 1)


async def test_an_old_answer_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once Temporal is back, the next delivery is taken."""
    monkeypatch.setattr(temporal_client, "HEALTH_FRESH_SECONDS", 0)
    server = Server(healthy=False)
    health = TemporalHealth(server)
    with pytest.raises(LongshoreError, match="TEMPORAL_UNAVAILABLE"):
        await health.require()
    server.healthy = True
    await health.require()


async def test_nobody_there_is_an_answer() -> None:
    """A server that is gone has a code and a remedy, and its address is not the sender's business."""
    port = free_port()
    client = await Client.connect(f"127.0.0.1:{port}", lazy=True)
    with pytest.raises(LongshoreError, match="TEMPORAL_UNAVAILABLE") as raised:
        await TemporalHealth(client).require()
    assert str(port) not in str(raised.value)
