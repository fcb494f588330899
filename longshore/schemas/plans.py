"""The plan: what a commit will change, on which device, and why (PRD §5.2 phases 2 and 3, §5.3)."""

from __future__ import annotations

from enum import StrEnum

from longshore.schemas.base import Message
from longshore.schemas.commands import Action, UnloadReason
from longshore.schemas.slots import Demand


class ChangeType(StrEnum):
    """PRD §5.2 phase 2."""

    NEW_DEPLOYMENT = "NEW_DEPLOYMENT"
    VERSION_UPDATE = "VERSION_UPDATE"
    SCALE_UP = "SCALE_UP"
    SCALE_DOWN = "SCALE_DOWN"
    DISABLE = "DISABLE"
    UNRESPONSIVE_WORKER = "UNRESPONSIVE_WORKER"
    FAILED_MODEL = "FAILED_MODEL"


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


class PlannedCommand(Message):
    action: Action
    worker_id: str
    reason: str
    """Why this device, in a sentence; becomes the activity's summary in the Temporal Web UI."""
    previous_version: str | None = None
    previous_digest: str | None = None
    """For a RELOAD: what is believed to run there."""
    unload_reason: UnloadReason | None = None


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
    rejections: tuple[Rejection, ...] = ()
    """Only with `unplaced`: why not the other devices that the selector matches; capped, see `truncated`."""
    truncated: int = 0
    """How many rejections were left out by the cap."""


class Goal(Message):
    """What a commit wants of one deployment, whether or not that changes anything."""

    version: str | None
    """None where nothing should run."""
    replicas: int


class Plan(Message):
    """What one commit changes. Empty `deployments` means that everything already is as desired."""

    sha: str
    generation: int
    """The ledger's counter after this plan."""
    deployments: tuple[DeploymentPlan, ...] = ()
    workers: tuple[str, ...] = ()
    """Every configured device, so that each can be given its DeviceWorkflow."""
    goals: dict[str, Goal] = {}
    """By deployment id, every manifest of the commit: what `longshore status` measures the fleet against."""
