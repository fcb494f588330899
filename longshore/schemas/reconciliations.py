"""What a ReconciliationWorkflow is asked and what it answers, and how the fleet finds out that one is needed."""

from __future__ import annotations

from datetime import datetime, timedelta

from longshore.schemas.base import Message
from longshore.schemas.commands import CommandIntervals
from longshore.schemas.commits import CommitOutcome, Telling
from longshore.schemas.devices import DeviceRecord
from longshore.schemas.plans import Cause, Plan
from longshore.schemas.rollouts import RolloutAnswer


class Reconciliation(Message):
    """Starts the ReconciliationWorkflow of one plan. The fleet has planned it and reserved for it already."""

    registry: str
    sha: str
    """The applied commit."""
    plan: Plan
    cause: Cause
    since: datetime | None = None
    """When the first sign of it was noted; of an alarm, when it was raised."""
    intervals: CommandIntervals = CommandIntervals()
    telling: Telling = Telling()


class ReconciliationResult(Message):
    sha: str
    outcome: CommitOutcome
    """APPLIED, PARTLY_APPLIED or SUPERSEDED."""
    summary: str
    cause: Cause
    generation: int
    answers: tuple[RolloutAnswer, ...] = ()


class ReconciliationRecord(Message):
    """Write to git what was done by itself, and why: the state, and an error file where something had failed."""

    registry: str
    plan: Plan
    result: ReconciliationResult
    workflow_id: str = ""
    """Whose result it is; of an older run, that of its generation."""


class HearDevices(Message):
    """Ask each DeviceWorkflow what it knows: they tell changes only, and a new ledger has heard none."""

    registry: str
    workers: tuple[str, ...]


class Heard(Message):
    records: tuple[DeviceRecord, ...] = ()
    """Without the devices whose workflow does not answer."""


class LastAppliedRequest(Message):
    """Ask git which commit was applied last: the ledger has lost it."""

    registry: str


class LastApplied(Message):
    sha: str | None
    """By the recorded state or a commit's workflow, else the newest valid ancestor of the head; None: there is none."""
    generation: int = 0
    """As the recorded state or the commit's workflow says; 0 where neither does."""
    workers: tuple[str, ...] = ()
    """The devices that the commit configures."""


class DriftWatch(Message):
    """Look at the fleet every `interval`, and come back when there is something to do."""

    registry: str
    interval: timedelta


class DriftFound(Message):
    cause: Cause
    orphaned: tuple[str, ...] = ()
    """Deployments with slots under way that no running rollout sees to, twice in a row."""


class RecordWatch(Message):
    """Keep the state in git up to date; `seen_version` is the ledger's version that is written already."""

    registry: str
    seen_version: int
