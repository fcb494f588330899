"""What the broker's log says when rollouts are started."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs
from temporalio.testing import ActivityEnvironment

from longshore.activities.rollouts import RolloutActivities
from longshore.schemas.commands import Action
from longshore.schemas.plans import Change, ChangeType, DeploymentPlan, PlannedCommand
from longshore.schemas.rollouts import RolloutTarget, StartRollouts
from longshore.telemetry.events import EVENTS


class Taken:
    async def set_targets(self, targets: tuple[RolloutTarget, ...]) -> None:
        """Take them."""


def target(kind: ChangeType, *actions: Action) -> RolloutTarget:
    plan = DeploymentPlan(
        deployment_id="fraud",
        generation=42,
        version="1.0.0",
        digest="d",
        replicas=1,
        changes=(Change(type=kind, deployment_id="fraud", reason="worker-a has failed"),),
        commands=tuple(
            PlannedCommand(action=action, worker_id=f"worker-{number}", reason="")
            for number, action in enumerate(actions)
        ),
    )
    return RolloutTarget(registry="ops", sha="c" * 40, plan=plan, reply_to="reconcile:ops:42")


async def told(*targets: RolloutTarget) -> list[dict[str, Any]]:
    activities: Any = RolloutActivities(Taken(), Taken())  # type: ignore[arg-type]
    with capture_logs() as logs:
        await ActivityEnvironment().run(activities.start_rollouts, StartRollouts(targets=targets))
    return [dict(entry) for entry in logs if entry["event"] == "model_redeployment_triggered"]


@pytest.mark.parametrize("kind", [ChangeType.UNRESPONSIVE_WORKER, ChangeType.FAILED_MODEL])
async def test_a_redeployment_is_told_with_why_and_where_to(kind: ChangeType) -> None:
    """PRD §9.2, whether a commit's plan brings it about or the fleet's own."""
    (entry,) = await told(target(kind, Action.UNLOAD, Action.LOAD, Action.LOAD))
    assert entry["target_workers"] == ["worker-1", "worker-2"]
    assert entry["reason"] == "worker-a has failed"
    assert entry["log_level"] == "warning"
    assert EVENTS["model_redeployment_triggered"].fields <= entry.keys()


async def test_what_is_no_redeployment_is_not_told_as_one() -> None:
    """A new version, and a failed device for whose models there is no place."""
    assert await told(target(ChangeType.VERSION_UPDATE, Action.LOAD), target(ChangeType.UNRESPONSIVE_WORKER)) == []
