"""Who is told of a result, and in which words."""

from __future__ import annotations

import pytest

from longshore.schemas.commands import Action
from longshore.schemas.commits import CommitOutcome, CommitResult, Telling
from longshore.schemas.failures import FAILURES, Failure
from longshore.schemas.issues import Audience, Issue, Severity
from longshore.schemas.plans import Cause, CauseKind, Change, ChangeType, DeploymentPlan, Plan, PoolSuspicion
from longshore.schemas.reconciliations import Reconciliation, ReconciliationRecord, ReconciliationResult
from longshore.schemas.rollouts import RolloutAnswer, RolloutOutcome, SlotResult
from longshore.schemas.telling import (
    LONGEST_NOTICE,
    CommitState,
    aftermath,
    alarm,
    audiences,
    ended,
    failed_models,
    intentions_unasked,
    notice,
)

OPS, ML = Audience.OPS, Audience.ML
MANIFEST = Issue(code="MANIFEST_INVALID", file="models/a.yaml", line=5, place="deployment_config", message="no number")
CARD = Issue(code="CARD_INVALID", file="https://git/fraud@v1:card.yaml", message="no owner", told=(OPS, ML))
WARNING = CARD.model_copy(update={"severity": Severity.WARNING})


def result(outcome: CommitOutcome, *issues: Issue, answers: tuple[RolloutAnswer, ...] = ()) -> CommitResult:
    return CommitResult(sha="c" * 40, outcome=outcome, summary="in one line", issues=issues, answers=answers)


def answer(deployment: str, outcome: RolloutOutcome, code: str | None = None) -> RolloutAnswer:
    slots = (SlotResult(worker_id="w", action=Action.LOAD, failure=Failure(code=code, message="why")),) if code else ()
    return RolloutAnswer(
        deployment_id=deployment,
        generation=1,
        sha="c" * 40,
        outcome=outcome,
        version="1",
        results=slots,
        message="said",
    )


@pytest.mark.parametrize(
    ("outcome", "issues", "told"),
    [
        (CommitOutcome.APPLIED, (), ()),
        (CommitOutcome.APPLIED, (WARNING,), ()),
        (CommitOutcome.SUPERSEDED, (), ()),
        (CommitOutcome.OUTDATED, (), ()),
        (CommitOutcome.REJECTED, (MANIFEST,), (OPS,)),
        (CommitOutcome.REJECTED, (MANIFEST, WARNING), (OPS,)),
        (CommitOutcome.REJECTED, (MANIFEST, CARD), (OPS, ML)),
        (CommitOutcome.PARTLY_APPLIED, (WARNING,), (OPS,)),
        (CommitOutcome.HISTORY_REWRITTEN, (), (OPS,)),
    ],
)
def test_who_is_told(outcome: CommitOutcome, issues: tuple[Issue, ...], told: tuple[Audience, ...]) -> None:
    """PRD §5.1's table: nobody of what is in order, ops of all else, the ML team of its cards."""
    assert audiences(result(outcome, *issues)) == told


def test_every_outcome_is_told_to_someone_or_in_order() -> None:
    """A new outcome is a failure until somebody says that it is none."""
    for outcome in CommitOutcome:
        failed = ended("ops", result(outcome)).state is CommitState.FAILURE
        assert failed == bool(audiences(result(outcome)))


def test_each_audience_reads_what_concerns_it() -> None:
    """Code, place, message and remedy of each finding; the ML team only those of its cards."""
    rejected = result(CommitOutcome.REJECTED, MANIFEST, CARD, WARNING)
    ops, ml = notice("ops", rejected, OPS), notice("ops", rejected, ML)
    assert ops.title == ml.title == "Longshore: commit cccccccccc of ops: rejected"
    assert ops.body.splitlines() == [
        "in one line",
        "- models/a.yaml:5 (deployment_config): MANIFEST_INVALID: no number",
        f"  {FAILURES['MANIFEST_INVALID'].remedy}",
        "- https://git/fraud@v1:card.yaml: CARD_INVALID: no owner",
        f"  {FAILURES['CARD_INVALID'].remedy}",
    ]
    assert "MANIFEST_INVALID" not in ml.body
    assert "CARD_INVALID" in ml.body


def test_ops_read_which_deployments_failed() -> None:
    """And the remedy of each of their failures, not those that are done."""
    answers = (
        answer("fraud", RolloutOutcome.FAILED, "RUNNER_OOM"),
        answer("ten", RolloutOutcome.DONE),
        answer("wide", RolloutOutcome.INCOMPLETE),
    )
    body = notice("ops", result(CommitOutcome.PARTLY_APPLIED, answers=answers), OPS).body
    assert body.splitlines()[1:] == [
        "- fraud failed: said",
        f"  RUNNER_OOM: {FAILURES['RUNNER_OOM'].remedy}",
        "- wide incomplete: said",
    ]


def test_a_notice_is_short_and_keeps_secrets() -> None:
    """Of a thousand findings some are shown; what they quote is redacted."""
    secret = MANIFEST.model_copy(update={"message": "token=hunter2 " + "x" * 5_000})
    told = notice("ops", result(CommitOutcome.REJECTED, *[secret] * 1000), OPS)
    assert len(told.body) <= LONGEST_NOTICE
    assert "hunter2" not in told.body
    few = notice("ops", result(CommitOutcome.REJECTED, *[MANIFEST] * 25), OPS)
    assert few.body.endswith("… and 5 more")


def test_the_status_has_the_first_error_and_how_many_there_are() -> None:
    """Nobody has to open anything to see what it is about."""
    one = ended("ops", result(CommitOutcome.REJECTED, WARNING, MANIFEST))
    assert one.description == "models/a.yaml:5 (deployment_config): MANIFEST_INVALID: no number"
    assert one.state is CommitState.FAILURE
    two = ended("ops", result(CommitOutcome.REJECTED, MANIFEST, CARD))
    assert two.description == f"2 errors, first {one.description}"
    applied = ended("ops", result(CommitOutcome.APPLIED, WARNING))
    assert (applied.state, applied.description) == (CommitState.SUCCESS, "in one line")
    leaky = MANIFEST.model_copy(update={"message": "password=hunter2"})
    assert "hunter2" not in ended("ops", result(CommitOutcome.REJECTED, leaky)).description


def reconciled(kind: CauseKind, *answers: RolloutAnswer) -> ReconciliationResult:
    broken = any(answer.outcome is not RolloutOutcome.DONE for answer in answers)
    return ReconciliationResult(
        sha="c" * 40,
        outcome=CommitOutcome.PARTLY_APPLIED if broken else CommitOutcome.APPLIED,
        summary="in one line",
        cause=Cause(kind=kind, words="why"),
        generation=42,
        answers=answers,
    )


def planned(kind: CauseKind, *suspects: PoolSuspicion) -> Reconciliation:
    change = Change(type=ChangeType.UNRESPONSIVE_WORKER, deployment_id="fraud", reason="worker-a has failed")
    deployment = DeploymentPlan(
        deployment_id="fraud", generation=42, version="1", digest="d", replicas=1, changes=(change,), commands=()
    )
    plan = Plan(sha="c" * 40, generation=42, deployments=(deployment,), suspects=suspects)
    return Reconciliation(registry="ops", sha="c" * 40, plan=plan, cause=Cause(kind=kind, words="why"))


def test_ops_are_told_at_once_of_what_has_failed() -> None:
    """PRD §5.5 step 6: the failure and what is done about it; of a drift that is mended nobody is."""
    told = alarm(planned(CauseKind.WORKER_FAILED))
    assert told is not None
    assert told.title == "Longshore: ops: worker failed"
    assert told.body.splitlines() == ["why", "- fraud: worker-a has failed"]
    suspect = alarm(planned(CauseKind.DRIFT, PoolSuspicion(pool="production", unhealthy=3, alive_before=5)))
    assert suspect is not None
    assert suspect.title == "Longshore: ops: fleet suspect"
    assert FAILURES["FLEET_SUSPECT"].remedy in suspect.body
    assert alarm(planned(CauseKind.DRIFT)) is None


def test_ops_are_told_in_the_end_of_what_is_still_broken() -> None:
    """The deployments that are not as they should be, with remedies; nobody is told where all is."""
    told = aftermath("ops", reconciled(CauseKind.DRIFT, answer("fraud", RolloutOutcome.FAILED, "RUNNER_OOM")))
    assert told is not None
    assert told.title == "Longshore: reconciliation 42 of ops: partly applied"
    assert FAILURES["RUNNER_OOM"].remedy in told.body
    assert aftermath("ops", reconciled(CauseKind.DRIFT, answer("fraud", RolloutOutcome.DONE))) is None


@pytest.mark.parametrize(
    ("kind", "code", "entries"),
    [
        (CauseKind.WORKER_FAILED, "MODEL_LOAD_FAILED", ["- fraud failed: said"]),
        (CauseKind.DRIFT, "CHECKSUM_MISMATCH", ["- fraud failed: said"]),
        (CauseKind.DRIFT, "RUNNER_OOM", ["- fraud failed: said"]),
        (CauseKind.WORKER_FAILED, "DEVICE_UNREACHABLE", None),
        (CauseKind.WORKER_FAILED, "PREEMPTION_FAILED", None),
        (CauseKind.MODEL_FAILED, "DEVICE_UNREACHABLE", []),
    ],
)
def test_the_ml_team_is_told_of_models_that_failed(kind: CauseKind, code: str, entries: list[str] | None) -> None:
    """What is wrong with a model is theirs, what with a device or its room is not; None: nothing is told."""
    broken = (answer("fraud", RolloutOutcome.FAILED, code), answer("ten", RolloutOutcome.INCOMPLETE))
    told = failed_models("ops", reconciled(kind, *broken))
    assert (told and [line for line in told.body.splitlines() if line.startswith("-")]) == entries
    assert failed_models("ops", reconciled(kind, answer("fraud", RolloutOutcome.DONE))) is None


@pytest.mark.parametrize(
    ("kind", "answers", "teams"),
    [
        (CauseKind.WORKER_FAILED, (answer("fraud", RolloutOutcome.DONE),), ["ops"]),
        (CauseKind.DRIFT, (answer("fraud", RolloutOutcome.DONE),), []),
        (CauseKind.DRIFT, (answer("fraud", RolloutOutcome.INCOMPLETE),), ["ops"]),
        (CauseKind.MODEL_FAILED, (answer("fraud", RolloutOutcome.FAILED, "RUNNER_OOM"),), ["ops", "ml"]),
    ],
)
def test_the_error_file_of_a_reconciliation_says_who_will_be_told(
    kind: CauseKind, answers: tuple[RolloutAnswer, ...], teams: list[str]
) -> None:
    """Only whom the notices are for, and who has a channel."""
    record = ReconciliationRecord(registry="ops", plan=planned(kind).plan, result=reconciled(kind, *answers))
    told = list(intentions_unasked(record, Telling(channels={OPS: 2, ML: 2})))
    assert told == [f"Notifying the {team} team once this is written (channels: 2)" for team in teams]
    assert list(intentions_unasked(record, Telling())) == []
