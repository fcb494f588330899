"""The doors of rollouts: what the log says when they are started, and how room is awaited."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs
from temporalio.testing import ActivityEnvironment

from longshore.activities import rollouts
from longshore.activities.rollouts import RolloutActivities
from longshore.schemas.commands import Action
from longshore.schemas.fleet import FleetView
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.orders import Hold
from longshore.schemas.plans import Awaited, Change, ChangeType, DeploymentPlan, PlannedCommand
from longshore.schemas.rollouts import Freed, FreedRequest, RolloutTarget, StartRollouts, Steering
from longshore.schemas.slots import Demand, Slot
from longshore.telemetry.events import EVENTS
from longshore.workflows import conventions


class Taken:
    """A fleet whose orders come when a test says, and the rollouts that hear of them."""

    def __init__(self, *holds: tuple[Hold, ...]) -> None:
        """`holds`: at each look at the ledger; then as at the last one."""
        self.heard: list[tuple[str, str]] = []
        self._holds = [*holds] or [()]

    async def set_targets(self, targets: tuple[RolloutTarget, ...]) -> None:
        self.heard += [("begin", one.steering.kind if one.steering else "") for one in targets]

    async def steer(self, deployment_id: str, word: Steering) -> None:
        self.heard.append((deployment_id, word.kind))

    async def fleet(self) -> FleetView:
        holds = self._holds.pop(0) if len(self._holds) > 1 else self._holds[0]
        there = {"version": "1.0.0", "digest": "d", "priority": 1, "demand": Demand(), "state": ModelState.LOADING}
        slots = tuple(Slot(deployment_id="fraud", worker_id=f"worker-{n}", generation=42, **there) for n in range(3))
        view = {"registry": "ops", "applied_sha": "c" * 40, "generation": 42, "devices": {}, "plan": None}
        return FleetView.model_validate({**view, "slots": slots, "holds": holds})


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


async def told(*targets: RolloutTarget, event: str = "model_redeployment_triggered") -> list[dict[str, Any]]:
    activities: Any = RolloutActivities(Taken(), Taken())  # type: ignore[arg-type]
    with capture_logs() as logs:
        await ActivityEnvironment().run(activities.start_rollouts, StartRollouts(targets=targets))
    return [dict(entry) for entry in logs if entry["event"] == event]


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


async def test_an_eviction_is_told_with_what_goes_for_whom() -> None:
    """PRD §9.2: who needs the room, on which device, and what makes it."""
    newcomer = target(ChangeType.NEW_DEPLOYMENT, Action.LOAD, Action.LOAD)
    gone = Awaited(deployment_id="churn", worker_id="worker-1", generation=42)
    fits, evicts = newcomer.plan.commands
    commands = (fits, evicts.model_copy(update={"after": (gone,), "reason": "makes room: evicts churn"}))
    plan = newcomer.plan.model_copy(update={"commands": commands})
    (entry,) = await told(newcomer.model_copy(update={"plan": plan}), event="eviction_triggered")
    assert (entry["deployment_id"], entry["worker_id"]) == ("fraud", "worker-1")
    assert (entry["evicted_models"], entry["reason"]) == (["churn"], "makes room: evicts churn")
    assert EVENTS["eviction_triggered"].fields <= entry.keys()


PAUSED = Hold(deployment_id="fraud", kind="paused")
ABORTED = Hold(deployment_id="fraud", kind="aborted", digest="d")


@pytest.mark.parametrize(
    ("looks", "heard"),
    [
        ([()], [("begin", "")]),
        ([(PAUSED,)], [("begin", "pause")]),
        ([(ABORTED,)], [("begin", "abort")]),
        ([(), (PAUSED,)], [("begin", ""), ("fraud", "pause")]),
        ([(), (ABORTED,)], [("begin", ""), ("fraud", "abort")]),
        ([(PAUSED,), ()], [("begin", "pause"), ("fraud", "resume")]),
        ([(), (PAUSED,), ()], [("begin", ""), ("fraud", "pause"), ("fraud", "resume")]),
    ],
)
async def test_a_rollout_hears_what_was_ordered_while_its_target_was_on_its_way(
    looks: list[tuple[Hold, ...]], heard: list[tuple[str, str]]
) -> None:
    """Whenever the order comes, the rollout ends up with the last word."""
    fleet = Taken(*looks)
    activities: Any = RolloutActivities(fleet, fleet)  # type: ignore[arg-type]
    request = StartRollouts(targets=(target(ChangeType.VERSION_UPDATE, Action.RELOAD),))
    await ActivityEnvironment().run(activities.start_rollouts, request)
    assert fleet.heard == heard


async def test_a_broker_that_takes_over_says_the_last_word_again() -> None:
    """What the one before it had said to the rollout, nobody knows."""
    fleet, environment = Taken(()), ActivityEnvironment()
    environment.info = dataclasses.replace(environment.info, attempt=2)
    activities: Any = RolloutActivities(fleet, fleet)  # type: ignore[arg-type]
    request = StartRollouts(targets=(target(ChangeType.VERSION_UPDATE, Action.RELOAD),))
    await environment.run(activities.start_rollouts, request)
    assert fleet.heard == [("begin", ""), ("fraud", "resume")]


class Settled(Taken):
    """A ledger that knows at the third look what runs, and the targets that are handed over."""

    def __init__(self, *slots: Slot) -> None:
        super().__init__()
        self.looks = 0
        self.targets: tuple[RolloutTarget, ...] = ()
        self._slots = slots

    async def set_targets(self, targets: tuple[RolloutTarget, ...]) -> None:
        self.targets = targets

    async def fleet(self) -> FleetView:
        self.looks += 1
        known = {"slots": self._slots} if self.looks > 2 else {"slots": (), "rebuilding": True}
        return (await super().fleet()).model_copy(update=known)


@pytest.mark.parametrize(("generation", "outdated"), [(42, False), (43, True)])
async def test_a_target_is_held_against_the_ledger_when_it_is_handed_over(
    generation: int, *, outdated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rollout that knew of a newer plan may have ended; a new ledger first finds out what there is."""
    monkeypatch.setattr(rollouts, "LOOK_SECONDS", 0.01)
    there = {"version": "1.0.0", "digest": "d", "priority": 1, "demand": Demand(), "state": ModelState.READY}
    fleet = Settled(Slot(deployment_id="fraud", worker_id="worker-0", generation=generation, **there))
    activities: Any = RolloutActivities(fleet, fleet)  # type: ignore[arg-type]
    request = StartRollouts(targets=(target(ChangeType.SCALE_UP, Action.LOAD),))
    await ActivityEnvironment().run(activities.start_rollouts, request)
    assert [one.outdated for one in fleet.targets] == [outdated]


class Unloading:
    """A fleet in which a victim is being unloaded."""

    def __init__(self) -> None:
        victim = {"version": "1.0.0", "digest": "d", "priority": 1, "demand": Demand(), "state": ModelState.UNLOADING}
        self.slots: tuple[Slot, ...] = (Slot(deployment_id="churn", worker_id="worker-a", generation=1, **victim),)

    async def fleet(self) -> FleetView:
        return FleetView(registry="ops", applied_sha=None, generation=1, devices={}, slots=self.slots, plan=None)


async def test_who_waits_for_room_is_missed_soon_when_its_broker_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It beats with every look, several times within the time after which another broker takes over."""
    assert 3 * timedelta(seconds=rollouts.LOOK_SECONDS) < conventions.FREED_HEARTBEAT_TIMEOUT
    monkeypatch.setattr(rollouts, "LOOK_SECONDS", 0.01)
    fleet, environment = Unloading(), ActivityEnvironment()
    beats = 0

    def beat(*_: Any) -> None:
        nonlocal beats
        beats += 1
        if beats == 4:
            fleet.slots = ()

    environment.on_heartbeat = beat
    activities: Any = RolloutActivities(fleet, Taken())  # type: ignore[arg-type]
    room = Awaited(deployment_id="churn", worker_id="worker-a", generation=1)
    asked = environment.run(activities.await_freed, FreedRequest(registry="ops", slots=(room,)))
    assert await asyncio.wait_for(asked, 5) == Freed(outcome="freed")
