"""Why a deployment is where it is, and why it is not where it is not: one verdict for each configured device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum

from longshore.planning.circumstances import Circumstances, told
from longshore.planning.failed import GiveUp, Retry, Wait, fate
from longshore.planning.fleet import Fleet
from longshore.planning.placement import place, rejection
from longshore.planning.plan import make_plan
from longshore.schemas.base import Message
from longshore.schemas.commands import Action
from longshore.schemas.deployments import DeploymentManifest
from longshore.schemas.devices import Health
from longshore.schemas.failures import LongshoreError
from longshore.schemas.fleet import PlanningInput, RequestKind
from longshore.schemas.ledger import reserve
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.orders import Hold
from longshore.schemas.plans import Deferred, DeploymentPlan, Plan
from longshore.schemas.registries import RegistrySnapshot
from longshore.schemas.slots import Demand, Slot
from longshore.schemas.workers import WorkerConfig

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class VerdictKind(StrEnum):
    RUNS = "runs"
    """It is there, or on its way there."""
    COULD = "could"
    CANNOT = "cannot"
    HELD = "held"
    """It could, were the deployment not paused, aborted or quarantined."""


class Verdict(Message):
    worker_id: str
    kind: VerdictKind
    reasons: tuple[str, ...]
    """In words; why it cannot be there with all reasons, not only the first."""
    rank: int | None = None
    """Only of what could: as which device it would be chosen, the next one being 1."""


class LastFailure(Message):
    """The newest failure that a slot remembers."""

    worker_id: str
    version: str
    code: str
    at: datetime | None
    """None where the ledger's release did not tell."""


class Explanation(Message):
    deployment_id: str
    version: str | None
    """The desired one; None where nothing should run."""
    wanted: int
    ready: int
    """Replicas that serve the desired version."""
    verdicts: tuple[Verdict, ...]
    """Every configured device, by id."""
    held: str = ""
    """What holds the desired version back: by whom and why."""
    deferred: tuple[Deferred, ...] = ()
    """What is to be done once something else is so."""
    unplaced: int = 0
    """Without a place."""
    given_up: int = 0
    """Failed where they are, and not tried any more."""
    last_failure: LastFailure | None = None


def explain(deployment_id: str, asked: PlanningInput, desired: RegistrySnapshot) -> Explanation:
    """Explain one deployment by the ledger as it stands, `desired` being what is applied.

    Raises LongshoreError DEPLOYMENT_UNKNOWN where neither git nor the ledger knows it.
    """
    manifest = desired.manifests.get(deployment_id)
    slots = [slot for slot in asked.slots if slot.deployment_id == deployment_id]
    if manifest is None and not slots:
        raise LongshoreError("DEPLOYMENT_UNKNOWN", f"Neither git nor the ledger has a deployment {deployment_id!r}")
    request = asked.request.model_copy(update={"kind": RequestKind.RECONCILE})
    plan = make_plan(asked.model_copy(update={"request": request}), desired)
    mine = next((one for one in plan.deployments if one.deployment_id == deployment_id), None)
    fleet = Fleet.of(asked, desired, plan.suspects)
    spec = desired.specs.get(deployment_id)
    hold = Circumstances.of(asked).hold(deployment_id, spec.digest) if spec else None
    serving = [s for s in slots if s.state is ModelState.READY and fleet.health(s.worker_id) is not Health.FAILED]
    return Explanation(
        deployment_id=deployment_id,
        version=spec.version if spec else None,
        wanted=manifest.wanted_replicas if manifest else 0,
        ready=sum(slot.digest == spec.digest for slot in serving) if spec else 0,
        verdicts=tuple(_verdicts(deployment_id, asked, desired, fleet, hold)),
        held=told(hold) if hold else "",
        deferred=mine.deferred if mine else (),
        unplaced=mine.without_place if mine else 0,
        given_up=mine.given_up if mine else 0,
        last_failure=_last_failure(slots),
    )


def why_not(plan: Plan, asked: PlanningInput, desired: RegistrySnapshot) -> dict[str, tuple[Verdict, ...]]:
    """Return, for each deployment to which `plan` gives a place, the verdicts on the devices that do not run it.

    They are those of the moment when the plan chose: what it gave to others later on had been free then.
    """
    found: dict[str, tuple[Verdict, ...]] = {}
    for number, deployment in enumerate(plan.deployments):
        chosen = {command.worker_id for command in deployment.commands if command.action is Action.LOAD}
        if not chosen:
            continue
        others = tuple(command for command in deployment.commands if command.action is not Action.LOAD)
        before = (*plan.deployments[:number], deployment.model_copy(update={"commands": others}))
        slots = reserve(asked.slots, plan.model_copy(update={"deployments": before}))
        then = asked.model_copy(update={"slots": slots})
        fleet = Fleet.of(then, desired, plan.suspects)
        verdicts = _verdicts(deployment.deployment_id, then, desired, fleet, None)
        found[deployment.deployment_id] = tuple(
            one for one in verdicts if one.worker_id not in chosen and one.kind is not VerdictKind.RUNS
        )
    return found


def _verdicts(
    deployment_id: str, asked: PlanningInput, desired: RegistrySnapshot, fleet: Fleet, hold: Hold | None
) -> Iterator[Verdict]:
    """Yield the verdicts by worker id; fills the fleet."""
    manifest = desired.manifests.get(deployment_id)
    slots = fleet.occupancy.of(deployment_id)
    free = {} if manifest is None else _free(manifest, slots, desired, fleet, hold)
    for worker_id, worker in sorted(desired.workers.items()):
        slot = slots.get(worker_id)
        if slot is not None and slot.state is not ModelState.UNLOADING:
            yield _held_there(slot, tuple(_mismatches(manifest, worker)), asked, fleet)
        elif worker_id in free:
            yield _going(free[worker_id], slot)
        else:
            reasons = _nothing_wanted(manifest) or tuple(_mismatches(manifest, worker))
            yield _going(Verdict(worker_id=worker_id, kind=VerdictKind.CANNOT, reasons=reasons), slot)


def _free(
    manifest: DeploymentManifest,
    slots: Mapping[str, Slot],
    desired: RegistrySnapshot,
    fleet: Fleet,
    hold: Hold | None,
) -> dict[str, Verdict]:
    """Return, by worker id, the verdict on each device that matches and holds none of it, as if all were wanted."""
    if not manifest.wanted_replicas:
        return {}
    spec = desired.specs[manifest.id]
    target = DeploymentPlan(
        deployment_id=manifest.id,
        generation=max((slot.generation for slot in slots.values()), default=0) + 1,
        version=spec.version,
        digest=spec.digest,
        priority=manifest.deployment_config.priority,
        demand=Demand.of(spec.card.resources),
        replicas=manifest.wanted_replicas,
        changes=(),
        commands=(),
    )
    taken = {worker_id for worker_id, slot in slots.items() if slot.state is not ModelState.UNLOADING}
    candidates = tuple(worker_id for worker_id in fleet.matching(manifest) if worker_id not in taken)
    schema_version = spec.card.schemaVersion
    placed = place(target, candidates, schema_version, len(candidates), fleet)
    found: dict[str, Verdict] = {}
    for rank, command in enumerate(placed.commands, start=1):
        found[command.worker_id] = Verdict(
            worker_id=command.worker_id,
            kind=VerdictKind.HELD if hold else VerdictKind.COULD,
            # What a plan says of what it does, said of what it would have to do.
            reasons=(*([told(hold)] if hold else []), command.reason.replace("makes room", "room must be made", 1)),
            rank=rank,
        )
    for worker_id in placed.unfit:
        reasons = rejection(target, worker_id, schema_version, fleet).reasons
        found[worker_id] = Verdict(worker_id=worker_id, kind=VerdictKind.CANNOT, reasons=reasons)
    return found


def _held_there(slot: Slot, mismatches: tuple[str, ...], asked: PlanningInput, fleet: Fleet) -> Verdict:
    """Judge a device that has it, or had it when it was last heard."""
    if fleet.health(slot.worker_id) is Health.FAILED:
        before = f"it was {slot.state} there with {slot.version}{', and others take over' if slot.replaced else ''}"
        reasons = (fleet.absence(slot.worker_id) or "", before)
        return Verdict(worker_id=slot.worker_id, kind=VerdictKind.CANNOT, reasons=reasons)
    if slot.state is ModelState.FAILED:
        failed = f"{slot.version} failed there with {slot.code}"
        match fate(slot, asked.now, asked.limits.backoff):
            case Retry():
                failed += ", and is tried again"
            case Wait(until=until):
                failed += f", and is tried again at {until:%H:%M:%S} UTC"
            case GiveUp(reason=reason):
                failed = f"{slot.version} {reason}"
        return Verdict(worker_id=slot.worker_id, kind=VerdictKind.CANNOT, reasons=(failed,))
    return Verdict(worker_id=slot.worker_id, kind=VerdictKind.RUNS, reasons=(*_runs(slot, fleet), *mismatches))


def _runs(slot: Slot, fleet: Fleet) -> Iterator[str]:
    old = f"{slot.previous_version} → " if slot.state is ModelState.RELOADING and slot.previous_version else ""
    why = f": {slot.reason}" if slot.reason else ""
    yield f"{slot.state.upper()} {old}{slot.version} since generation {slot.generation}{why}"
    if slot.code is not None:
        yield f"its last RELOAD failed with {slot.code}"
    draining = fleet.draining(slot.worker_id)
    if draining is not None:
        yield draining


def _going(one: Verdict, slot: Slot | None) -> Verdict:
    """Add that it is on its way out there."""
    if slot is None:
        return one
    return one.model_copy(update={"reasons": (f"{slot.version} is being unloaded there", *one.reasons)})


def _nothing_wanted(manifest: DeploymentManifest | None) -> tuple[str, ...]:
    if manifest is None:
        return ("the manifest is not in git",)
    if manifest.wanted_replicas:
        return ()
    return ("replicas is 0",) if manifest.enabled else ("enabled is false",)


def _mismatches(manifest: DeploymentManifest | None, worker: WorkerConfig) -> Iterator[str]:
    if manifest is None:
        return
    labels, config = worker.labels.as_dict(), manifest.deployment_config
    for name, wanted in sorted({**config.worker_selector, "region": config.region}.items()):
        has = labels.get(name)
        if has != wanted:
            yield f"{name} is {has}, wanted {wanted}" if has is not None else f"it has no label {name}, wanted {wanted}"


def _last_failure(slots: list[Slot]) -> LastFailure | None:
    failed = [slot for slot in slots if slot.code is not None]
    if not failed:
        return None
    slot = max(failed, key=lambda one: (one.failed_at or _LONG_AGO, one.generation, one.worker_id))
    return LastFailure(worker_id=slot.worker_id, version=slot.version, code=slot.code or "", at=slot.failed_at)
