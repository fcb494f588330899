"""What devices and rollouts say, as changes of the ledger: pure (`schemas/drift.py` has the table)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from longshore.schemas.devices import DeviceRecord, Health, slot_text
from longshore.schemas.drift import ROLLED_BACK, Word, absorb, remembering, seen
from longshore.schemas.failures import FAILURES, Category
from longshore.schemas.fleet import Broken, Doubt, FleetInput, SlotSettled, Steered
from longshore.schemas.ledger import NO_ROOM, Key, key_of, recent_failures, retry_at, settle, settle_anyway
from longshore.schemas.lifecycle import IN_FLIGHT, ModelState
from longshore.schemas.orders import Hold
from longshore.schemas.plans import Cause, CauseKind
from longshore.schemas.rollouts import Steering
from longshore.schemas.slots import Slot
from longshore.workflows.ledger import causes

# What says nothing of the version that was to come: the way there, our own order, or that it had no room.
_BLAMELESS_CATEGORIES = frozenset({Category.NETWORK, Category.CONTROL})

# A report that was on its way when a command ended does not tell of that end. On a server at its limits the one that
# does came 17 s later, and who is taken for gone is loaded a second time: so many times `doubt_grace` are waited more.
_LATE = 5


def heard(state: FleetInput, record: DeviceRecord, now: datetime) -> FleetInput:
    """Take over a device's record, and what it says of its slots."""
    name = record.worker_id
    known = state.devices.get(name)
    before = known or DeviceRecord(worker_id=name)
    record = remembering(before, record, state.slots)
    state, record = _without_gone(state, record)
    failures = state.failures
    # When a device had failed of which the ledger hears for the first time, it does not know.
    if known is not None and record.health is Health.FAILED and before.health is not Health.FAILED:
        failures = recent_failures({**failures, name: (*failures.get(name, ()), now)}, now)
    unknown = set(absorb(state.slots, before).unknown)
    state = state.model_copy(
        update={
            "devices": {**state.devices, name: record},
            "generation": max(state.generation, seen(record)),
            "failures": failures,
        }
    )
    lost = (slot.worker_id for slot in state.slots if not slot.replaced and _has_failed(slot.worker_id, state))
    cause = causes.of_device(before, record, state.slots, state.open, lost)
    state = causes.note(state, cause, now)
    absorbed = absorb(state.slots, record)
    # What this device has never told of may not have been there yet when it said this.
    missed = (word for word in absorbed.words if _is_missed(word, record))
    vague = {word for word in missed if slot_text(before, word.slot.deployment_id) is None}
    state = _listened(state, name, absorbed.words, now, fresh=True, vague=vague)
    if found := [deployment for deployment in absorbed.unknown if deployment not in unknown]:
        words = f"{name} holds {', '.join(found)}, of which the ledger does not know"
        drift = Cause(kind=CauseKind.DRIFT, words=words, workers=(name,), deployments=tuple(found))
        state = causes.note(state, drift, now)
    return state


def settled(state: FleetInput, event: SlotSettled, now: datetime) -> FleetInput:
    """Take over how a command has ended. What its device has said by then is a doubt at most: it may be older."""
    before = _slot(state, (event.deployment_id, event.worker_id))
    after = state.model_copy(update={"slots": settle(state.slots, event, now)})
    if before is None or after.slots == state.slots:
        return state
    state = _moved(after, before, now)
    record = state.devices.get(event.worker_id)
    if record is None:
        return state
    if event.begun and _slot(state, key_of(before)) is None:
        gone = {**state.gone.get(event.worker_id, {}), event.deployment_id: event.generation}
        state, record = _without_gone(state.model_copy(update={"gone": {**state.gone, event.worker_id: gone}}), record)
        state = state.model_copy(update={"devices": {**state.devices, event.worker_id: record}})
    words = absorb(state.slots, record).words
    return _listened(state, event.worker_id, words, now, fresh=False, vague=words)


def _without_gone(state: FleetInput, record: DeviceRecord) -> tuple[FleetInput, DeviceRecord]:
    """Leave out what was unloaded and is told of still: the UNLOAD's end is newer than this record.

    What is gone is forgotten once a record that has seen the UNLOAD tells nothing of it.
    """
    gone = state.gone.get(record.worker_id)
    if not gone:
        return state, record
    stale = {
        name
        for name, generation in gone.items()
        if (told := slot_text(record, name)) is not None and told.generation <= generation
        if ROLLED_BACK not in record.flags
    }
    left = {name: generation for name, generation in gone.items() if name in stale or seen(record) < generation}
    others = {name: one for name, one in state.gone.items() if name != record.worker_id}
    state = state.model_copy(update={"gone": {**others, record.worker_id: left} if left else others})
    slots = {name: text for name, text in record.slots.items() if name not in stale}
    return state, record.model_copy(update={"slots": slots}) if stale else record


def resolved(state: FleetInput, now: datetime) -> FleetInput:
    """Believe what has been doubted for long enough, where it is still said."""
    grace = state.settings.doubt_grace
    for doubt in state.doubts:
        if doubt.since + grace <= now:
            words = absorb(state.slots, state.devices[doubt.worker_id]).words
            said = (
                w for w in words if (key_of(w.slot), w.says) == ((doubt.deployment_id, doubt.worker_id), doubt.says)
            )
            state = state.model_copy(update={"doubts": tuple(one for one in state.doubts if one is not doubt)})
            for word in said:
                state = _believed(state, word, now)
    return state


def retries(state: FleetInput) -> Iterable[tuple[datetime, Slot]]:
    """Yield when what has failed is tried again by itself, and which slot that is."""
    for slot in state.slots:
        failed = slot.state is ModelState.FAILED or (slot.state is ModelState.READY and slot.code is not None)
        if failed and not slot.replaced and not _has_failed(slot.worker_id, state):
            at = retry_at(slot, state.settings.limits.backoff)
            if at is not None:
                yield at, slot


def _is_missed(word: Word, record: DeviceRecord) -> bool:
    """Tell whether a device does not tell of what should serve there, for whatever reason."""
    settled = word.slot.state not in IN_FLIGHT and not word.sure
    return settled and word.event.state is ModelState.IDLE and ROLLED_BACK not in record.flags


def _listened(
    state: FleetInput,
    worker_id: str,
    words: tuple[Word, ...],
    now: datetime,
    *,
    fresh: bool,
    vague: Collection[Word],
) -> FleetInput:
    """Believe what is sure where it is `fresh`, and doubt the rest; what is no longer said is doubted no longer.

    A doubt that is `vague` begins later: most likely the report that ends it is on its way.
    """
    since = {(d.deployment_id, d.says): d.since for d in state.doubts if d.worker_id == worker_id}
    later = now + _LATE * state.settings.doubt_grace
    others = [doubt for doubt in state.doubts if doubt.worker_id != worker_id]
    doubts = [
        Doubt(
            deployment_id=word.event.deployment_id,
            worker_id=worker_id,
            says=word.says,
            since=min(since.get((word.event.deployment_id, word.says), later), later if word in vague else now),
        )
        for word in words
        if not (word.sure and fresh)
    ]
    state = state.model_copy(update={"doubts": (*others, *doubts)})
    for word in words:
        if word.sure and fresh:
            state = _believed(state, word, now)
    return state


def _believed(state: FleetInput, word: Word, now: datetime) -> FleetInput:
    state = state.model_copy(update={"slots": settle_anyway(state.slots, word.event, now)})
    # What was under way has ended, as it should; all else is as no plan wanted it.
    if word.slot.state not in IN_FLIGHT:
        name, worker_id = key_of(word.slot)
        drift = Cause(kind=CauseKind.DRIFT, words=str(word), workers=(worker_id,), deployments=(name,))
        state = causes.note(state, drift, now)
    return _moved(state, word.slot, now)


def _moved(state: FleetInput, before: Slot, now: datetime) -> FleetInput:
    """Note what follows from the end of what `before` says."""
    after = _slot(state, key_of(before))
    state = causes.note(state, causes.of_slot(before, after, state.open), now)
    if after is None:
        return state
    if after.failed_at == now and after.code is not None:
        return _failed(state, before, after, now)
    broken = state.broken.get(after.deployment_id)
    if after.state is ModelState.READY and broken is not None and broken.digest == after.digest:
        workers = tuple(worker for worker in broken.workers if worker != after.worker_id)
        healed = broken.model_copy(update={"workers": workers})
        state = state.model_copy(update={"broken": {**state.broken, after.deployment_id: healed}})
    return state


def _failed(state: FleetInput, before: Slot, after: Slot, now: datetime) -> FleetInput:
    failing = after if after.state is ModelState.FAILED else before  # a RELOAD leaves the old version's slot
    if not after.replaced and retry_at(after, state.settings.limits.backoff) is None:
        state = causes.note(state, causes.of_failure(after, failing.version), now)
    kind = FAILURES.get(after.code or "")
    blameless = kind is None or kind.category in _BLAMELESS_CATEGORIES or kind.code in NO_ROOM
    if blameless or before.state is ModelState.UNLOADING:
        return state
    known = state.broken.get(after.deployment_id)
    workers = set(known.workers) if known is not None and known.digest == failing.digest else set()
    broken = Broken(digest=failing.digest, version=failing.version, workers=tuple(sorted({*workers, after.worker_id})))
    state = state.model_copy(update={"broken": {**state.broken, after.deployment_id: broken}})
    if len(broken.workers) >= state.settings.limits.quarantine_after:
        state = _quarantined(state, after.deployment_id, broken, after.code or "")
    return state


def _quarantined(state: FleetInput, deployment_id: str, broken: Broken, code: str) -> FleetInput:
    """Hold a version that has failed on so many devices, and stop what of its rollout has not begun."""
    hold = Hold(
        deployment_id=deployment_id,
        kind="quarantined",
        digest=broken.digest,
        version=broken.version,
        reason=f"failed on {', '.join(broken.workers)}, at last with {code}",
        workers=broken.workers,
    )
    known = [one for one in state.holds if (one.deployment_id, one.kind) == (deployment_id, "quarantined")]
    others = tuple(one for one in state.holds if one not in known)
    update: dict[str, object] = {"holds": (*others, hold)}
    if not any(one.digest == broken.digest for one in known):
        stop = Steering(kind="abort", reason=hold.reason, code="QUARANTINED")
        update["steerings"] = (*state.steerings, Steered(deployment_id=deployment_id, steering=stop))
    return state.model_copy(update=update)


def _slot(state: FleetInput, key: Key) -> Slot | None:
    return next((slot for slot in state.slots if key_of(slot) == key), None)


def _has_failed(worker_id: str, state: FleetInput) -> bool:
    record = state.devices.get(worker_id)
    return record is not None and record.health is Health.FAILED
