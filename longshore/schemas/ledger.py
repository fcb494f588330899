"""How the ledger of slots moves: reserved by a plan, settled by what devices answer.

These are decisions, yet they live here and not in `planning`: the FleetWorkflow applies them between its signals,
and workflows may import nothing of planning. Both functions are pure, and running them again changes nothing.
"""

from __future__ import annotations

from longshore.schemas.commands import Action
from longshore.schemas.fleet import Slot, SlotSettled
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import DeploymentPlan, Plan, PlannedCommand

Key = tuple[str, str]
"""deployment id, worker id: a device holds a deployment at most once."""


def reserve(slots: tuple[Slot, ...], plan: Plan) -> tuple[Slot, ...]:
    """Return the slots as they stand once `plan` is decided, its commands still under way.

    A slot on a device that the plan no longer knows is freed: the device has left git, and no command can reach it.
    """
    configured = set(plan.workers)
    ledger = {_key(slot): slot for slot in slots if slot.worker_id in configured}
    for deployment in plan.deployments:
        for command in deployment.commands:
            key = (deployment.deployment_id, command.worker_id)
            ledger[key] = _reserved(ledger.get(key), deployment, command)
    return _ordered(ledger)


def settle(slots: tuple[Slot, ...], event: SlotSettled) -> tuple[Slot, ...]:
    """Return the slots after one command has ended. What is older than the slot's own generation changes nothing.

    READY ends a RELOAD: the old version's reservation is freed. READY with the old digest is a RELOAD that failed:
    the old version serves, and its reservation becomes the slot's own. IDLE frees the slot.
    """
    key = (event.deployment_id, event.worker_id)
    ledger = {_key(slot): slot for slot in slots}
    slot = ledger.get(key)
    if slot is None or event.generation < slot.generation:
        return slots
    if event.state is ModelState.IDLE:
        del ledger[key]
    else:
        ledger[key] = _settled(slot, event)
    return _ordered(ledger)


def _reserved(slot: Slot | None, deployment: DeploymentPlan, command: PlannedCommand) -> Slot:
    if command.action is Action.UNLOAD:
        if slot is None:
            raise ValueError(f"{command.worker_id} holds no {deployment.deployment_id} that could be unloaded")
        return slot.model_copy(update={"generation": deployment.generation, "state": ModelState.UNLOADING})
    if deployment.version is None or deployment.digest is None:
        raise ValueError(f"the plan of {deployment.deployment_id} names no version to {command.action}")
    running = slot if command.action is Action.RELOAD else None
    return Slot(
        deployment_id=deployment.deployment_id,
        worker_id=command.worker_id,
        generation=deployment.generation,
        version=deployment.version,
        digest=deployment.digest,
        priority=deployment.priority,
        demand=deployment.demand,
        state=ModelState.RELOADING if running else ModelState.LOADING,
        previous_version=command.previous_version,
        previous_digest=command.previous_digest,
        previous_demand=(running.previous_demand or running.demand) if running else None,
    )


def _settled(slot: Slot, event: SlotSettled) -> Slot:
    outcome = {"generation": event.generation, "state": event.state, "code": event.code}
    nothing_before = {"previous_version": None, "previous_digest": None, "previous_demand": None}
    if event.state is ModelState.READY and event.digest is not None and event.digest == slot.previous_digest:
        kept = {
            "version": slot.previous_version,
            "digest": slot.previous_digest,
            "demand": slot.previous_demand or slot.demand,
        }
        return slot.model_copy(update={**outcome, **kept, **nothing_before})
    return slot.model_copy(update={**outcome, **nothing_before})


def _key(slot: Slot) -> Key:
    return (slot.deployment_id, slot.worker_id)


def _ordered(ledger: dict[Key, Slot]) -> tuple[Slot, ...]:
    return tuple(ledger[key] for key in sorted(ledger))
