"""What `longshore status` tells, put together from the answers of the workflows. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum

from longshore.schemas.base import Message
from longshore.schemas.commits import CommitOutcome
from longshore.schemas.devices import DeviceCapacity, DeviceStatus, DeviceView, Health, ModelReport
from longshore.schemas.failures import FAILURES, Failure
from longshore.schemas.fleet import FleetView, Open
from longshore.schemas.held import HeldBack
from longshore.schemas.issues import Issue
from longshore.schemas.lifecycle import IN_FLIGHT, ModelState
from longshore.schemas.orders import Cordon, Hold
from longshore.schemas.plans import Goal
from longshore.schemas.slots import Slot


class WorkerStatus(Message):
    worker_id: str
    health: Health
    status: DeviceStatus | None
    """The device's own word; None where it was never heard of."""
    last_heard: datetime | None
    capacity: DeviceCapacity | None
    models: tuple[ModelReport, ...] = ()
    data_address: str = ""
    cordon: Cordon | None = None
    drains_itself: bool = False
    """Its host is being stopped, and waits for its models to be moved elsewhere."""
    flags: tuple[str, ...] = ()
    """Failure codes of what is odd about its reports."""


class DeploymentState(StrEnum):
    READY = "ready"
    """Every wanted replica runs the desired version."""
    IN_PROGRESS = "in progress"
    FAILED = "failed"
    INCOMPLETE = "incomplete"
    """Nothing failed and nothing is under way, but devices for some replicas are missing."""
    OFF = "off"
    """Nothing should run, and nothing does."""


class Problem(Message):
    """Why a replica is not as wanted; `remedy` is the failure table's."""

    worker_id: str
    code: str
    message: str
    remedy: str


class DeploymentStatus(Message):
    deployment_id: str
    state: DeploymentState
    desired_version: str | None
    running_versions: dict[str, int]
    """Version → how many replicas serve it."""
    replicas_ready: int
    """Replicas that serve the desired version."""
    replicas_wanted: int
    under_way: tuple[str, ...] = ()
    """What devices are doing now, such as `RELOADING on worker-a, 45 %`."""
    problems: tuple[Problem, ...] = ()
    unplaced: int = 0
    given_up: int = 0
    """How many of those failed where they are, and are not tried any more until a push."""
    why_unplaced: tuple[str, ...] = ()
    deferred: int = 0
    """Commands that wait for something: `longshore explain` says for what."""
    holds: tuple[Hold, ...] = ()


class CommitStatus(Message):
    sha: str
    started: datetime
    outcome: CommitOutcome | None
    """None while it is under way, or where its workflow did not complete."""
    summary: str
    issues: tuple[Issue, ...] = ()
    issues_left_out: int = 0


class Status(Message):
    registry: str
    applied_sha: str | None
    generation: int
    commits: tuple[CommitStatus, ...]
    """The newest first."""
    held_back: tuple[HeldBack, ...] = ()
    """Commits that change nothing until somebody accepts them, the newest last."""
    suspected: tuple[str, ...] = ()
    """Pools too much of which is silent at once: nothing lost is replaced there, nothing evicted."""
    workers: tuple[WorkerStatus, ...]
    deployments: tuple[DeploymentStatus, ...]


def status_of(fleet: FleetView, devices: Mapping[str, DeviceView], commits: Sequence[CommitStatus]) -> Status:
    """Return all facts, workers and deployments by id."""
    plan = fleet.plan
    names = sorted({*fleet.devices, *devices, *(plan.workers if plan else ())})
    goals: dict[str, Goal] = plan.goals if plan else {}
    ids = sorted({*goals, *(slot.deployment_id for slot in fleet.slots)})
    slots = [slot for slot in fleet.slots if not _is_taken_over(slot, devices.get(slot.worker_id))]
    return Status(
        registry=fleet.registry,
        applied_sha=fleet.applied_sha,
        generation=fleet.generation,
        commits=tuple(commits),
        held_back=fleet.held_back,
        suspected=fleet.suspected,
        workers=tuple(_worker(name, fleet, devices.get(name)) for name in names),
        deployments=tuple(
            _deployment(name, [slot for slot in slots if slot.deployment_id == name], fleet, devices) for name in ids
        ),
    )


def _worker(worker_id: str, fleet: FleetView, view: DeviceView | None) -> WorkerStatus:
    record = fleet.devices.get(worker_id)
    report = view.report if view else None
    return WorkerStatus(
        worker_id=worker_id,
        health=view.health if view else record.health if record else Health.UNKNOWN,
        status=report.status if report else record.status if record else None,
        last_heard=view.last_evidence if view else None,
        capacity=report.capacity if report else None,
        models=report.models if report else (),
        data_address=report.data_address if report else "",
        cordon=fleet.cordons.get(worker_id),
        drains_itself=record.draining if record else False,
        flags=record.flags if record else (),
    )


def _deployment(
    deployment_id: str, slots: Sequence[Slot], fleet: FleetView, devices: Mapping[str, DeviceView]
) -> DeploymentStatus:
    nothing = Goal(version=None, replicas=0)
    goal = fleet.plan.goals.get(deployment_id, nothing) if fleet.plan else nothing
    undone = _open(fleet, deployment_id)
    failures = {slot.worker_id: _failure(slot, devices.get(slot.worker_id)) for slot in slots}
    lost = {slot.worker_id for slot in slots if _loss(slot, devices.get(slot.worker_id)) is not None}
    serving = [(slot, version) for slot in slots if (version := _serving(slot)) and slot.worker_id not in lost]
    ready = sum(slot.state is ModelState.READY and version == goal.version for slot, version in serving)
    problems = tuple(_problem(worker_id, failure) for worker_id, failure in failures.items() if failure is not None)
    under_way = tuple(_doing(slot, devices.get(slot.worker_id)) for slot in slots if slot.state in IN_FLIGHT)
    if under_way:
        state = DeploymentState.IN_PROGRESS
    elif problems:
        state = DeploymentState.FAILED
    elif goal.replicas == 0 and not slots:
        state = DeploymentState.OFF
    else:
        whole = ready == goal.replicas and not undone.unplaced
        state = DeploymentState.READY if whole else DeploymentState.INCOMPLETE
    return DeploymentStatus(
        deployment_id=deployment_id,
        state=state,
        desired_version=goal.version,
        running_versions=dict(sorted(Counter(version for _, version in serving).items())),
        replicas_ready=ready,
        replicas_wanted=goal.replicas,
        under_way=under_way,
        problems=problems,
        unplaced=undone.unplaced,
        given_up=undone.given_up,
        why_unplaced=tuple(f"{r.worker_id}: {'; '.join(r.reasons)}" for r in undone.rejections),
        deferred=undone.deferred,
        holds=tuple(hold for hold in fleet.holds if hold.deployment_id == deployment_id),
    )


def _open(fleet: FleetView, deployment_id: str) -> Open:
    """Return what is left undone by the newest plan; a ledger of an older release has the applied commit's only."""
    if fleet.version:
        return fleet.open.get(deployment_id, Open())
    deployments = fleet.plan.deployments if fleet.plan else ()
    planned = (
        Open(unplaced=d.unplaced, rejections=d.rejections) for d in deployments if d.deployment_id == deployment_id
    )
    return next(planned, Open())


def _is_taken_over(slot: Slot, view: DeviceView | None) -> bool:
    """Tell whether others run what was on a device that has failed: it is no concern of the deployment any more."""
    return slot.replaced and view is not None and view.health is Health.FAILED


def _serving(slot: Slot) -> str | None:
    """Return the version that answers requests there, as far as the ledger knows."""
    if slot.state is ModelState.READY:
        return slot.version
    return slot.previous_version if slot.state is ModelState.RELOADING else None


def _model(slot: Slot, view: DeviceView | None) -> ModelReport | None:
    models = view.report.models if view and view.report else ()
    return next((model for model in models if model.deployment_id == slot.deployment_id), None)


def _loss(slot: Slot, view: DeviceView | None) -> Failure | None:
    """Return why a replica that the ledger has as serving does not serve: it fell after its command had ended."""
    if _serving(slot) is None:
        return None
    if view is not None and view.health is Health.FAILED:
        return Failure(code="DEVICE_UNREACHABLE", message="nothing is heard of the device")
    model = _model(slot, view)
    if model is not None and model.state is ModelState.FAILED and model.generation >= slot.generation:
        return model.error or Failure(code="INTERNAL_ERROR", message=f"{slot.version} has failed, and nothing says why")
    return None


def _failure(slot: Slot, view: DeviceView | None) -> Failure | None:
    """Return what is wrong with a replica, in the device's own words where it has some for the ledger's code."""
    loss = _loss(slot, view)
    if loss is not None or slot.code is None:
        return loss
    model = _model(slot, view)
    if model is not None and model.error is not None and model.error.code == slot.code:
        return model.error
    return Failure(code=slot.code, message=f"{slot.version} on {slot.worker_id}")


def _problem(worker_id: str, failure: Failure) -> Problem:
    remedy = FAILURES[failure.code].remedy if failure.code in FAILURES else ""
    return Problem(worker_id=worker_id, code=failure.code, message=failure.message, remedy=remedy)


def _doing(slot: Slot, view: DeviceView | None) -> str:
    version = "" if slot.state is ModelState.UNLOADING else f" {slot.version}"
    text = f"{slot.state.upper()}{version} on {slot.worker_id}"
    if absence := _absence(view):
        return f"{text}, waits for the device: {absence}"
    model = _model(slot, view)
    if model is not None and model.progress is not None:
        text += f", {model.progress:.0%}"
    if model is not None and model.retry is not None and model.error is not None:
        text += f", attempt {model.retry.attempts} failed: {model.error.code}: {model.error.message}"
    return text


def _absence(view: DeviceView | None) -> str | None:
    if view is None:
        return "nothing is known of it"
    if view.health is Health.UNKNOWN:
        return "it was never heard of"
    if view.health is Health.FAILED:
        return "nothing is heard of it"
    if view.report is not None and view.report.status in {DeviceStatus.LEAVING, DeviceStatus.RESTARTING}:
        return f"it is {view.report.status}"
    return None
