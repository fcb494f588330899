"""The ledger that the FleetWorkflow keeps for one registry, and the questions it is asked."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from longshore.schemas.base import Message
from longshore.schemas.devices import DeviceFacts, DeviceRecord, PresenceIntervals
from longshore.schemas.failures import Backoff
from longshore.schemas.held import Accepted, HeldBack
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.orders import Cordon, Hold
from longshore.schemas.plans import Cause, Plan, Rejection
from longshore.schemas.rollouts import Steering
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


class RequestKind(StrEnum):
    COMMIT = "commit"
    RECONCILE = "reconcile"
    """Plan the applied commit anew: no ancestry is asked, and the answer is not kept."""


class PlanRequest(Message):
    request_id: str
    """The run id of the commit's workflow."""
    registry: str
    sha: str
    workers: tuple[str, ...] = ()
    """The devices that the commit configures: those never heard of are given a moment to report."""
    kind: RequestKind = RequestKind.COMMIT
    cause: Cause | None = None
    """Only with RECONCILE."""


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


class UpdateGap(StrEnum):
    """Where a device cannot hold both versions of a RELOAD: whether the old one may be taken down first."""

    ALLOW = "allow"
    REFUSE = "refuse"


class PlanLimits(Message):
    """How far a plan may go by itself; all but `commands` are settings of the broker."""

    max_unavailable: int = 1
    """Replicas of one deployment that may be recreated at once."""
    update_gap: UpdateGap = UpdateGap.ALLOW
    quarantine_after: int = 3
    """Distinct devices on which one digest has failed before it is held."""
    suspect_share: float = 0.55
    """Part of a pool, 0 to 1, above which its failures are not believed (FAULTS 85)."""
    suspect_window: timedelta = timedelta(seconds=120)
    retries: int = 4
    """How often the fleet tries a digest again at its place after the device has given up."""
    backoff_base: timedelta = timedelta(seconds=30)
    backoff_cap: timedelta = timedelta(seconds=300)
    commands: int = 300
    """Most commands of one reconciliation: its plan must fit into a payload. The rest is still drift, for the next."""

    @property
    def backoff(self) -> Backoff:
        """When a failed model is tried again by the fleet."""
        return Backoff(base=self.backoff_base, cap=self.backoff_cap, attempts=self.retries + 1)


class Open(Message):
    """What the newest plan left undone of one deployment: whether freed room or a READY replica is news for it."""

    unplaced: int = 0
    given_up: int = 0
    """How many of those failed where they are, and are not tried any more."""
    deferred: int = 0
    rejections: tuple[Rejection, ...] = ()


class Broken(Message):
    """The devices on which the newest digest of a deployment has failed by its own fault."""

    digest: str
    version: str
    workers: tuple[str, ...] = ()


class Doubt(Message):
    """A report contradicts the ledger, and another message may still be under way that explains it."""

    deployment_id: str
    worker_id: str
    says: str
    """What the report makes of the slot, and of which; another word is another doubt."""
    since: datetime
    """When its grace begins; later than it was noted where an explanation is most likely on its way."""


class PlanningInput(Message):
    """What the planning activity needs besides git."""

    request: PlanRequest
    applied_sha: str | None
    generation: int
    devices: dict[str, DeviceRecord]
    slots: tuple[Slot, ...]
    held: tuple[HeldBack, ...] = ()
    mass_unload_limit: int = 50
    cordons: dict[str, Cordon] = {}
    """By worker id."""
    holds: tuple[Hold, ...] = ()
    failures: dict[str, tuple[datetime, ...]] = {}
    """By worker id, when it has failed within the last day, oldest first."""
    now: datetime | None = None
    """The ledger's clock; None in requests of releases that did not tell it."""
    facts: dict[str, DeviceFacts] = {}
    """By worker id; only of the devices that planning has wondered about."""
    orphaned: tuple[str, ...] = ()
    """Deployments with slots under way that no running rollout sees to: they are commanded anew."""
    limits: PlanLimits = PlanLimits()


class FleetSettings(Message):
    poll_interval: timedelta = timedelta(seconds=30)
    first_report_grace: timedelta = timedelta(seconds=5)
    """How long a plan waits for the first report of devices that the ledger has never heard of."""
    presence: PresenceIntervals = PresenceIntervals()
    mass_unload_limit: int = 50
    """Percent of the serving replicas that a commit may unload unasked; 100 allows all."""
    reconcile_interval: timedelta = timedelta(seconds=30)
    """Time between two looks at all devices and rollouts; most drift is found at once, by their messages."""
    reconcile_pause: timedelta = timedelta(seconds=1)
    """How long the first sign of drift waits for more, so that they are planned together."""
    doubt_grace: timedelta = timedelta(seconds=10)
    """How long a report that contradicts the ledger may be news of another message still under way."""
    rebuild_grace: timedelta = timedelta(seconds=60)
    """How long a new ledger waits for the devices when one has told that the fleet is not new."""
    limits: PlanLimits = PlanLimits()


class Steered(Message):
    deployment_id: str
    steering: Steering


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
    cordons: dict[str, Cordon] = {}
    """By worker id."""
    holds: tuple[Hold, ...] = ()
    failures: dict[str, tuple[datetime, ...]] = {}
    """By worker id, when it has failed within the last day, oldest first."""
    open: dict[str, Open] = {}
    """By deployment id; what is as wanted is left out."""
    causes: tuple[Cause, ...] = ()
    """What has happened and is not planned yet, one of each kind."""
    causes_since: datetime | None = None
    """When the first of them was noted."""
    looked_at: datetime | None = None
    """When the newest plan was asked for: what was due by then has had its look."""
    doubts: tuple[Doubt, ...] = ()
    orphaned: tuple[str, ...] = ()
    """Deployments with slots under way that no running rollout sees to, until the next plan."""
    gone: dict[str, dict[str, int]] = {}
    """Worker id → deployment id → generation: unloaded, while the device's records may still tell of it."""
    broken: dict[str, Broken] = {}
    """By deployment id; enough devices make it a quarantine."""
    steerings: tuple[Steered, ...] = ()
    """Words to running rollouts that are not sent yet."""
    plan: Plan | None = None
    """That of the newest reconciliation, where no answer to a commit tells what is applied: after a rebuild."""
    suspected: tuple[str, ...] = ()
    """Pools of which an alarm has told that they are silent (FAULTS 85), until they are back."""
    rebuilt: bool = False
    """Whether the devices have been asked what runs there: a run that was not continued begins with that."""
    version: int = 0
    """Counts every change of the ledger, so that a reader can ask whether there is news."""


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
    begun: bool = True
    """False: no device was given the command, nor will be. Its slot goes back to what it was before."""


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
    cordons: dict[str, Cordon] = {}
    """By worker id."""
    holds: tuple[Hold, ...] = ()
    failures: dict[str, tuple[datetime, ...]] = {}
    """By worker id, when it has failed within the last day, oldest first."""
    open: dict[str, Open] = {}
    """By deployment id, by the newest plan; what is as wanted is left out."""
    rebuilding: bool = False
    """Whether it is new, and no plan has taken in yet what the devices run."""
    version: int = 0
    settings: FleetSettings = FleetSettings()
    """Those that the fleet plans by: whoever plans beside it must use the same."""
    suspected: tuple[str, ...] = ()
    """Pools in which nothing lost is replaced and nothing evicted, by the newest plan."""


class WatchRequest(Message):
    registry: str
    seen_sha: str | None
    poll_interval: timedelta
