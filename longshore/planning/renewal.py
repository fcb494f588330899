"""One slot that should hold another version, or has failed: how it is brought there in its place (PRD §7.1)."""

from __future__ import annotations

from longshore.planning.draft import Draft, gap, still_awaited
from longshore.planning.eviction import Eviction, choose, claim, evicting
from longshore.planning.failed import Fate, GiveUp, Retry, Wait, fate
from longshore.planning.placement import shortage, unsupported
from longshore.schemas.commands import Action, UnloadReason
from longshore.schemas.fleet import UpdateGap
from longshore.schemas.ledger import reserved
from longshore.schemas.lifecycle import SERVING, ModelState
from longshore.schemas.plans import DeploymentPlan, PlannedCommand, Rejection
from longshore.schemas.slots import Slot


def judge(slot: Slot, draft: Draft) -> Fate:
    """Return whether what has failed in a slot is tried again there: by a push always."""
    circumstances = draft.circumstances
    failed = slot.code is not None and (slot.state is ModelState.READY or slot.digest == draft.target.digest)
    if not circumstances.reconciling or not failed:
        return Retry()
    return fate(slot, circumstances.now, circumstances.limits.backoff)


def update(slot: Slot, schema_version: str, draft: Draft) -> None:
    """Bring a slot with another digest to the wanted one, unless its last try has just failed."""
    if draft.has_failed(slot.worker_id):
        draft.keep(silent(slot, draft))
        return
    match judge(slot, draft):
        case Retry():
            renew(slot, schema_version, draft)
        case Wait(until=until):
            reason = f"{draft.target.version} failed with {slot.code}, {slot.version} serves"
            draft.defer(Action.RELOAD, slot, reason, f"it is {until:%H:%M:%S} UTC")
        case GiveUp(reason=reason):
            reasons = (f"{draft.target.version} {reason}; {slot.version} stays",)
            draft.give_up(Rejection(worker_id=slot.worker_id, reasons=reasons))


def renew(slot: Slot, schema_version: str, draft: Draft) -> None:
    """Bring one slot to the wanted digest in its place; where that cannot be, keep what serves, and say so.

    Both versions side by side where they fit; else the old one goes first, with a gap, where that is allowed; else
    something less important goes, where that helps. The last one that serves of several waits until another does, if
    there is to be another; while the wanted version has failed elsewhere, none is taken down for it. What does not
    serve and has no room is unloaded.
    """
    command = _renewal(slot, draft)
    if slot.state is ModelState.FAILED:
        # What was to make room for it may have stayed.
        draft.fleet.occupancy.vacate(slot)
    refusal = _refusal(slot, command, schema_version, draft)
    if refusal is None:
        draft.command(slot, command)
        return
    other: PlannedCommand | None = None
    waits: tuple[str, str] | None = None
    if refusal.shortfalls:
        recreating = _recreating(slot, command, draft)
        waits = _waits(slot, draft) if recreating is not None else None
        other = _evicting(slot, command, draft) if recreating is None or waits else recreating
    if other is not None:
        draft.command(slot, other)
    elif waits is not None:
        why, until = waits
        draft.defer(Action.RELOAD, slot, f"{command.reason}: both do not fit, and {why}", until)
    elif slot.state in SERVING:
        draft.keep(refusal)
    else:
        reason = f"no place for {draft.target.version}: {refusal.reasons[0]}"
        draft.unload(slot, UnloadReason.SCALED_DOWN, reason)


def silent(slot: Slot, draft: Draft) -> Rejection:
    """Return why a slot in a suspect pool stays as it is."""
    absence = draft.fleet.absence(slot.worker_id) or ""
    reasons = (absence, "much of its pool is silent at once, so nothing is moved")
    return Rejection(worker_id=slot.worker_id, reasons=reasons)


def _refusal(slot: Slot, command: PlannedCommand, schema_version: str, draft: Draft) -> Rejection | None:
    if draft.fleet.supports(command.worker_id, schema_version):
        return shortage(slot, draft.target, command, draft.fleet)
    reasons = (unsupported(command.worker_id, schema_version, draft.fleet),)
    return Rejection(worker_id=command.worker_id, reasons=reasons)


def _recreating(slot: Slot, command: PlannedCommand, draft: Draft) -> PlannedCommand | None:
    if command.action is not Action.RELOAD or draft.circumstances.limits.update_gap is UpdateGap.REFUSE:
        return None
    words = gap(draft.target, command.worker_id, draft.fleet)
    reason = f"{command.reason}, one after the other: both do not fit"
    other = command.model_copy(update={"recreate": True, "gap": words, "reason": reason})
    return other if shortage(slot, draft.target, other, draft.fleet) is None else None


def _waits(slot: Slot, draft: Draft) -> tuple[str, str] | None:
    """Return why what serves is not taken down for its successor yet, and until when."""
    # What is being reloaded has had its turn before.
    if draft.failing and slot.state is ModelState.READY:
        version = draft.target.version
        return f"{version} has failed on {', '.join(draft.failing)}", f"{version} is READY in place of what failed"
    if draft.is_last(slot.worker_id) and not draft.is_all(slot.worker_id):
        return "nothing else serves", "another is READY"
    return None


def _evicting(slot: Slot, command: PlannedCommand, draft: Draft) -> PlannedCommand | None:
    need, models = draft.fleet.occupancy.need(reserved(slot, draft.target, command))
    chosen = choose(slot.worker_id, draft.target, need, models, draft.fleet)
    if not isinstance(chosen, Eviction):
        return None
    reason = f"{command.reason}, makes room: {evicting(chosen, slot.worker_id, draft.fleet)}"
    after = (*command.after, *claim(chosen, draft.target, draft.fleet))
    return command.model_copy(update={"reason": reason, "after": after})


def _renewal(slot: Slot, draft: Draft) -> PlannedCommand:
    """Return the command that replaces what `slot` holds: a RELOAD where something may serve, else a LOAD."""
    target: DeploymentPlan = draft.target
    after = tuple(still_awaited(slot, draft.fleet))
    if slot.state is ModelState.FAILED:
        reason = f"tried again: {slot.version} failed with {slot.code}"
        return PlannedCommand(action=Action.LOAD, worker_id=slot.worker_id, reason=reason, after=after)
    if slot.state is ModelState.LOADING:
        reason = f"instead of {slot.version}, which was still loading"
        return PlannedCommand(action=Action.LOAD, worker_id=slot.worker_id, reason=reason, after=after)
    version, digest = slot.version, slot.digest
    reason = f"{version} → {target.version}" if version != target.version else f"{version} anew: its digest has changed"
    if slot.state is ModelState.RELOADING:
        reason += ", while the reload before was under way"
        if slot.previous_digest != target.digest:
            version, digest = slot.previous_version or version, slot.previous_digest or digest
    return PlannedCommand(
        action=Action.RELOAD,
        worker_id=slot.worker_id,
        reason=reason,
        previous_version=version,
        previous_digest=digest,
        after=after,
    )
