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
    UNLOAD                                      what was reserved, until it is confirmed
"""

from __future__ import annotations

from longshore.schemas.commands import Action
from longshore.schemas.fleet import SlotSettled
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import DeploymentPlan, Plan, PlannedCommand
from longshore.schemas.slots import Demand, Slot

Key = tuple[str, str]
"""deployment id, worker id: a device holds a deployment at most once."""


def reserve(slots: tuple[Slot, ...], plan: Plan) -> tuple[Slot, ...]:
    """Return the slots as they stand once `plan` is decided, its commands still under way.

    A slot on a device that the plan no longer knows is freed: the device has left git, and no command can reach it.
    """
    configured = set(plan.workers)
    ledger = {key_of(slot): slot for slot in slots if slot.worker_id in configured}
    for deployment in plan.deployments:
        for command in deployment.commands:
            key = (deployment.deployment_id, command.worker_id)
            ledger[key] = reserved(ledger.get(key), deployment, command)
    return _ordered(ledger)


def reserved(slot: Slot | None, deployment: DeploymentPlan, command: PlannedCommand) -> Slot:
    """Return what `command` makes of `slot` (None: nothing there) until the device has answered."""
    if command.action is Action.UNLOAD:
        if slot is None:
            raise ValueError(f"{command.worker_id} holds no {deployment.deployment_id} that could be unloaded")
        return slot.model_copy(update={"generation": deployment.generation, "state": ModelState.UNLOADING})
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
        instead_of=tuple(awaited.deployment_id for awaited in command.after),
        recreate=command.recreate,
        reason=command.reason,
    )


def settle(slots: tuple[Slot, ...], event: SlotSettled) -> tuple[Slot, ...]:
    """Return the slots after one command has ended. What is older than the slot's own generation changes nothing.

    IDLE frees the slot. READY or FAILED frees what was reserved beside it. READY after a RELOAD that failed (it says
    the previous digest, or a failure code and no digest) makes the slot the old version's again: that one serves.
    """
    key = (event.deployment_id, event.worker_id)
    ledger = {key_of(slot): slot for slot in slots}
    slot = ledger.get(key)
    if slot is None or event.generation < slot.generation:
        return slots
    if event.state is ModelState.IDLE:
        del ledger[key]
    else:
        ledger[key] = _settled(slot, event)
    return _ordered(ledger)


def key_of(slot: Slot) -> Key:
    return (slot.deployment_id, slot.worker_id)


def _settled(slot: Slot, event: SlotSettled) -> Slot:
    ended = {
        "generation": event.generation,
        "state": event.state,
        "code": event.code,
        "previous_version": None,
        "previous_digest": None,
        "previous_demand": None,
        "instead_of": (),
        "recreate": False,
    }
    says_old = event.digest == slot.previous_digest or (event.digest is None and event.code is not None)
    if event.state is ModelState.READY and slot.previous_digest is not None and says_old:
        old = {"version": slot.previous_version, "digest": slot.previous_digest, "demand": slot.previous_demand}
        return slot.model_copy(update=ended | old)
    return slot.model_copy(update=ended)


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


def _ordered(ledger: dict[Key, Slot]) -> tuple[Slot, ...]:
    return tuple(ledger[key] for key in sorted(ledger))
