"""What a RolloutWorkflow is asked and what it answers."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from longshore.schemas.base import Message
from longshore.schemas.commands import Action, CommandIntervals, UnloadReason
from longshore.schemas.failures import Failure
from longshore.schemas.plans import Awaited, DeploymentPlan


class Steering(Message):
    """An operator's word to a running rollout (signal `steer`). What a device has begun is never broken off."""

    kind: Literal["pause", "resume", "abort"]
    """pause: begin no further command. abort: end those not yet begun with ABORTED, or QUARANTINED."""
    generation: int | None = None
    """The target that is meant; None: whichever is under way."""
    reason: str = ""
    by: str = ""
    code: str = "ABORTED"
    """With abort: the failure code of what is not begun any more."""


class RolloutTarget(Message):
    """Bring one deployment to its plan. A target with a higher generation supersedes this one."""

    registry: str
    sha: str
    plan: DeploymentPlan
    reply_to: str
    """Workflow id of the commit or reconciliation that is answered, exactly once."""
    intervals: CommandIntervals = CommandIntervals()
    cause: str = ""
    """Why, in words, where it is not a new commit."""
    reply_also: tuple[str, ...] = ()
    """Who awaited targets of the same commit that this one has superseded: they get this one's answer."""
    outdated: bool = False
    """Handed over late, when the ledger has other plans: a rollout that does not know it carries nothing of it out."""
    steering: Steering | None = None
    """The word with which it begins: what an operator said while it was planned, or on its way."""


class RolloutInput(Message):
    """What a rollout's run that has grown long hands on to the next one."""

    target: RolloutTarget
    """The newest, not begun yet; its `reply_also` names everybody who awaits it."""
    known: tuple[tuple[int, str], ...] = ()
    """Generation and `reply_to` of the targets that were taken in, for those that are delivered again."""
    steering: Steering | None = None
    """An operator's word to that target."""


class FreedRequest(Message):
    """Wait until all these slots are gone from the ledger, or one of them is to stay."""

    registry: str
    slots: tuple[Awaited, ...]


class Freed(Message):
    outcome: Literal["freed", "kept"]
    words: str = ""
    """With kept: which slot stays, and why."""


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
    unload_reason: UnloadReason | None = None
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
    held: str = ""
    """What kept the version from being brought anywhere, as the plan says it."""
    given_up: bool = False
    """Whether each replica that is lacking has failed and is not tried any more: room would not help."""


class SpecRequest(Message):
    """Ask the broker for the resolved spec of one deployment at one registry commit."""

    registry: str
    sha: str
    deployment_id: str
    digest: str
    """What the plan saw; a spec that now reads otherwise is refused with TAG_MOVED."""
