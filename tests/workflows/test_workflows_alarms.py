"""Ops hears of a commit that a defect of ours has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs
from temporalio import activity
from temporalio.client import WorkflowFailureError
from workflow_world import REGISTRY, World, eventually, real_server, world

from longshore.broker.alarms import Alarms
from longshore.schemas.commits import RegistryCommit
from longshore.workflows import conventions

SHA = "a" * 40


@activity.defn
async def validate_commit(_: RegistryCommit) -> dict[str, Any]:
    """Answer what the workflow cannot read."""
    return {"accepted": "perhaps"}


@pytest.fixture
async def broken_world() -> AsyncIterator[World]:
    """A broker with a defect, which has failed a commit's run."""
    async with real_server() as client, world(client, notify_ops="json://ops.example/") as around:
        await around.start_broker(validate_commit=validate_commit)
        with pytest.raises(WorkflowFailureError):
            await (await around.commit(SHA)).result()
        yield around


async def test_a_run_that_a_defect_has_ended_is_told_once(broken_world: World) -> None:
    """Whichever broker looks, and however often; what it failed with stands in the notice and in the log."""
    run = await broken_world.client.get_workflow_handle(conventions.commit_workflow_id(REGISTRY, SHA)).describe()
    with capture_logs() as logs:
        first, second = (Alarms(broken_world.client, broken_world.settings) for _ in range(2))

        async def told() -> bool:
            await first.look()
            return bool(broken_world.people.told)

        await eventually(told, "ops is told")
        await second.look()
        alarm = broken_world.client.get_workflow_handle(conventions.defect_alarm_workflow_id(REGISTRY, run.run_id))
        assert await alarm.result() == f"Longshore: {REGISTRY}: workflow bug"
    [request] = broken_world.people.told
    assert request.sha == SHA
    assert f"registry-commit:{REGISTRY}:{SHA} has failed" in request.notice.body
    assert "WORKFLOW_BUG: This is a defect of Longshore" in request.notice.body
    assert "ValidationResult" in request.notice.body
    failed = [entry for entry in logs if entry["event"] == "workflow_failed"]
    assert [(entry["code"], entry["workflow_id"]) for entry in failed] == [("WORKFLOW_BUG", run.id)] * 2
