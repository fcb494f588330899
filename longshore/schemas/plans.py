"""The plan: what a commit or a reconciliation will change, on which device, and why (PRD §5.2 phases 2, 3, §5.3)."""

from __future__ import annotations

from enum import StrEnum

from longshore.schemas.base import Message
from longshore.schemas.commands import Action, UnloadReason
from longshore.schemas.slots import Demand, Slot


class ChangeType(StrEnum):
    """PRD §5.2 phase 2, and what it leaves unnamed: MIGRATE and ORPHAN."""

    NEW_DEPLOYMENT = "NEW_DEPLOYMENT"
    VERSION_UPDATE = "VERSION_UPDATE"
    SCALE_UP = "SCALE_UP"
    SCALE_DOWN = "SCALE_DOWN"
    DISABLE = "DISABLE"
    UNRESPONSIVE_WORKER = "UNRESPONSIVE_WORKER"
    FAILED_MODEL = "FAILED_MODEL"
    MIGRATE = "MIGRATE"
    """The device may not keep it: its labels no longer match, or it is being drained."""
    ORPHAN = "ORPHAN"
    """A device runs what git never named."""


class CauseKind(StrEnum):
    """What made the fleet look whether something is to be done, other than a commit."""

    DRIFT = "drift"
    """Reports and ledger differ."""
    WORKER_FAILED = "worker_failed"
    WORKER_RETURNED = "worker_returned"
    MODEL_FAILED = "model_failed"
    ROOM_FREED = "room_freed"
    """Something has gone while replicas were without a place."""
    REPLACED = "replaced"
    """Replicas are READY for which something had been left standing."""
    DRAIN = "drain"
    OPERATOR = "operator"
    REBUILD = "rebuild"
    """The ledger was lost, and has been made anew from git and the devices' reports (FAULTS 57, 70)."""


class Cause(Message):
    """Why the fleet reconciles: stands in the workflow, its rollouts, the logs and the error file."""

    kind: CauseKind
    words: str
    """One sentence for an operator: `worker-a has failed: silent for 120 s`."""
    workers: tuple[str, ...] = ()
    deployments: tuple[str, ...] = ()
    by: str = ""
    """Who asked for it, where a person did."""


class PoolSuspicion(Message):
    """Too much of one pool is silent at once: that is the network or the power, not the devices (FAULTS 85)."""

    pool: str
    unhealthy: int
    """Devices SUSPECT or FAILED within the window."""
    alive_before: int
    """Devices that were there when the window began."""


class Change(Message):
    """One discrepancy between desired and observed."""

    type: ChangeType
    deployment_id: str
    reason: str
    """One sentence for an operator, for instance "1.0.0 → 1.1.0 on 3 workers"."""


class Shortfall(Message):
    """One resource that a device lacks; `resource` is memory (bytes), cpu, gpu or models."""

    resource: str
    requested: float
    used: float
    capacity: float


class Rejection(Message):
    """Why a device was not chosen: every reason, not only the first."""

    worker_id: str
    reasons: tuple[str, ...]
    shortfalls: tuple[Shortfall, ...] = ()


class Awaited(Message):
    """A slot whose room another command needs: freed when the ledger holds none of that deployment on that device."""

    deployment_id: str
    worker_id: str
    generation: int
    """That of the UNLOAD which frees it."""


class Deferred(Message):
    """What will be done, but not by this plan: something must be READY first."""

    action: Action
    worker_id: str
    reason: str
    waits_for: str
    """In words: `3 others are READY`."""


class PlannedCommand(Message):
    action: Action
    worker_id: str
    reason: str
    """Why this device, in a sentence; becomes the activity's summary in the Temporal Web UI."""
    previous_version: str | None = None
    previous_digest: str | None = None
    """For a RELOAD: what is believed to run there."""
    unload_reason: UnloadReason | None = None
    after: tuple[Awaited, ...] = ()
    """Slots of this device that must have gone before the command is issued."""
    recreate: bool = False
    """For a RELOAD: take the old version down first, because both do not fit."""
    gap: str | None = None
    """Only with `recreate`: what its callers will notice, for instance "worker-b serves nothing for about 40 s"."""


class DeploymentPlan(Message):
    """All that one deployment needs. `generation` fences late commands; the ledger only ever increases it."""

    deployment_id: str
    generation: int
    version: str | None
    """The desired version; None where nothing should run."""
    digest: str | None
    priority: int = 1
    demand: Demand = Demand()
    replicas: int
    """How many replicas are wanted."""
    changes: tuple[Change, ...]
    commands: tuple[PlannedCommand, ...]
    unplaced: int = 0
    """How many of the wanted replicas no device can take."""
    given_up: int = 0
    """How many of those have a place where the version has failed, and is not tried any more until a push."""
    rejections: tuple[Rejection, ...] = ()
    """Only with `unplaced`: why not the other devices that the selector matches; capped, see `truncated`."""
    truncated: int = 0
    """How many rejections were left out by the cap."""
    deferred: tuple[Deferred, ...] = ()
    lost: tuple[str, ...] = ()
    """Devices that have failed: their slots count as `replaced`, and nothing is commanded to them."""
    max_unavailable: int = 1
    """How many replicas may be recreated at once."""
    held: str = ""
    """What keeps the desired version from being brought anywhere: paused, aborted or quarantined, by whom and why."""

    @property
    def moves(self) -> bool:
        """Tell whether the ledger is another one after this plan; else it only says what cannot be done now."""
        return bool(self.commands or self.lost)

    @property
    def without_place(self) -> int:
        """How many of the wanted replicas have no place, be it for want of room or for a hold."""
        return self.unplaced - self.given_up

    @property
    def gives_up(self) -> bool:
        """Tell whether a model has failed for which nothing is tried any more (PRD §5.2, FAILED_MODEL)."""
        tried = [*(command.action for command in self.commands), *(later.action for later in self.deferred)]
        failed = any(change.type is ChangeType.FAILED_MODEL for change in self.changes)
        return failed and all(action is Action.UNLOAD for action in tried)


class Goal(Message):
    """What a commit wants of one deployment, whether or not that changes anything."""

    version: str | None
    """None where nothing should run."""
    replicas: int


class Plan(Message):
    """What one commit or reconciliation changes. Empty `deployments` means that everything already is as desired."""

    sha: str
    generation: int
    """The ledger's counter after this plan."""
    deployments: tuple[DeploymentPlan, ...] = ()
    workers: tuple[str, ...] = ()
    """Every configured device, so that each can be given its DeviceWorkflow."""
    goals: dict[str, Goal] = {}
    """By deployment id, every manifest of the commit: what `longshore status` measures the fleet against."""
    stamp: str = ""
    """A hash of the ledger that it was made for, 16 hex digits: on any other it is refused with PLAN_STALE."""
    adopted: tuple[Slot, ...] = ()
    """Found in reports and unknown to the ledger, which takes them in before it reserves for the commands."""
    cause: Cause | None = None
    """Only of a reconciliation."""
    suspects: tuple[PoolSuspicion, ...] = ()
    """Pools in which nothing lost is replaced and nothing evicted."""
    put_off: tuple[str, ...] = ()
    """Deployments that are left alone while something of them is under way, though there is more to be done."""

    @property
    def moves(self) -> bool:
        """Tell whether the ledger is another one after this plan."""
        return bool(self.adopted) or any(deployment.moves for deployment in self.deployments)
