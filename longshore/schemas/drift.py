"""What a device's report says against the ledger: pure, like `schemas/ledger.py`, and applied by the FleetWorkflow.

Two messages tell of one event, in no order: the rollout's `slot_settled` and the device's record. So most of what
contradicts the ledger is a *doubt* first: it counts when nothing has explained it after a while.

    ledger             report                                                  then
    READY              ready, the same digest                                  nothing
                       loading, reloading, unloading (a crash, brought up)     nothing
                       ready, another digest                                   that one, at once
                       failed                                                  FAILED, at once
                       not mentioned, or idle                                  doubt, then freed
    LOADING/RELOADING  ready with the slot's digest                            doubt, then READY
                       failed for good                                         doubt, then FAILED, or the old version's
    UNLOADING          not mentioned, or idle                                  doubt, then freed
                       failed for good                                         doubt, then FAILED
    FAILED             ready                                                   READY, at once
    replaced           whatever is settled there                               that, at once
    none               anything but idle                                       unknown: to be adopted

A word counts from the slot's generation on. An older one is late, unless the device says that it was rolled back
(DEVICE_ROLLED_BACK): then its word is taken, after a doubt. "Failed for good" leaves out what the device tries again.
"""

from __future__ import annotations

from typing import NamedTuple

from longshore.schemas.devices import DeviceRecord, Health, Told, slot_text
from longshore.schemas.failures import FAILURES
from longshore.schemas.fleet import SlotSettled
from longshore.schemas.lifecycle import IN_FLIGHT, ModelState
from longshore.schemas.slots import Slot

ROLLED_BACK = "DEVICE_ROLLED_BACK"

# Health that only a report can bring; a device that is silent says nothing new.
_HEARD = frozenset({Health.HEALTHY, Health.RECOVERING})


class Word(NamedTuple):
    """What a report makes of one slot."""

    slot: Slot
    event: SlotSettled
    sure: bool
    """False: a doubt."""

    @property
    def says(self) -> str:
        """The same for the same contradiction, told again."""
        event, slot = self.event, self.slot
        return f"{slot.state}:{slot.generation} {event.state}:{(event.digest or '')[:8]}:{event.code or ''}"

    def __str__(self) -> str:
        what = f"{self.event.deployment_id} on {self.event.worker_id}"
        if self.event.state is ModelState.IDLE:
            return f"{what} is gone"
        if self.event.state is self.slot.state:
            return f"{what} is not the {self.slot.version} that the ledger knows"
        code = f" with {self.event.code}" if self.event.code else ""
        return f"{what} is {self.event.state.upper()}{code}, the ledger said {self.slot.state.upper()}"


class Absorbed(NamedTuple):
    words: tuple[Word, ...] = ()
    unknown: tuple[str, ...] = ()
    """Deployments that the device holds and the ledger does not know there."""


def absorb(slots: tuple[Slot, ...], record: DeviceRecord) -> Absorbed:
    """Return what a record says against the slots of its device."""
    if record.health not in _HEARD:
        return Absorbed()
    mine = {slot.deployment_id: slot for slot in slots if slot.worker_id == record.worker_id}
    told = _told(record)
    words = (_word(slot, told.get(name), record) for name, slot in mine.items())
    unknown = (name for name, word in told.items() if name not in mine and word.state is not ModelState.IDLE)
    return Absorbed(tuple(word for word in words if word is not None), tuple(sorted(unknown)))


def seen(record: DeviceRecord) -> int:
    """Return the highest generation that the device is known to have seen; older devices say it of models only."""
    return max([record.generation, *(word.generation for word in _told(record).values())])


def remembering(before: DeviceRecord, record: DeviceRecord, slots: tuple[Slot, ...]) -> DeviceRecord:
    """Return the record, rolled back still where it was: its device says so once, the ledger until it has caught up."""
    if ROLLED_BACK not in before.flags or ROLLED_BACK in record.flags or before.boot_id != record.boot_id:
        return record
    highest = max((s.generation for s in slots if s.worker_id == record.worker_id), default=0)
    return record if seen(record) >= highest else record.model_copy(update={"flags": (*record.flags, ROLLED_BACK)})


def _told(record: DeviceRecord) -> dict[str, Told]:
    return {name: word for name in record.slots if (word := slot_text(record, name)) is not None}


def _word(slot: Slot, told: Told | None, record: DeviceRecord) -> Word | None:
    generation = seen(record) if told is None else told.generation
    back = ROLLED_BACK in record.flags and slot.state not in IN_FLIGHT
    if generation < slot.generation and not back and not slot.replaced:
        return None
    event = _event(slot, told or Told(ModelState.IDLE, generation, ""))
    if event is None or not _contradicts(slot, event):
        return None
    sure = slot.replaced or (slot.state not in IN_FLIGHT and event.state is not ModelState.IDLE and not back)
    return Word(slot, event, sure)


def _event(slot: Slot, told: Told) -> SlotSettled | None:
    """Return how what is told settles the slot; None where it does not."""
    digests = {digest[:8]: digest for digest in (slot.previous_digest, slot.digest) if digest}
    event = SlotSettled(
        deployment_id=slot.deployment_id,
        worker_id=slot.worker_id,
        generation=slot.generation,
        state=told.state,
        digest=digests.get(told.digest8, told.digest8) or None,
        code=told.code,
    )
    match told.state:
        case ModelState.READY | ModelState.FAILED:
            return event
        case ModelState.IDLE if told.code is not None and slot.state in (ModelState.LOADING, ModelState.RELOADING):
            return event.model_copy(update={"state": ModelState.FAILED})  # refused before it began
        case ModelState.IDLE:
            return event.model_copy(update={"code": None})
    return None


def _contradicts(slot: Slot, event: SlotSettled) -> bool:
    if slot.state not in IN_FLIGHT:
        return _contradicts_settled(slot, event)
    if slot.replaced:
        return True
    if event.state is ModelState.IDLE:
        return slot.state is ModelState.UNLOADING
    if event.state is ModelState.READY and event.digest == slot.digest and slot.state is not ModelState.UNLOADING:
        return True
    old_serves = event.state is ModelState.READY and slot.state is ModelState.RELOADING
    return (event.state is ModelState.FAILED or old_serves) and _is_final(event.code)


def _contradicts_settled(slot: Slot, event: SlotSettled) -> bool:
    match slot.state, event.state:
        case ModelState.READY, ModelState.READY:
            return event.digest is not None and event.digest != slot.digest
        case ModelState.FAILED, ModelState.READY:
            return True
        case ModelState.READY, _:
            return True
    # What has failed keeps its place and its reason, also where the device never heard of it.
    return False


def _is_final(code: str | None) -> bool:
    kind = FAILURES.get(code or "")
    return kind is not None and not kind.retriable
