"""An operator's orders, as changes of the ledger: pure (PRD §5.5)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from longshore.schemas.failures import LongshoreError
from longshore.schemas.fleet import FleetInput, Steered
from longshore.schemas.lifecycle import COMING
from longshore.schemas.orders import Cordon, Hold, Order, OrderAnswer
from longshore.schemas.plans import Cause, CauseKind, Plan
from longshore.schemas.rollouts import Steering
from longshore.schemas.slots import Slot
from longshore.schemas.wording import counted

_OF_WORKERS = frozenset({"cordon", "drain", "uncordon"})


class Ordered(NamedTuple):
    answer: OrderAnswer
    changes: dict[str, Any] = {}
    """Fields of the FleetInput."""
    cause: Cause | None = None
    """What is to be reconciled now."""


def carry_out(order: Order, state: FleetInput, plan: Plan | None) -> Ordered:
    """Return what an order changes. Raises LongshoreError WORKER_UNKNOWN, DEPLOYMENT_UNKNOWN.

    `plan` is that of the applied commit: with it, what has left git is unknown, too.
    """
    if order.kind == "reconcile":
        words = "looks at the whole fleet now"
        return Ordered(_done(words), cause=_cause(order, "asked to reconcile"))
    if order.kind in _OF_WORKERS:
        workers = plan.workers if plan else tuple(state.devices)
        if order.target not in workers:
            raise LongshoreError("WORKER_UNKNOWN", f"there is no worker {order.target!r}{_list(workers)}")
        return _uncordon(order, state) if order.kind == "uncordon" else _cordon(order, state)
    deployments = {slot.deployment_id for slot in state.slots} | {hold.deployment_id for hold in state.holds}
    deployments |= plan.goals.keys() if plan else set()
    if order.target not in deployments:
        message = f"there is no deployment {order.target!r}{_list(deployments)}"
        raise LongshoreError("DEPLOYMENT_UNKNOWN", message)
    match order.kind:
        case "pause":
            return _pause(order, state)
        case "abort":
            return _abort(order, state)
        case "release":
            return _let_go(order, state, ("quarantined",))
        case _:
            return _let_go(order, state, ("paused", "aborted"))


def _cordon(order: Order, state: FleetInput) -> Ordered:
    drain = order.kind == "drain"
    cordon = Cordon(
        worker_id=order.target, kind="drain" if drain else "cordon", by=order.by.strip(), reason=order.reason.strip()
    )
    changes = {"cordons": {**state.cordons, order.target: cordon}}
    if not drain:
        stays = ", no longer drained" if _is_drained(order.target, state) else ""
        return Ordered(_done(f"{order.target} takes nothing new{stays}"), changes)
    held = sum(slot.worker_id == order.target for slot in state.slots)
    cause = _cause(order, f"{order.target} is to be drained", CauseKind.DRAIN)
    return Ordered(_done(f"draining {order.target}: {counted(held, 'model')} to move"), changes, cause)


def _uncordon(order: Order, state: FleetInput) -> Ordered:
    record = state.devices.get(order.target)
    if record is not None and record.draining:
        again = "it takes models again once its host has been started anew"
        return Ordered(OrderAnswer(accepted=False, words=f"{order.target} drains itself: {again}"))
    if order.target not in state.cordons:
        return Ordered(_done(f"{order.target} was not cordoned"))
    cordons = {name: cordon for name, cordon in state.cordons.items() if name != order.target}
    cause = _cause(order, f"{order.target} takes models again")
    return Ordered(_done(cause.words), {"cordons": cordons}, cause)


def _pause(order: Order, state: FleetInput) -> Ordered:
    hold = Hold(deployment_id=order.target, kind="paused", by=order.by.strip(), reason=order.reason.strip())
    changes = {"holds": _held(state, hold), "steerings": _steer(state, order, "pause")}
    return Ordered(_done(f"{order.target} is paused: it is commanded nothing but to be disabled"), changes)


def _abort(order: Order, state: FleetInput) -> Ordered:
    coming = [slot for slot in state.slots if slot.deployment_id == order.target and slot.state in COMING]
    if not coming:
        answer = OrderAnswer(accepted=False, words=f"no version of {order.target} is being brought anywhere")
        return Ordered(answer)
    newest: Slot = max(coming, key=lambda slot: slot.generation)
    hold = Hold(
        deployment_id=order.target,
        kind="aborted",
        digest=newest.digest,
        version=newest.version,
        by=order.by.strip(),
        reason=order.reason.strip(),
    )
    changes = {"holds": _held(state, hold), "steerings": _steer(state, order, "abort")}
    words = f"{order.target} {newest.version} is brought nowhere any more; what has begun is not broken off"
    return Ordered(_done(words), changes)


def _let_go(order: Order, state: FleetInput, kinds: Collection[str]) -> Ordered:
    mine = [hold for hold in state.holds if hold.deployment_id == order.target]
    gone = [hold for hold in mine if hold.kind in kinds]
    if not gone:
        others = "".join(f": it is {hold.kind}" for hold in mine[:1])
        answer = OrderAnswer(accepted=False, words=f"{order.target} is not {' or '.join(kinds)}{others}")
        return Ordered(answer)
    changes: dict[str, Any] = {
        "holds": tuple(hold for hold in state.holds if hold not in gone),
        # To let it go on is to try again: what had failed is judged anew.
        "slots": tuple(_anew(slot) if slot.deployment_id == order.target else slot for slot in state.slots),
    }
    if any(hold.kind == "paused" for hold in gone):
        changes["steerings"] = _steer(state, order, "resume")
    if any(hold.kind == "quarantined" for hold in gone):
        changes["broken"] = {name: one for name, one in state.broken.items() if name != order.target}
    cause = _cause(order, f"{order.target} goes on: no longer {gone[0].kind}")
    return Ordered(_done(cause.words), changes, cause.model_copy(update={"deployments": (order.target,)}))


def _anew(slot: Slot) -> Slot:
    return slot.model_copy(update={"failures": 0}) if slot.failures else slot


def _held(state: FleetInput, hold: Hold) -> tuple[Hold, ...]:
    """Return the holds with this one; a deployment has at most one of each kind."""
    return (*(h for h in state.holds if (h.deployment_id, h.kind) != (hold.deployment_id, hold.kind)), hold)


def _steer(state: FleetInput, order: Order, kind: str) -> tuple[Steered, ...]:
    said = Steering.model_validate({"kind": kind, "reason": order.reason.strip(), "by": order.by.strip()})
    return (*state.steerings, Steered(deployment_id=order.target, steering=said))


def _cause(order: Order, words: str, kind: CauseKind = CauseKind.OPERATOR) -> Cause:
    told = f"{words}: {order.reason.strip()}" if order.reason.strip() else words
    workers = (order.target,) if order.kind in _OF_WORKERS else ()
    return Cause(kind=kind, words=told, workers=workers, by=order.by.strip())


def _is_drained(worker_id: str, state: FleetInput) -> bool:
    return worker_id in state.cordons and state.cordons[worker_id].kind == "drain"


def _done(words: str) -> OrderAnswer:
    return OrderAnswer(accepted=True, words=words)


def _list(names: Collection[str], shown: int = 5) -> str:
    """Return who there is instead, as the end of a sentence."""
    some = ", ".join(sorted(names)[:shown])
    more = " …" if len(names) > shown else ""
    return f": there is {some}{more}" if names else ""
