"""Whether the room that a command waits for has been made: the ledger is the only truth of it."""

from __future__ import annotations

from collections.abc import Iterable

from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import Awaited
from longshore.schemas.rollouts import Freed
from longshore.schemas.slots import Slot


def freed(awaited: Iterable[Awaited], slots: Iterable[Slot]) -> Freed | None:
    """Return `freed` once no slot of those keys is left, `kept` as soon as one is to stay, None while that is open.

    A slot that is UNLOADING, by whatever plan, has not gone yet; one below the awaited generation is of a ledger that
    has not heard of the eviction. Anything else stays: its UNLOAD failed or was withdrawn, or a newer plan wants it.
    """
    there = {(slot.deployment_id, slot.worker_id): slot for slot in slots}
    left = [(one, there[key]) for one in awaited if (key := (one.deployment_id, one.worker_id)) in there]
    for one, slot in left:
        if slot.state is not ModelState.UNLOADING and slot.generation >= one.generation:
            why = f" ({slot.code})" if slot.code else ""
            return Freed(outcome="kept", words=f"{slot.deployment_id} stays on {slot.worker_id}: {slot.state}{why}")
    return None if left else Freed(outcome="freed")
