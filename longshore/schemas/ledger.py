"""How the ledger of slots moves: reserved by a plan, settled by what devices answer.

These are decisions, yet they live here and not in `planning`: the FleetWorkflow applies them between its signals,
and workflows may import nothing of planning. The functions are pure, and running them again changes nothing.

A slot reserves what may be on its device in the worst case, until the device has answered:

    LOAD    of a new slot                       the new version
            over a LOAD that has not ended      the newer version: the device cancels the older LOAD
            over an UNLOAD that has not ended   the new version, and all that is being unloaded
    RELOAD  of a READY slot                     the new version and the one that serves
            over a RELOAD that has not ended    the new version, and the larger of the two before it
                                                (just as before, where the new version is the same)
            that recreates                      the larger of the new version and of what it replaces
    UNLOAD                                      what was reserved, until it is confirmed

What was given up on one device, and others took over for, reserves nothing until it is commanded again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from longshore.schemas.commands import Action
from longshore.schemas.failures import FAILURES, Backoff, Category
from longshore.schemas.fleet import SlotSettled
from longshore.schemas.lifecycle import IN_FLIGHT, ModelState
from longshore.schemas.orders import Cordon, Hold
from longshore.schemas.plans import DeploymentPlan, Plan, PlannedCommand
from longshore.schemas.slots import Demand, Slot

Key = tuple[str, str]
"""deployment id, worker id: a device holds a deployment at most once."""

# What failed longer ago than this is a matter of its own.
FAILURES_KEPT = timedelta(days=1)

UNKNOWN_VERSION = "?"

# What had no room, on the device or because a victim stayed, has broken nothing: what was in the way may be gone soon.
NO_ROOM = frozenset({"CAPACITY_INSUFFICIENT", "PREEMPTION_FAILED"})


def reserve(slots: tuple[Slot, ...], plan: Plan) -> tuple[Slot, ...]:
    """Return the slots as they stand once `plan` is decided, its commands still under way.

    A slot on a device that the plan no longer knows is freed: the device has left git, and no command can reach it.
    What the plan has adopted is taken in first, where nothing is known of it. A commit is a retry: failures count anew.
    """
    configured = set(plan.workers)
    ledger = {key_of(slot): slot for slot in (*plan.adopted, *slots) if slot.worker_id in configured}
    if plan.cause is None:
        ledger = {key: slot.model_copy(update={"failures": 0}) for key, slot in ledger.items()}
    for deployment in plan.deployments:
        for worker_id in deployment.lost:
            key = (deployment.deployment_id, worker_id)
            if key in ledger:
                ledger[key] = ledger[key].model_copy(update={"replaced": True})
        for command in deployment.commands:
            key = (deployment.deployment_id, command.worker_id)
            ledger[key] = reserved(ledger.get(key), deployment, command)
    return _ordered(ledger)


def reserved(slot: Slot | None, deployment: DeploymentPlan, command: PlannedCommand) -> Slot:
    """Return what `command` makes of `slot` (None: nothing there) until the device has answered."""
    if command.action is Action.UNLOAD:
        if slot is None:
            raise ValueError(f"{command.worker_id} holds no {deployment.deployment_id} that could be unloaded")
        going = {"generation": deployment.generation, "state": ModelState.UNLOADING, "replaced": False}
        nothing = {"demand": Demand()} if slot.spent else {}
        return slot.model_copy(update=going | {"before": _before(slot)} | nothing)
    if deployment.version is None or deployment.digest is None:
        raise ValueError(f"the plan of {deployment.deployment_id} names no version to {command.action}")
    return Slot(
        deployment_id=deployment.deployment_id,
        worker_id=command.worker_id,
        generation=deployment.generation,
        version=deployment.version,
        digest=deployment.digest,
        priority=deployment.priority,
        demand=deployment.demand,
        state=ModelState.RELOADING if command.action is Action.RELOAD else ModelState.LOADING,
        previous_version=command.previous_version,
        previous_digest=command.previous_digest,
        previous_demand=_still_there(slot, deployment.digest),
        serving_demand=_serving(slot, command.previous_digest),
        before=_before(slot),
        failures=slot.failures if slot else 0,
        failed_at=slot.failed_at if slot else None,
        instead_of=tuple(awaited.deployment_id for awaited in command.after),
        recreate=command.recreate,
        reason=command.reason,
    )


def settle(slots: tuple[Slot, ...], event: SlotSettled, now: datetime | None = None) -> tuple[Slot, ...]:
    """Return the slots after one command has ended. What is older than the slot's own generation changes nothing,
    and neither does what comes again.

    IDLE frees the slot. READY or FAILED frees what was reserved beside it. READY after a RELOAD that failed (it says
    the previous digest, or a failure code and no digest) makes the slot the old version's again: that one serves.
    `now`: when, by the ledger's clock; without it failures are not counted.
    """
    slot = next((slot for slot in slots if key_of(slot) == (event.deployment_id, event.worker_id)), None)
    if slot is None or event.generation < slot.generation:
        return slots
    if event.generation == slot.generation and slot.state not in IN_FLIGHT:
        return slots
    return settle_anyway(slots, event, now)


def settle_anyway(slots: tuple[Slot, ...], event: SlotSettled, now: datetime | None) -> tuple[Slot, ...]:
    """Return the slots after a device's own word, which counts whatever the ledger had settled before.

    The generation of a slot never falls, whatever the device says.
    """
    key = (event.deployment_id, event.worker_id)
    ledger = {key_of(slot): slot for slot in slots}
    if event.state is ModelState.IDLE:
        slot = ledger.pop(key)
        if not event.begun and slot.previous_demand is not None:
            # What was to be unloaded before the LOAD may be there still; its UNLOAD has no rollout any more.
            going = {"state": ModelState.UNLOADING, "demand": slot.previous_demand, "previous_demand": None}
            ledger[key] = slot.model_copy(update={**going, "instead_of": ()})
    else:
        ledger[key] = _settled(ledger[key], event, now)
    return _ordered(ledger)


def stamp(
    applied_sha: str | None,
    generation: int,
    slots: Iterable[Slot],
    cordons: Mapping[str, Cordon],
    holds: Iterable[Hold],
) -> str:
    """Return a hash, 16 hex digits, of what a plan builds on and then changes, whatever the order of the parts.

    Of each part it takes what tells it from others. All that a slot says would differ with each release that says more,
    and a run that was begun by the one before would refuse its own plans when it is replayed.
    """
    known = [
        applied_sha,
        generation,
        sorted((*key_of(slot), slot.generation, str(slot.state), slot.digest) for slot in slots),
        sorted((one.worker_id, one.kind, one.by, one.reason) for one in cordons.values()),
        sorted((one.deployment_id, one.kind, one.digest or "", one.by, one.reason) for one in holds),
    ]
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


def recent_failures(failures: Mapping[str, Iterable[datetime]], now: datetime) -> dict[str, tuple[datetime, ...]]:
    """Return the times at which devices have failed, as far as they count still; by worker id."""
    kept = {name: tuple(time for time in times if now - time < FAILURES_KEPT) for name, times in failures.items()}
    return {name: times for name, times in kept.items() if times}


def key_of(slot: Slot) -> Key:
    return (slot.deployment_id, slot.worker_id)


def retry_at(slot: Slot, backoff: Backoff) -> datetime | None:
    """Return when a slot that has failed is tried again in its place; None where only a commit does that."""
    if slot.failed_at is None or not slot.failures or not may_pass(slot.code):
        return None
    delay = backoff.delay_after(slot.failures)
    return None if delay is None else slot.failed_at + delay


def may_pass(code: str | None) -> bool:
    """Tell whether what failed so is tried again in its place.

    What was only out of order (control: fenced, superseded), or never got its room, has broken nothing.
    """
    kind = FAILURES.get(code or "")
    return kind is not None and (kind.retriable or kind.category is Category.CONTROL or kind.code in NO_ROOM)


def _settled(slot: Slot, event: SlotSettled, now: datetime | None) -> Slot:
    ended: dict[str, object] = {
        "generation": max(slot.generation, event.generation),
        "state": event.state,
        "code": event.code,
        "previous_version": None,
        "previous_digest": None,
        "previous_demand": None,
        "serving_demand": None,
        "before": None,
        "instead_of": (),
        "recreate": False,
    }
    if not event.begun and slot.state is ModelState.UNLOADING:
        return slot.model_copy(update=ended | {"state": slot.before or event.state, "code": slot.code})
    if now is not None and event.begun and (event.state is ModelState.FAILED or event.code is not None):
        recent = slot.failed_at is not None and now - slot.failed_at < FAILURES_KEPT
        ended |= {"failures": slot.failures + 1 if recent else 1, "failed_at": now}
    says_old = event.digest == slot.previous_digest or (event.digest is None and event.code is not None)
    if event.state is ModelState.READY and slot.previous_digest is not None and says_old:
        # Of a RELOAD that was found under way, nobody knows what the old version takes.
        demand = slot.serving_demand or slot.previous_demand or slot.demand
        old = {"version": slot.previous_version, "digest": slot.previous_digest, "demand": demand}
        return slot.model_copy(update=ended | old)
    if event.state is ModelState.READY and event.digest not in (None, slot.digest):
        ended |= {"version": event.version or UNKNOWN_VERSION, "digest": event.digest}
        # It may be one that a later RELOAD had overtaken.
        ended |= {"demand": slot.demand.at_least(slot.previous_demand or Demand())}
    return slot.model_copy(update=ended)


def _before(slot: Slot | None) -> ModelState | None:
    """Return the settled state to which an UNLOAD that never began goes back."""
    if slot is None:
        return None
    return slot.state if slot.state in (ModelState.READY, ModelState.FAILED) else slot.before


def _still_there(slot: Slot | None, next_digest: str) -> Demand | None:
    """Return what may still be held beside the version that comes next."""
    match slot:
        case Slot(state=ModelState.READY):
            return slot.demand
        case Slot(state=ModelState.RELOADING) if slot.digest != next_digest:
            return slot.demand.at_least(slot.previous_demand or Demand())
        case Slot(state=ModelState.UNLOADING):
            return slot.reserved
        case Slot(state=ModelState.LOADING | ModelState.RELOADING):
            return slot.previous_demand
        case _:
            return None


def _serving(slot: Slot | None, digest: str | None) -> Demand | None:
    """Return what the version of `digest`, which a RELOAD is to replace, takes by itself."""
    if slot is None or slot.state not in (ModelState.READY, ModelState.RELOADING):
        return None
    under_way = slot.state is ModelState.RELOADING and digest == slot.previous_digest
    return slot.serving_demand or slot.previous_demand if under_way else slot.demand


def _ordered(ledger: dict[Key, Slot]) -> tuple[Slot, ...]:
    return tuple(ledger[key] for key in sorted(ledger))
