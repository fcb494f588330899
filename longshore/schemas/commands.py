"""The three commands to a device, their progress and their result (PRD §5.2 phase 4, §6.2)."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from longshore.schemas.base import Message
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.lifecycle import ModelState


class Action(StrEnum):
    LOAD = "LOAD"
    RELOAD = "RELOAD"
    UNLOAD = "UNLOAD"


class UnloadReason(StrEnum):
    """Why a model goes; also decides what its callers are told (DESIGN §5: the problem's `type`)."""

    DISABLED = "disabled"
    REMOVED = "removed"
    SCALED_DOWN = "scaled_down"
    EVICTED = "evicted"


def correlation_id(deployment_id: str, generation: int, worker_id: str) -> str:
    """Return the name by which a command stands in the logs of broker and device (PRD §9.2)."""
    return f"{deployment_id}:{generation}:{worker_id}"


class Command(Message):
    """What all commands carry. A device refuses a `generation` below the highest that it has seen."""

    deployment_id: str
    worker_id: str
    generation: int
    cause: str
    """The registry commit that asked for it."""
    issued_at: datetime

    @property
    def correlation_id(self) -> str:
        return correlation_id(self.deployment_id, self.generation, self.worker_id)


class LoadCommand(Command):
    spec: DeploymentSpec


class ReloadCommand(Command):
    """Blue-green from `previous_digest` (what the planner believes runs) to `spec`."""

    spec: DeploymentSpec
    previous_version: str
    previous_digest: str
    recreate: bool = False
    """Not blue-green: the old version is taken down first, because the device cannot hold both."""


BEFORE_TAKE_DOWN = (
    "command_validation",
    "schema_compatibility_check",
    "code_checkout",
    "environment_preparation",
    "artifact_download",
    "checksum_validation",
)
"""The steps of a recreating RELOAD in which a failure leaves the old version serving; after them nothing serves."""


class UnloadCommand(Command):
    reason: UnloadReason


class CommandIntervals(Message):
    """The bounds of one command's delivery (DESIGN §3). Retries of *failures* are the device's business."""

    heartbeat_timeout: timedelta = timedelta(seconds=30)
    schedule_to_start: timedelta = timedelta(seconds=30)
    """When it fires, the command is issued again: harmless, by generation."""
    load_close: timedelta = timedelta(hours=2)
    unload_close: timedelta = timedelta(minutes=15)


class CommandProgress(Message):
    """The heartbeat details of a running command: which named step, and how far along (0 to 1) the whole is."""

    step: str
    progress: float
    detail: str = ""


class CommandResult(Message):
    deployment_id: str
    worker_id: str
    generation: int
    already_done: bool = False
    """True where the device had carried out this very generation before (a repeated delivery)."""
    state: ModelState
    version: str | None
    digest: str | None
    step_seconds: dict[str, float] = {}
    """Seconds spent in each named step."""
