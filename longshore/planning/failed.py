"""What becomes of a model that has failed on a device which is there (PRD §8.1, §8.2)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from longshore.schemas.failures import Backoff
from longshore.schemas.ledger import may_pass
from longshore.schemas.slots import Slot


@dataclass(frozen=True)
class Retry:
    """Now, at its place."""


@dataclass(frozen=True)
class Wait:
    """At its place, but not before `until`."""

    until: datetime


@dataclass(frozen=True)
class GiveUp:
    """Not there again by itself; `reason` says why, without its subject."""

    reason: str


Fate = Retry | Wait | GiveUp


def fate(slot: Slot, now: datetime | None, backoff: Backoff) -> Fate:
    """Judge a slot that is FAILED, or READY with the code of a RELOAD that left the old version serving.

    The failure table decides. What was only out of order (control: fenced, superseded), or never got its room, has
    broken nothing, so it is tried again like what may pass. A slot without counted failures was never judged by the
    fleet's clock: a commit has asked for it anew, or its ledger is of a release that did not count.
    """
    if not slot.failures or slot.failed_at is None or now is None:
        return Retry()
    if not may_pass(slot.code):
        return GiveUp(f"failed with {slot.code}: trying again does not mend that")
    delay = backoff.delay_after(slot.failures)
    if delay is None:
        return GiveUp(f"failed {slot.failures} times, at last with {slot.code}")
    until = slot.failed_at + delay
    return Retry() if now >= until else Wait(until)
