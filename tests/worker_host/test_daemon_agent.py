"""The lease of an activity task: what counts as lost, and what does not."""

from __future__ import annotations

from datetime import timedelta

import pytest
from temporalio.client import AsyncActivityCancelledError
from temporalio.service import RPCError, RPCStatusCode

from longshore.schemas.failures import LongshoreError
from longshore.worker_host import agent
from longshore.worker_host.agent import TaskLease


class FakeClient:
    """Its handle answers one heartbeat after the other as it was told."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def get_async_activity_handle(self, *, task_token):
        assert task_token == b"token"
        return self

    async def heartbeat(self, *_, **__):
        answer = self.answers.pop(0)
        if answer is not None:
            raise answer


def lease(client, *, patience=30.0):
    return TaskLease(client, b"token", heartbeat_timeout=timedelta(seconds=patience))


async def test_a_lease_holds_while_the_server_takes_heartbeats():
    """One call, and on."""
    await lease(FakeClient(None)).confirm()


@pytest.mark.parametrize(
    "answer",
    [RPCError("unknown", RPCStatusCode.NOT_FOUND, b""), AsyncActivityCancelledError()],
    ids=["lost", "cancelled"],
)
async def test_a_no_fences(answer):
    """An attempt that was given up, cancelled or paused must not act."""
    with pytest.raises(LongshoreError) as fenced:
        await lease(FakeClient(answer)).confirm()
    assert fenced.value.code == "FENCED"


async def test_silence_is_no_answer(monkeypatch):
    """A server that restarts is asked again: the attempt may still hold."""
    monkeypatch.setattr(agent, "_CONFIRM_PAUSE_SECONDS", 0)
    away = RPCError("away", RPCStatusCode.UNAVAILABLE, b"")
    client = FakeClient(away, away, None)
    await lease(client).confirm()
    assert client.answers == []


async def test_a_server_that_stays_away_fences():
    """Past the heartbeat time-out the attempt has been given up, and others wait for what it holds."""
    away = RPCError("away", RPCStatusCode.UNAVAILABLE, b"")
    with pytest.raises(LongshoreError, match="FENCED"):
        await lease(FakeClient(away), patience=-1.0).confirm()
