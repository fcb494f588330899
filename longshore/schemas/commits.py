"""What a RegistryCommitWorkflow is asked and what it answers: the result that an operator opens first."""

from __future__ import annotations

from enum import StrEnum

from longshore.schemas.base import Message
from longshore.schemas.commands import CommandIntervals
from longshore.schemas.held import Accepted
from longshore.schemas.issues import Audience, Issue, Severity
from longshore.schemas.rollouts import RolloutAnswer


class Telling(Message):
    """Through what people can be told of a commit. Addresses and tokens stay with the broker."""

    status_host: str | None = None
    """Kind of the git host that shows the commit's status; None where none does."""
    channels: dict[Audience, int] = {}
    """How many channels each audience has."""


class RegistryCommit(Message):
    """Starts the RegistryCommitWorkflow of one commit."""

    registry: str
    sha: str
    intervals: CommandIntervals = CommandIntervals()
    telling: Telling = Telling()


class ValidationResult(Message):
    """All issues of a commit at once, capped so that the payload stays far under Temporal's limit."""

    sha: str
    author: str = ""
    subject: str = ""
    issues: tuple[Issue, ...] = ()
    truncated: int = 0
    """How many issues were left out by the cap."""
    deployments: int = 0
    workers: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        return not self.errors

    @property
    def errors(self) -> int:
        """How many errors there are. They come first, so what the cap left out after nothing else is errors too."""
        shown = sum(issue.severity is Severity.ERROR for issue in self.issues)
        return shown + (self.truncated if shown == len(self.issues) else 0)


class CommitOutcome(StrEnum):
    APPLIED = "applied"
    PARTLY_APPLIED = "partly_applied"
    """Some deployment failed or found no place; the others run."""
    SUPERSEDED = "superseded"
    """Nothing failed, but a newer commit took over at least one deployment before this one was done with it."""
    REJECTED = "rejected"
    OUTDATED = "outdated"
    HISTORY_REWRITTEN = "history_rewritten"
    """Held back until an operator accepts it: it does not descend from the applied commit."""
    MASS_UNLOAD_BLOCKED = "mass_unload_blocked"
    """Held back until an operator accepts it: it would unload too much of what serves."""


class CommitResult(Message):
    sha: str
    outcome: CommitOutcome
    summary: str
    issues: tuple[Issue, ...] = ()
    answers: tuple[RolloutAnswer, ...] = ()
    accepted: tuple[Accepted, ...] = ()
    """Who has accepted what had held the commit back, and when."""


class RecordRequest(Message):
    """Write what happened back to git: the rejection, or the state and the failures (PRD §4.4, §4.5)."""

    registry: str
    result: CommitResult
