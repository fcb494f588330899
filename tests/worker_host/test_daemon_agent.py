"""The lease of an activity task: what counts as lost, and what does not."""

from __future__ import annotations

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


async def test_a_lease_holds_while_the_server_takes_heartbeats():
    """One call, and on."""
    await TaskLease(FakeClient(None), b"token").confirm()


@pytest.mark.parametrize(
    "answer",
    [RPCError("unknown", RPCStatusCode.NOT_FOUND, b""), AsyncActivityCancelledError()],
    ids=["lost", "cancelled"],
)
async def test_a_no_fences(answer):
    """An attempt that was given up, cancelled or paused must not act."""
    with pytest.raises(LongshoreError) as fenced:
        await TaskLease(FakeClient(answer), b"token").confirm()
    assert fenced.value.code == "FENCED"


async def test_silence_is_no_answer(monkeypatch):
    """A server that restarts is asked again: the attempt may still hold."""
    monkeypatch.setattr(agent, "_CONFIRM_PAUSE_SECONDS", 0)
    away = RPCError("away", RPCStatusCode.UNAVAILABLE, b"")
    client = FakeClient(away, away, None)
    await TaskLease(client, b"token").confirm()
    assert client.answers == []
