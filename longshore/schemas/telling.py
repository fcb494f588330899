"""Who is told of a result, and in which words (PRD §5.1 "Validation Results"; §5.5 for what is done unasked). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

from longshore.schemas.base import Message
from longshore.schemas.commits import CommitOutcome, CommitResult, Telling
from longshore.schemas.failures import FAILURES, Category
from longshore.schemas.issues import Audience, Issue, Severity
from longshore.schemas.plans import CauseKind, Plan
from longshore.schemas.reconciliations import Reconciliation, ReconciliationRecord, ReconciliationResult
from longshore.schemas.redaction import beginning
from longshore.schemas.rollouts import RolloutAnswer, RolloutOutcome, SlotResult
from longshore.schemas.wording import short

# Chat services refuse or fold longer messages; the workflow and the error file have the rest.
LONGEST_NOTICE = 4_000
ENTRIES_SHOWN = 20
_LONGEST_ENTRY = 500

# The commit is in order; nobody has to do anything. What is not named here fails the status and calls for ops.
IN_ORDER = frozenset({CommitOutcome.APPLIED, CommitOutcome.SUPERSEDED, CommitOutcome.OUTDATED})

_BROKEN = frozenset({RolloutOutcome.FAILED, RolloutOutcome.INCOMPLETE})

# What a model's card, code or files can mend, as what it takes of a device's memory can.
_OF_THE_MODEL = frozenset({Category.ARTIFACT, Category.CONFIGURATION, Category.RUNTIME})

# What somebody should look into, also where it mends itself; of the rest only what does not is told.
_ALARMING = frozenset({CauseKind.WORKER_FAILED, CauseKind.REBUILD})


class CommitState(StrEnum):
    """What a git host shows beside a commit."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"


class StatusRequest(Message):
    """Show this beside the commit, in place of what was shown before."""

    registry: str
    sha: str
    state: CommitState
    description: str


class Notice(Message):
    title: str
    body: str


class NotifyRequest(Message):
    """Send a notice by one channel, known by its place among those of its audience: its URL holds a token."""

    registry: str
    sha: str
    """The commit that it is about; empty where it is about none."""
    audience: Audience
    channel: int
    notice: Notice


class Alarm(Message):
    """Tell ops of what neither a commit nor a reconciliation can tell."""

    registry: str
    notice: Notice
    sha: str = ""
    """The commit that it is about, where there is one."""
    telling: Telling = Telling()


class Delivery(StrEnum):
    TOLD = "told"
    PERHAPS = "perhaps"
    """It was being sent when its sender died or lost patience: sending again might tell it twice."""


class Delivered(Message):
    delivery: Delivery


def begun(registry: str, sha: str) -> StatusRequest:
    """Return the status of a commit that has just been found."""
    description = "validating, then rolling out"
    return StatusRequest(registry=registry, sha=sha, state=CommitState.PENDING, description=description)


def ended(registry: str, result: CommitResult) -> StatusRequest:
    """Return the status of a commit with its result: the first error and how many there are, or the summary."""
    state = CommitState.SUCCESS if result.outcome in IN_ORDER else CommitState.FAILURE
    errors = _errors(result)
    description = result.summary
    if errors and state is CommitState.FAILURE:
        description = str(errors[0]) if len(errors) == 1 else f"{len(errors)} errors, first {errors[0]}"
    return StatusRequest(registry=registry, sha=result.sha, state=state, description=beginning(description, 500))


def audiences(result: CommitResult) -> tuple[Audience, ...]:
    """Return who must learn of it: ops of all that is not in order, the ML team of what is wrong with its cards."""
    if result.outcome in IN_ORDER:
        return ()
    concerned = {audience for issue in _errors(result) for audience in issue.told}
    return tuple(audience for audience in Audience if audience is Audience.OPS or audience in concerned)


def notice(registry: str, result: CommitResult, audience: Audience) -> Notice:
    """Return what this audience is told: codes, places and remedies, redacted and capped."""
    entries = [_finding(issue) for issue in _errors(result) if audience is Audience.OPS or audience in issue.told]
    if audience is Audience.OPS:
        entries += [_failure(answer) for answer in result.answers if answer.outcome in _BROKEN]
    outcome = result.outcome.replace("_", " ")
    return _notice(f"Longshore: commit {short(result.sha)} of {registry}: {outcome}", result.summary, entries)


def alarm(asked: Reconciliation) -> Notice | None:
    """Return what ops is told as a reconciliation begins: what has failed, and what is done about it unasked."""
    plan, kind = asked.plan, asked.cause.kind
    if not plan.suspects and kind not in _ALARMING:
        return None
    entries = [
        f"- pool {one.pool}: {one.unhealthy} of {one.alive_before} devices are silent\n"
        f"  FLEET_SUSPECT: {FAILURES['FLEET_SUSPECT'].remedy}"
        for one in plan.suspects
    ]
    what = "fleet suspect" if plan.suspects else kind.replace("_", " ")
    return _notice(f"Longshore: {asked.registry}: {what}", asked.cause.words, [*entries, *_intended(plan)])


def defect(registry: str, workflow_id: str, run_id: str, error: str) -> Notice:
    """Return what ops is told of a run that a defect of ours has ended (FAULTS 60)."""
    entry = f"- run {run_id}: {error}\n  WORKFLOW_BUG: {FAILURES['WORKFLOW_BUG'].remedy}"
    summary = f"{workflow_id} has failed; what runs on the devices goes on"
    return _notice(f"Longshore: {registry}: workflow bug", summary, [entry])


def aftermath(registry: str, result: ReconciliationResult) -> Notice | None:
    """Return what ops is told once a reconciliation has ended; nothing, where all is as it should be."""
    if result.outcome in IN_ORDER:
        return None
    entries = [_failure(answer) for answer in result.answers if answer.outcome in _BROKEN]
    outcome = result.outcome.replace("_", " ")
    title = f"Longshore: reconciliation {result.generation} of {registry}: {outcome}"
    return _notice(title, result.summary, entries)


def failed_models(registry: str, result: ReconciliationResult) -> Notice | None:
    """Return what the ML team is told once a reconciliation has ended: which of its models failed by themselves."""
    broken = [answer for answer in result.answers if answer.outcome in _BROKEN]
    concerning = [answer for answer in broken if any(map(_is_of_the_model, answer.results))]
    if not concerning and not (broken and result.cause.kind is CauseKind.MODEL_FAILED):
        return None
    entries = [_failure(answer) for answer in concerning]
    title = f"Longshore: {registry}: models failed in reconciliation {result.generation}"
    return _notice(title, result.summary, entries)


def intentions(result: CommitResult, telling: Telling) -> Iterator[str]:
    """Say whom the settings have told. An error file is written first: it cannot say that somebody has been told."""
    yield from _notifying(audiences(result), telling)
    if telling.status_host:
        yield f"Setting the commit's status on {telling.status_host} once this is written"


def intentions_unasked(record: ReconciliationRecord, telling: Telling) -> Iterator[str]:
    """Say, as `intentions`, who is told of a reconciliation, whether or not all of it has ended."""
    result = record.result
    begun = Reconciliation(registry=record.registry, sha=result.sha, plan=record.plan, cause=result.cause)
    broken = any(answer.outcome in _BROKEN for answer in result.answers)
    concerned = {
        Audience.OPS: broken or alarm(begun) is not None,
        Audience.ML: failed_models(record.registry, result) is not None,
    }
    yield from _notifying([audience for audience, is_told in concerned.items() if is_told], telling)


def _notifying(concerned: Iterable[Audience], telling: Telling) -> Iterator[str]:
    for audience in concerned:
        if channels := telling.channels.get(audience, 0):
            yield f"Notifying the {audience} team once this is written (channels: {channels})"


def _notice(title: str, summary: str, entries: Sequence[str]) -> Notice:
    left_out = len(entries) - ENTRIES_SHOWN
    more = [f"… and {left_out} more"] if left_out > 0 else []
    return Notice(title=title, body=beginning("\n".join([summary, *entries[:ENTRIES_SHOWN], *more]), LONGEST_NOTICE))


def _intended(plan: Plan) -> list[str]:
    return [f"- {d.deployment_id}: {'; '.join(change.reason for change in d.changes)}" for d in plan.deployments]


def _errors(result: CommitResult) -> list[Issue]:
    return [issue for issue in result.issues if issue.severity is Severity.ERROR]


def _finding(issue: Issue) -> str:
    return f"- {beginning(str(issue), _LONGEST_ENTRY)}\n  {issue.remedy}"


def _is_of_the_model(slot: SlotResult) -> bool:
    return slot.failure is not None and (
        slot.failure.kind.category in _OF_THE_MODEL or slot.failure.code == "RUNNER_OOM"
    )


def _failure(answer: RolloutAnswer) -> str:
    remedies = {slot.failure.code: slot.failure.remedy for slot in answer.results if slot.failure}
    told = "".join(f"\n  {code}: {remedy}" for code, remedy in remedies.items())
    return f"- {answer.deployment_id} {answer.outcome}: {beginning(answer.message, _LONGEST_ENTRY)}{told}"
