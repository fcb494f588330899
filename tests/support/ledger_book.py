"""A ledger to try things on: slots of one deployment `m` on devices w, x, y, z, and what is said of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from longshore.schemas.devices import DeviceRecord, DeviceStatus, Health, Told
from longshore.schemas.fleet import (
    FleetInput,
    PlanAnswer,
    PlanOutcome,
    PlanRequest,
    SlotSettled,
)
from longshore.schemas.ledger import stamp
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import (
    Cause,
    CauseKind,
    DeploymentPlan,
    Goal,
    Plan,
    PlannedCommand,
)
from longshore.schemas.slots import Demand, Slot
from longshore.workflows.ledger.machine import Ledger

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GRACE = timedelta(seconds=10)
PAUSE = timedelta(seconds=1)
SHA = "a" * 40
DIGEST = "d" * 64
OLD = "0" * 64
OTHER = "f" * 64
READY, FAILED, LOADING, RELOADING, UNLOADING, IDLE = (
    ModelState.READY,
    ModelState.FAILED,
    ModelState.LOADING,
    ModelState.RELOADING,
    ModelState.UNLOADING,
    ModelState.IDLE,
)


def seconds(count: float) -> datetime:
    return NOW + timedelta(seconds=count)


def slot(state: ModelState = READY, worker_id: str = "w", deployment_id: str = "m", **facts) -> Slot:
    known = {"generation": 5, "version": "1.0.0", "digest": DIGEST, "priority": 50, "demand": Demand(memory=1), **facts}
    if state is RELOADING:
        known |= {"previous_version": "0.9.0", "previous_digest": OLD, "previous_demand": Demand(memory=1)}
    return Slot(deployment_id=deployment_id, worker_id=worker_id, state=state, **known)


def told(
    state: ModelState | None = None,
    generation: int = 5,
    digest: str = DIGEST,
    code: str | None = None,
    *,
    worker_id: str = "w",
    seen: int = 5,
    health: Health = Health.HEALTHY,
    **facts,
) -> DeviceRecord:
    """Return the record of a device that has seen generation `seen` and says `state` of m (None: nothing)."""
    slots = {} if state is None else {"m": str(Told(state, generation, digest[:8], code))}
    return DeviceRecord(
        worker_id=worker_id,
        health=health,
        status=DeviceStatus.HEALTHY,
        boot_id="b",
        slots=slots,
        generation=seen,
        **facts,
    )


def ledger(*slots: Slot, **facts) -> Ledger:
    known = {"registry": "r", "applied_sha": SHA, "generation": 5, "slots": slots, "rebuilt": True, **facts}
    known.setdefault("devices", {name: told(worker_id=name, seen=0) for name in ("w", "x", "y", "z")})
    return Ledger(FleetInput(**known))


def standing(book: Ledger, worker_id: str = "w") -> Slot | None:
    return next((one for one in book.state.slots if one.worker_id == worker_id), None)


def kinds(book: Ledger) -> set[CauseKind]:
    return {cause.kind for cause in book.state.causes}


def settled(state: ModelState, worker_id: str = "w", generation: int = 5, **facts) -> SlotSettled:
    return SlotSettled(deployment_id="m", worker_id=worker_id, generation=generation, state=state, **facts)


def commit(sha: str = "b" * 40, request_id: str = "1") -> PlanRequest:
    return PlanRequest(request_id=request_id, registry="r", sha=sha, workers=("w", "x"))


def answer(request: PlanRequest, *deployments: DeploymentPlan, generation: int = 6, **facts) -> PlanAnswer:
    workers, goals = ("w", "x", "y", "z"), {"m": Goal(version="1.0.0", replicas=1)}
    known = {"workers": workers, "goals": goals, "cause": request.cause, **facts}
    plan = Plan(sha=request.sha, generation=generation, deployments=deployments, **known)
    return PlanAnswer(
        request_id=request.request_id,
        sha=request.sha,
        outcome=PlanOutcome.PLANNED,
        applied_sha=request.sha,
        plan=plan,
    )


def deployment(*commands: PlannedCommand, **facts) -> DeploymentPlan:
    known = {"generation": 6, "version": "1.0.0", "digest": DIGEST, "replicas": 1, "changes": (), **facts}
    return DeploymentPlan(deployment_id="m", commands=commands, **known)


def reconciled(book: Ledger, now: datetime, *deployments: DeploymentPlan) -> Cause | None:
    """Plan what is due, as the driver does; `deployments` is what comes out. Return why."""
    cause, _ = book.due(now)
    if cause is not None:
        request = book.reconciliation(cause)
        generation = book.ask(request, now).generation + bool(deployments)
        book.planned(answer(request, *deployments, generation=generation), now)
    return cause


def stamp_of(book: Ledger) -> str:
    state = book.state
    return stamp(state.applied_sha, state.generation, state.slots, state.cordons, state.holds)
