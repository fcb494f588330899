"""What a plan leaves in the ledger besides its reservations: pure."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from longshore.schemas.commands import Action
from longshore.schemas.devices import Health
from longshore.schemas.fleet import FleetInput, Open, PlanAnswer
from longshore.schemas.held import after_plan
from longshore.schemas.ledger import reserve
from longshore.schemas.lifecycle import IN_FLIGHT, ModelState
from longshore.schemas.orders import Hold
from longshore.schemas.plans import Cause, CauseKind, DeploymentPlan, Plan
from longshore.schemas.slots import Slot
from longshore.workflows.ledger import causes


def by_commit(state: FleetInput, answer: PlanAnswer, plan: Plan, now: datetime) -> FleetInput:
    """Take over the plan of a commit: what has left git is forgotten."""
    held = after_plan(state.held, answer.held_descendants)
    state = _decided(state, plan, whole=True).model_copy(
        update={"applied_sha": answer.sha, "held": held, "plan": None, "looked_at": now}
    )
    return state.model_copy(
        update={
            "cordons": {name: cordon for name, cordon in state.cordons.items() if name in plan.workers},
            "holds": tuple(hold for hold in state.holds if hold.deployment_id in plan.goals),
            "broken": {name: broken for name, broken in state.broken.items() if name in plan.goals},
        }
    )


def by_reconciliation(state: FleetInput, plan: Plan, now: datetime) -> FleetInput:
    """Take over the plan of a reconciliation. One that reached its limit of commands is followed by another."""
    whole = sum(len(deployment.commands) for deployment in plan.deployments) < state.settings.limits.commands
    state = _decided(state, plan, whole=whole).model_copy(update={"looked_at": now})
    if not whole:
        state = causes.note(state, Cause(kind=CauseKind.DRIFT, words="the plan before had reached its limit"), now)
    told_by_commit = any(a.plan is not None and a.sha == state.applied_sha for a in state.answers)
    return state if told_by_commit else state.model_copy(update={"plan": plan})


def _decided(state: FleetInput, plan: Plan, *, whole: bool) -> FleetInput:
    planned = {deployment.deployment_id: deployment for deployment in plan.deployments}
    slots = reserve(state.slots, plan)
    # A plan may leave out a deployment that has something under way, whatever else there is to say of it.
    silent = {slot.deployment_id for slot in slots if slot.state in IN_FLIGHT} - planned.keys()
    if not whole:
        silent |= {slot.deployment_id for slot in slots} - planned.keys()
    return state.model_copy(
        update={
            "slots": tuple(
                slot if slot.deployment_id in silent else _kept(slot, planned.get(slot.deployment_id), state)
                for slot in slots
            ),
            "generation": max(state.generation, plan.generation),
            "open": _undone(state, plan, silent),
            "holds": tuple(hold for hold in state.holds if not _is_left_behind(hold, planned.get(hold.deployment_id))),
        }
    )


def _kept(slot: Slot, plan: DeploymentPlan | None, state: FleetInput) -> Slot:
    """Count a slot again that others had taken over for, where its device is back and the plan lets it stay."""
    if not slot.replaced or slot.state is not ModelState.READY:
        return slot
    record = state.devices.get(slot.worker_id)
    goes = plan is not None and (
        slot.worker_id in plan.lost
        or any(one.worker_id == slot.worker_id and one.action is Action.UNLOAD for one in plan.deferred)
    )
    away = record is None or record.health not in {Health.HEALTHY, Health.RECOVERING}
    return slot if goes or away else slot.model_copy(update={"replaced": False})


def _undone(state: FleetInput, plan: Plan, silent: Collection[str]) -> dict[str, Open]:
    undone = {name: one for name, one in state.open.items() if name in silent}
    for name in plan.put_off:
        known = undone.get(name, Open())
        undone[name] = known.model_copy(update={"deferred": max(1, known.deferred)})
    for one in plan.deployments:
        if one.unplaced or one.deferred:
            undone[one.deployment_id] = Open(
                unplaced=one.unplaced,
                given_up=one.given_up,
                deferred=len(one.deferred),
                rejections=one.rejections,
            )
    return undone


def _is_left_behind(hold: Hold, plan: DeploymentPlan | None) -> bool:
    """Tell whether another digest is wanted now than the one that is held."""
    return plan is not None and None not in (hold.digest, plan.digest) and hold.digest != plan.digest
