"""What a RolloutWorkflow is asked and what it answers."""

from __future__ import annotations

from enum import StrEnum

from longshore.schemas.base import Message
from longshore.schemas.commands import Action, CommandIntervals
from longshore.schemas.failures import Failure
from longshore.schemas.plans import DeploymentPlan


class RolloutTarget(Message):
    """Bring one deployment to its plan. A target with a higher generation supersedes this one."""

    registry: str
    sha: str
    plan: DeploymentPlan
    reply_to: str
    """Workflow id of the commit that is answered, exactly once."""
    intervals: CommandIntervals = CommandIntervals()


class StartRollouts(Message):
    """One batch of targets; each is a signal-with-start of its deployment's rollout."""

    targets: tuple[RolloutTarget, ...]


class RolloutOutcome(StrEnum):
    DONE = "done"
    """Every command succeeded and every wanted replica has a place."""
    INCOMPLETE = "incomplete"
    """Every command succeeded, but not every wanted replica has a place."""
    FAILED = "failed"
    SUPERSEDED = "superseded"


class SlotResult(Message):
    worker_id: str
    action: Action
    failure: Failure | None = None
    seconds: float = 0.0
    step_seconds: dict[str, float] = {}


class RolloutAnswer(Message):
    deployment_id: str
    generation: int
    sha: str
    outcome: RolloutOutcome
    version: str | None
    results: tuple[SlotResult, ...] = ()
    message: str = ""


class SpecRequest(Message):
    """Ask the broker for the resolved spec of one deployment at one registry commit."""

    registry: str
    sha: str
    deployment_id: str
    digest: str
    """What the plan saw; a spec that now reads otherwise is refused with TAG_MOVED."""
