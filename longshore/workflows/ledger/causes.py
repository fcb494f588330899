"""Why the fleet looks whether something is to be done: what has happened, noted once and used up by the next plan."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from longshore.schemas.devices import DeviceRecord, DeviceStatus, Health
from longshore.schemas.fleet import FleetInput, Open
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import Cause, CauseKind, Plan
from longshore.schemas.slots import Slot

# Characters of a cause's words: it stands in a workflow's memo, in logs and in an error file.
_LONGEST = 400

_AND_MORE = "; and more"

# Which of several kinds names the reconciliation.
_WEIGHT = {
    kind: weight
    for weight, kind in enumerate(
        (
            CauseKind.REBUILD,
            CauseKind.OPERATOR,
            CauseKind.WORKER_FAILED,
            CauseKind.DRAIN,
            CauseKind.WORKER_RETURNED,
            CauseKind.MODEL_FAILED,
            CauseKind.REPLACED,
            CauseKind.ROOM_FREED,
            CauseKind.DRIFT,
        )
    )
}


def noted(causes: tuple[Cause, ...], new: Cause) -> tuple[Cause, ...]:
    """Return the causes with `new` among them: one of each kind, the oldest first."""
    for place, old in enumerate(causes):
        if old.kind is new.kind:
            return (*causes[:place], merged((old, new)), *causes[place + 1 :])
    return (*causes, new)


def note(state: FleetInput, cause: Cause | None, now: datetime) -> FleetInput:
    """Return the ledger with one cause more, if there is one."""
    if cause is None:
        return state
    since = min(now, state.causes_since or now)
    return state.model_copy(update={"causes": noted(state.causes, cause), "causes_since": since})


def merged(causes: Iterable[Cause]) -> Cause:
    """Return several causes, at least one, as one: of the kind that weighs most."""
    ordered = sorted(causes, key=lambda cause: _WEIGHT[cause.kind])
    words = ""
    for cause in ordered:
        words = _with(words, cause.words)
    return Cause(
        kind=ordered[0].kind,
        words=words,
        workers=tuple(sorted({worker for cause in ordered for worker in cause.workers})),
        deployments=tuple(sorted({deployment for cause in ordered for deployment in cause.deployments})),
        by=next((cause.by for cause in ordered if cause.by), ""),
    )


def of_device(
    before: DeviceRecord, record: DeviceRecord, slots: tuple[Slot, ...], undone: dict[str, Open], lost: Iterable[str]
) -> Cause | None:
    """Return what a device's news means for the plan; None where it changes nothing that is planned.

    `lost`: other devices that have failed, and whose slots nobody has replaced: their pool may have been suspect.
    """
    worker_id = record.worker_id
    mine = [slot for slot in slots if slot.worker_id == worker_id]
    kind: CauseKind | None = None
    words = f"{worker_id} is heard again"
    if record.health is Health.FAILED and before.health is not Health.FAILED and (mine or _was_there(before)):
        kind, words = CauseKind.WORKER_FAILED, f"{worker_id} has failed: nothing was heard of it"
    elif record.draining and not before.draining and mine:
        kind, words = CauseKind.DRAIN, f"{worker_id} drains itself"
    elif before.health is Health.FAILED and record.health is not Health.FAILED and mine:
        kind = CauseKind.WORKER_RETURNED
    elif _takes(record) and not _takes(before):
        waits = any(one.unplaced or one.deferred for one in undone.values())
        if waits or any(slot.replaced for slot in mine) or any(lost):
            kind = CauseKind.WORKER_RETURNED
            words = f"{worker_id} takes models"
    return Cause(kind=kind, words=words, workers=(worker_id,)) if kind is not None else None


def of_slot(before: Slot, after: Slot | None, undone: dict[str, Open]) -> Cause | None:
    """Return what the end of a command means for others; a failure is not judged here."""
    freed = after is None or after.reserved != before.reserved
    name, worker_id = before.deployment_id, before.worker_id
    own = undone.get(name)
    if after is not None and after.state is ModelState.READY and own is not None and own.deferred:
        words = f"{name} is READY on {worker_id}"
        return Cause(kind=CauseKind.REPLACED, words=words, deployments=(name,), workers=(worker_id,))
    if freed and any(one.unplaced for one in undone.values()):
        words = f"{name} has left room on {worker_id}"
        return Cause(kind=CauseKind.ROOM_FREED, words=words, workers=(worker_id,))
    return None


def of_failure(slot: Slot, version: str) -> Cause:
    """`version`: what has failed; the slot may hold the one before, which serves on."""
    where, name = slot.worker_id, slot.deployment_id
    words = f"{name} {version} on {where}: {slot.code or 'failed'}"
    return Cause(kind=CauseKind.MODEL_FAILED, words=words, workers=(where,), deployments=(name,))


def news(plan: Plan, cause: Cause) -> Plan | None:
    """Return what people must learn of a plan that moves nothing: a device or, for good, a model has failed.

    PRD §5.5 step 6, §5.2 FAILED_MODEL. Of a suspect pool an alarm of its own tells; what a look finds is no news.
    """
    failed = cause.kind is CauseKind.WORKER_FAILED and not plan.suspects
    named = cause.deployments if cause.kind is not CauseKind.DRIFT else ()
    given_up = tuple(one for one in plan.deployments if one.gives_up and one.deployment_id in named)
    return plan.model_copy(update={"deployments": given_up}) if failed or given_up else None


def of_retry(slot: Slot) -> Cause:
    where, name = slot.worker_id, slot.deployment_id
    words = f"{name} on {where} is tried again after {slot.code}"
    return Cause(kind=CauseKind.MODEL_FAILED, words=words, workers=(where,), deployments=(name,))


def _takes(record: DeviceRecord) -> bool:
    return record.health is Health.HEALTHY and record.status is not DeviceStatus.LEAVING and not record.draining


def _was_there(record: DeviceRecord) -> bool:
    """Tell whether the device was heard of, and has not said goodbye since."""
    return record.status not in {None, DeviceStatus.LEAVING}


def _with(words: str, more: str) -> str:
    if not words or more in words:
        return words or more[:_LONGEST]
    if words.endswith(_AND_MORE):
        return words
    both = f"{words}; {more}"
    return both if len(both) <= _LONGEST else f"{words}{_AND_MORE}"
