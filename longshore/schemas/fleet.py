"""The ledger that the FleetWorkflow keeps for one registry, and the questions it is asked."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

from longshore.schemas.base import Message
from longshore.schemas.devices import DeviceRecord, PresenceIntervals
from longshore.schemas.held import Accepted, HeldBack
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import Plan
from longshore.schemas.slots import Slot


class PlanOutcome(StrEnum):
    PLANNED = "planned"
    OUTDATED = "outdated"
    """The commit is an ancestor of the applied one: a slow poll, or a push that was overtaken."""
    HISTORY_REWRITTEN = "history_rewritten"
    """The commit does not descend from the applied one; an operator must accept it (FAULTS 17)."""
    MASS_UNLOAD_BLOCKED = "mass_unload_blocked"
    """The commit would take too much of what serves away; an operator must accept it (FAULTS 20)."""

    @property
    def code(self) -> str | None:
        """Why there is no plan, as a code of the failure table."""
        return {
            PlanOutcome.PLANNED: None,
            PlanOutcome.OUTDATED: "COMMIT_STALE",
            PlanOutcome.HISTORY_REWRITTEN: "HISTORY_REWRITTEN",
            PlanOutcome.MASS_UNLOAD_BLOCKED: "MASS_UNLOAD_BLOCKED",
        }[self]


class PlanRequest(Message):
    request_id: str
    """The run id of the commit's workflow."""
    registry: str
    sha: str
    workers: tuple[str, ...] = ()
    """The devices that the commit configures: those never heard of are given a moment to report."""


class PlanAnswer(Message):
    request_id: str
    sha: str
    outcome: PlanOutcome
    applied_sha: str | None
    """What the ledger holds after this answer."""
    plan: Plan | None = None
    """Only with PLANNED. The answer to a repeated request is the recorded one."""
    reason: str = ""
    """Only without a plan: why, as a sentence about the commit without its subject."""
    accepted: tuple[Accepted, ...] = ()
    """Only with PLANNED: who has accepted what would have held the commit back."""
    held_descendants: tuple[str, ...] = ()
    """Only with PLANNED: which of the commits that are held back descend from this one."""


class PlanningInput(Message):
    """What the planning activity needs besides git."""

    request: PlanRequest
    applied_sha: str | None
    generation: int
    devices: dict[str, DeviceRecord]
    slots: tuple[Slot, ...]
    held: tuple[HeldBack, ...] = ()
    mass_unload_limit: int = 50


class FleetSettings(Message):
    poll_interval: timedelta = timedelta(seconds=30)
    first_report_grace: timedelta = timedelta(seconds=5)
    """How long a plan waits for the first report of devices that the ledger has never heard of."""
    presence: PresenceIntervals = PresenceIntervals()
    mass_unload_limit: int = 50
    """Percent of the serving replicas that a commit may unload unasked; 100 allows all."""


class FleetInput(Message):
    """Starts, or continues as new, the FleetWorkflow of one registry."""

    registry: str
    settings: FleetSettings = FleetSettings()
    applied_sha: str | None = None
    generation: int = 0
    watched_sha: str | None = None
    devices: dict[str, DeviceRecord] = {}
    slots: tuple[Slot, ...] = ()
    answers: tuple[PlanAnswer, ...] = ()
    """The last 200, oldest first: update ids are forgotten at continue-as-new (DESIGN §3)."""
    held: tuple[HeldBack, ...] = ()


class SlotSettled(Message):
    """A rollout tells the ledger how one command ended. Lower generations than the slot's are ignored."""

    deployment_id: str
    worker_id: str
    generation: int
    state: ModelState
    """READY, FAILED, or IDLE once an UNLOAD is confirmed."""
    version: str | None = None
    digest: str | None = None
    code: str | None = None


class FleetView(Message):
    """The answer of the FleetWorkflow's `fleet` query."""

    registry: str
    applied_sha: str | None
    generation: int
    devices: dict[str, DeviceRecord]
    slots: tuple[Slot, ...]
    plan: Plan | None
    """The plan of the applied commit."""
    held_back: tuple[HeldBack, ...] = ()


class WatchRequest(Message):
    registry: str
    seen_sha: str | None
    poll_interval: timedelta
