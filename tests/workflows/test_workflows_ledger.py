"""The fleet's ledger without Temporal: what it believes, what it doubts, and when it wants to plan."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from longshore.schemas.commands import Action
from longshore.schemas.devices import DeviceRecord, DeviceStatus, Health, Told
from longshore.schemas.drift import ROLLED_BACK
from longshore.schemas.failures import LongshoreError
from longshore.schemas.fleet import (
    FleetInput,
    Open,
    PlanAnswer,
    PlanOutcome,
    PlanRequest,
    SlotSettled,
)
from longshore.schemas.held import Acceptance
from longshore.schemas.ledger import stamp
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.orders import Hold, Order
from longshore.schemas.plans import (
    Cause,
    CauseKind,
    Change,
    ChangeType,
    Deferred,
    DeploymentPlan,
    Goal,
    Plan,
    PlannedCommand,
    PoolSuspicion,
)
from longshore.schemas.reconciliations import DriftFound, LastApplied
from longshore.schemas.slots import Demand, Slot
from longshore.workflows.causes import news
from longshore.workflows.ledger import REBUILD_LEAP, Ledger

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GRACE = timedelta(seconds=10)
PAUSE = timedelta(seconds=1)
SHA = "a" * 40
DIGEST = "d" * 64
OLD = "0" * 64
OTHER = "f" * 64
READY, FAILED, LOADING, RELOADING, UNLOADING, IDLE = (
    ModelState.READY,
    ModelState.FAILED,
    ModelState.LOADING,
    ModelState.RELOADING,
    ModelState.UNLOADING,
    ModelState.IDLE,
)


def seconds(count: float) -> datetime:
    return NOW + timedelta(seconds=count)


def slot(state: ModelState = READY, worker_id: str = "w", deployment_id: str = "m", **facts) -> Slot:
    known = {"generation": 5, "version": "1.0.0", "digest": DIGEST, "priority": 50, "demand": Demand(memory=1), **facts}
    if state is RELOADING:
        known |= {"previous_version": "0.9.0", "previous_digest": OLD, "previous_demand": Demand(memory=1)}
    return Slot(deployment_id=deployment_id, worker_id=worker_id, state=state, **known)


def told(
    state: ModelState | None = None,
    generation: int = 5,
    digest: str = DIGEST,
    code: str | None = None,
    *,
    worker_id: str = "w",
    seen: int = 5,
    health: Health = Health.HEALTHY,
    **facts,
) -> DeviceRecord:
    """Return the record of a device that has seen generation `seen` and says `state` of m (None: nothing)."""
    slots = {} if state is None else {"m": str(Told(state, generation, digest[:8], code))}
    return DeviceRecord(
        worker_id=worker_id,
        health=health,
        status=DeviceStatus.HEALTHY,
        boot_id="b",
        slots=slots,
        generation=seen,
        **facts,
    )


def ledger(*slots: Slot, **facts) -> Ledger:
    known = {"registry": "r", "applied_sha": SHA, "generation": 5, "slots": slots, "rebuilt": True, **facts}
    known.setdefault("devices", {name: told(worker_id=name, seen=0) for name in ("w", "x", "y", "z")})
    return Ledger(FleetInput(**known))


def standing(book: Ledger, worker_id: str = "w") -> Slot | None:
    return next((one for one in book.state.slots if one.worker_id == worker_id), None)


def kinds(book: Ledger) -> set[CauseKind]:
    return {cause.kind for cause in book.state.causes}


def settled(state: ModelState, worker_id: str = "w", generation: int = 5, **facts) -> SlotSettled:
    return SlotSettled(deployment_id="m", worker_id=worker_id, generation=generation, state=state, **facts)


def commit(sha: str = "b" * 40, request_id: str = "1") -> PlanRequest:
    return PlanRequest(request_id=request_id, registry="r", sha=sha, workers=("w", "x"))


def answer(request: PlanRequest, *deployments: DeploymentPlan, generation: int = 6, **facts) -> PlanAnswer:
    workers, goals = ("w", "x", "y", "z"), {"m": Goal(version="1.0.0", replicas=1)}
    known = {"workers": workers, "goals": goals, "cause": request.cause, **facts}
    plan = Plan(sha=request.sha, generation=generation, deployments=deployments, **known)
    return PlanAnswer(
        request_id=request.request_id,
        sha=request.sha,
        outcome=PlanOutcome.PLANNED,
        applied_sha=request.sha,
        plan=plan,
    )


def deployment(*commands: PlannedCommand, **facts) -> DeploymentPlan:
    known = {"generation": 6, "version": "1.0.0", "digest": DIGEST, "replicas": 1, "changes": (), **facts}
    return DeploymentPlan(deployment_id="m", commands=commands, **known)


def reconciled(book: Ledger, now: datetime, *deployments: DeploymentPlan) -> Cause | None:
    """Plan what is due, as the driver does; `deployments` is what comes out. Return why."""
    cause, _ = book.due(now)
    if cause is not None:
        request = book.reconciliation(cause)
        generation = book.ask(request, now).generation + bool(deployments)
        book.planned(answer(request, *deployments, generation=generation), now)
    return cause


# What a report says against the ledger: (ledger, report, at once, after the grace). None: the slot is gone.
ROWS = {
    "ready as known": (slot(), told(READY), READY, READY),
    "ready in a newer generation": (slot(), told(READY, 7, seen=7), READY, READY),
    "failed": (slot(), told(FAILED, code="RUNNER_CRASHED"), FAILED, FAILED),
    "a crash is brought up again": (slot(), told(LOADING), READY, READY),
    "something newer is under way": (slot(), told(RELOADING, 7, seen=7), READY, READY),
    "late: of an older generation": (slot(), told(FAILED, 4, seen=4), READY, READY),
    "late: nothing was there yet": (slot(), told(seen=4), READY, READY),
    "not there any more": (slot(), told(), READY, None),
    "idle": (slot(), told(IDLE, digest=""), READY, None),
    "rolled back to nothing": (slot(), told(seen=0, flags=(ROLLED_BACK,)), READY, None),
    "rolled back to a failure": (slot(), told(FAILED, 3, seen=3, flags=(ROLLED_BACK,)), READY, FAILED),
    "loaded, and the letter is lost": (slot(LOADING), told(READY), LOADING, READY),
    "loads still": (slot(LOADING), told(LOADING, digest=""), LOADING, LOADING),
    "failed, and tries again": (slot(LOADING), told(FAILED, digest="", code="STORAGE_UNAVAILABLE"), LOADING, LOADING),
    "failed for good": (slot(LOADING), told(FAILED, digest="", code="RUNNER_OOM"), LOADING, FAILED),
    "refused": (slot(LOADING), told(IDLE, digest="", code="CAPACITY_INSUFFICIENT"), LOADING, FAILED),
    "has not heard of the LOAD": (slot(LOADING), told(), LOADING, LOADING),
    "serves of before the LOAD": (slot(LOADING), told(READY, 4, seen=4), LOADING, LOADING),
    "reloaded": (slot(RELOADING), told(READY), RELOADING, READY),
    "the old version before its RELOAD": (slot(RELOADING), told(READY, 4, OLD, seen=4), RELOADING, RELOADING),
    "the old version, RELOAD in the queue": (slot(RELOADING), told(READY, 5, OLD), RELOADING, RELOADING),
    "unloaded": (slot(UNLOADING), told(), UNLOADING, None),
    "not there, and has not heard of the UNLOAD": (slot(UNLOADING), told(seen=4), UNLOADING, UNLOADING),
    "there before the UNLOAD": (slot(UNLOADING), told(READY, 4, seen=5), UNLOADING, UNLOADING),
    "failed, and is READY after all": (slot(FAILED, code="LOAD_TIMEOUT"), told(READY), READY, READY),
    "failed, and not there": (slot(FAILED, code="DEVICE_UNREACHABLE"), told(), FAILED, FAILED),
    "replaced: ready": (slot(LOADING, replaced=True), told(READY, 3, seen=3), READY, READY),
    "replaced: gone": (slot(RELOADING, replaced=True), told(seen=3), None, None),
    "replaced: failed": (slot(replaced=True), told(FAILED, 3, seen=3, code="LOAD_TIMEOUT"), FAILED, FAILED),
    "a device that is silent": (slot(), told(seen=7, health=Health.SUSPECT), READY, READY),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_report_against_the_ledger(row):
    """What counts at once, and what only when nothing has explained it."""
    known, record, at_once, later = ROWS[row]
    book = ledger(known)
    if known.state is READY and not known.replaced:
        book.heard(told(READY), NOW)
    book.heard(record, NOW)
    assert (one := standing(book)) is None or one.state is at_once, one
    book.due(NOW + GRACE)
    assert (standing(book) and standing(book).state) is later
    assert book.due(NOW + GRACE)[1] in (None, NOW + PAUSE, NOW + GRACE + PAUSE) or later is FAILED


def test_another_version_than_known_is_the_devices_word():
    """Its digest is known in part, its version not at all: the next plan reloads it."""
    book = ledger(slot())
    book.heard(told(READY, 6, OTHER, seen=6), NOW)
    assert [(one.version, one.digest, one.generation) for one in book.state.slots] == [("?", OTHER[:8], 5)]
    assert (kinds(book), book.state.generation) == ({CauseKind.DRIFT}, 6)


def test_a_reload_that_failed_for_good_is_the_old_versions():
    """Told by the device alone, where the rollout's letter is lost."""
    book = ledger(slot(RELOADING))
    book.heard(told(READY, 5, OLD, "VALIDATION_FAILED"), NOW)
    book.due(NOW + GRACE)
    (one,) = book.state.slots
    assert (one.state, one.version, one.digest, one.code) == (READY, "0.9.0", OLD, "VALIDATION_FAILED")
    assert book.state.broken["m"].digest == DIGEST


def test_a_doubt_is_gone_when_something_explains_it():
    """The device was faster than the rollout, or the next report says otherwise."""
    book = ledger(slot(LOADING))
    book.heard(told(READY), NOW)
    book.settled(settled(READY, digest=DIGEST), seconds(1))
    assert (book.state.doubts, book.due(seconds(60))) == ((), (None, None))
    book.heard(told(seen=6), seconds(61))
    assert book.due(seconds(61)) == (None, seconds(71))
    book.heard(told(READY), seconds(62))
    assert (book.state.doubts, book.due(seconds(90))) == ((), (None, None))


def test_what_a_device_said_before_its_command_ended_is_a_doubt_at_most():
    """It had failed and tried again by itself; the rollout tells that it serves, and its next report is on the way."""
    book = ledger(slot(LOADING))
    book.heard(told(FAILED, digest="", code="STORAGE_UNAVAILABLE"), NOW)
    book.settled(settled(READY, digest=DIGEST), seconds(1))
    assert (standing(book).state, book.due(seconds(1))) == (READY, (None, seconds(61)))
    book.due(seconds(60))
    assert standing(book).state is READY
    book.due(seconds(61))
    assert standing(book).state is FAILED


def test_what_a_device_has_never_told_of_is_not_taken_for_gone_so_soon():
    """Two LOADs of one plan end on it: its report of the first comes after both, that of the second later still."""
    book = ledger(slot(LOADING), slot(deployment_id="other"), devices={"w": told(seen=5)})
    book.settled(settled(READY, digest=DIGEST), NOW)
    other = {"other": str(Told(READY, 5, DIGEST[:8]))}
    book.heard(told().model_copy(update={"slots": other}), seconds(1))
    book.due(seconds(30))
    assert standing(book).state is READY
    book.heard(told(READY).model_copy(update={"slots": told(READY).slots | other}), seconds(30))
    assert (book.state.doubts, book.due(seconds(90)), kinds(book)) == ((), (None, None), set())
    book.heard(told().model_copy(update={"slots": other}), seconds(100))
    assert book.due(seconds(100)) == (None, seconds(110))
    book.due(seconds(110))
    assert standing(book).deployment_id == "other"


def test_a_command_that_was_never_begun_has_not_failed():
    """An operator has aborted the rollout: the slot is as it was, and waits for no retry."""
    book = ledger(slot(UNLOADING, before=READY))
    book.settled(settled(READY, digest=DIGEST, code="ABORTED", begun=False), NOW)
    assert (standing(book).state, standing(book).failures, book.due(seconds(60))) == (READY, 0, (None, None))
    book = ledger(slot(RELOADING))
    book.settled(settled(READY, digest=OLD, code="ABORTED", begun=False), NOW)
    assert (standing(book).digest, standing(book).failures, book.due(seconds(60))) == (OLD, 0, (None, None))


def test_a_doubt_that_is_told_again_does_not_begin_anew():
    """A chatty device would never be believed."""
    book = ledger(slot(), devices={"w": told(READY)})
    for second in range(0, 10, 3):
        book.heard(told(), seconds(second))
    book.due(NOW + GRACE)
    assert (book.state.slots, kinds(book)) == ((), {CauseKind.DRIFT})


def test_a_rolled_back_device_says_so_once_and_is_remembered():
    """Its next report is as its last one, so its own workflow sees nothing odd any more."""
    book = ledger(slot())
    book.heard(told(seen=0, flags=(ROLLED_BACK,)), NOW)
    book.heard(told(seen=0, draining=True), seconds(1))
    book.due(NOW + GRACE)
    assert book.state.slots == ()
    book = ledger(slot())
    book.heard(told(seen=0, flags=(ROLLED_BACK,)), NOW)
    book.heard(told(READY, 6, seen=6), seconds(1))
    assert ROLLED_BACK not in book.state.devices["w"].flags


def test_what_the_ledger_does_not_know_is_drift_once():
    """It is adopted by the next plan; a plan that does not is not repeated."""
    book = ledger()
    book.heard(told(LOADING, digest=""), NOW)
    assert reconciled(book, NOW + PAUSE).words == "w holds m, of which the ledger does not know"
    book.heard(told(LOADING, 6, digest=""), seconds(2))
    assert book.due(seconds(60)) == (None, None)


def test_what_was_unloaded_is_gone_though_an_older_record_still_tells_of_it():
    """Its end and the device's next record come in no order: adopted, it would count as a replica that is not there."""
    book = ledger(slot(UNLOADING, generation=6), devices={"w": told(READY, seen=6)})
    book.settled(settled(IDLE, generation=6), NOW)
    book.heard(told(UNLOADING, 6, seen=6), seconds(1))
    assert (book.state.devices["w"].slots, book.due(seconds(60))) == ({}, (None, None))
    book.heard(told(seen=6), seconds(2))
    book.heard(told(READY, 6, seen=6), seconds(3))
    assert "m" in book.state.devices["w"].slots, "it is there again: what was gone has been forgotten"


def test_what_was_unloaded_and_comes_back_with_an_older_state_is_told():
    """A device that was restored from a backup does hold it."""
    book = ledger(slot(UNLOADING, generation=6), devices={"w": told(READY, seen=6)})
    book.settled(settled(IDLE, generation=6), NOW)
    book.heard(told(READY, seen=5, flags=(ROLLED_BACK,)), seconds(1))
    assert "m" in book.state.devices["w"].slots


def test_what_was_never_begun_says_nothing_of_what_runs():
    """An older LOAD, cancelled for it, may have been past the point of no return."""
    book = ledger(slot(LOADING, generation=6), devices={"w": told(LOADING)})
    book.settled(settled(IDLE, generation=6, begun=False), NOW)
    book.heard(told(READY), seconds(1))
    assert "m" in book.state.devices["w"].slots


def test_a_reload_that_was_found_under_way_may_fail():
    """It was adopted from a report, which does not tell what the old version takes."""
    found = slot(RELOADING).model_copy(update={"previous_demand": None})
    book = ledger(found)
    book.settled(settled(READY, digest=OLD, code="RUNNER_OOM"), NOW)
    assert (standing(book).digest, standing(book).demand) == (OLD, found.demand)


def test_signs_of_drift_are_planned_together():
    """The first one waits a moment for more; a commit's plan mends them as well, and does not tell of a dead device."""
    book = ledger(slot(), slot(worker_id="x"))
    book.heard(told(health=Health.FAILED), NOW)
    assert book.due(NOW) == (None, NOW + PAUSE)
    book.heard(told(health=Health.FAILED, worker_id="x"), seconds(0.5))
    cause, _ = book.due(NOW + PAUSE)
    assert (cause.kind, cause.workers) == (CauseKind.WORKER_FAILED, ("w", "x"))
    book.ordered(Order(kind="reconcile"), NOW + PAUSE)
    request = commit()
    book.ask(request, NOW + PAUSE)
    book.planned(answer(request), seconds(2))
    assert (book.due(seconds(60)), kinds(book)) == ((cause, None), {CauseKind.WORKER_FAILED})
    reconciled(book, seconds(60))
    assert book.due(seconds(90)) == (None, None)


def test_a_device_that_fails_and_returns():
    """Each edge is one cause. That one has failed which held nothing is told; its return, or its goodbye, is not."""
    book = ledger(slot())
    book.heard(told(health=Health.FAILED), NOW)
    book.heard(told(health=Health.FAILED), NOW)
    assert (book.state.failures, kinds(book)) == ({"w": (NOW,)}, {CauseKind.WORKER_FAILED})
    lost = deployment(lost=("w",))
    assert reconciled(book, NOW + PAUSE, lost).kind is CauseKind.WORKER_FAILED
    assert standing(book).replaced
    book.heard(told(READY, health=Health.RECOVERING), seconds(100))
    waits = Deferred(action=Action.UNLOAD, worker_id="w", reason="one too many", waits_for="another is READY")
    assert reconciled(book, seconds(101), deployment(deferred=(waits,))).kind is CauseKind.WORKER_RETURNED
    assert standing(book).replaced
    book.heard(told(READY), seconds(130))
    assert reconciled(book, seconds(131)).kind is CauseKind.WORKER_RETURNED
    assert not standing(book).replaced
    book.heard(told(health=Health.FAILED, worker_id="z"), seconds(140))
    assert reconciled(book, seconds(141)).workers == ("z",)
    book.heard(told(health=Health.RECOVERING, worker_id="z"), seconds(150))
    leaving = told(worker_id="z").model_copy(update={"status": DeviceStatus.LEAVING})
    book.heard(leaving, seconds(160))
    book.heard(leaving.model_copy(update={"health": Health.FAILED}), seconds(280))
    assert book.due(seconds(300)) == (None, None)


def test_what_people_learn_of_a_plan_that_moves_nothing():
    """A device that has failed, a model that is given up for a reason that is news; no pool that is suspect."""
    failed = Change(type=ChangeType.FAILED_MODEL, deployment_id="m", reason="RUNNER_CRASHED on w (given up)")
    waits = Deferred(action=Action.LOAD, worker_id="w", reason="failed", waits_for="it is 10:46:00 UTC")
    given_up, later, unplaced = (
        deployment(changes=(failed,), unplaced=1),
        deployment(changes=(failed,), deferred=(waits,)),
        deployment(unplaced=1),
    )

    def told_of(kind: CauseKind, *deployments: DeploymentPlan, named=("m",), suspects=()):
        plan = Plan(sha=SHA, generation=6, deployments=deployments, suspects=suspects)
        what = news(plan, Cause(kind=kind, words="why", deployments=named, workers=("w",)))
        return what and what.deployments

    assert told_of(CauseKind.MODEL_FAILED, given_up) == (given_up,)
    assert told_of(CauseKind.MODEL_FAILED, later) is None
    assert told_of(CauseKind.OPERATOR, given_up, named=()) is None
    assert told_of(CauseKind.DRIFT, given_up) is None
    assert told_of(CauseKind.WORKER_FAILED, unplaced) == ()
    suspicion = PoolSuspicion(pool="production", unhealthy=2, alive_before=3)
    assert told_of(CauseKind.WORKER_FAILED, suspects=(suspicion,)) is None


def test_a_pool_that_is_no_longer_suspect_is_looked_at_again():
    """The device that was suspect has never failed, yet what failed beside it may be replaced now."""
    book = ledger(slot())
    book.heard(told(worker_id="x", health=Health.SUSPECT), NOW)
    book.heard(told(health=Health.FAILED), NOW)
    reconciled(book, NOW + PAUSE)
    book.heard(told(worker_id="x"), seconds(10))
    assert kinds(book) == {CauseKind.WORKER_RETURNED}


def test_failures_of_a_device_count_for_a_day():
    """A plan is told of the newest only."""
    book = ledger(slot())
    for hour in (0, 20, 30):
        book.heard(told(health=Health.FAILED), seconds(3600 * hour))
        book.heard(told(READY), seconds(3600 * hour + 60))
    assert book.ask(commit(), seconds(3600 * 31)).failures == {"w": (seconds(3600 * 20), seconds(3600 * 30))}


def test_a_failure_that_may_pass_is_planned_when_it_is_tried_again():
    """30 s after the first, 60 s after the second; what will not pass is planned at once."""
    book = ledger(slot(LOADING))
    book.settled(settled(FAILED, code="STORAGE_UNAVAILABLE"), NOW)
    assert book.due(seconds(1)) == (None, seconds(30))
    assert book.due(seconds(30)) == (None, seconds(31))
    again = PlannedCommand(action=Action.LOAD, worker_id="w", reason="tried again")
    assert reconciled(book, seconds(31), deployment(again)).kind is CauseKind.MODEL_FAILED
    book.settled(settled(FAILED, generation=6, code="STORAGE_UNAVAILABLE"), seconds(40))
    assert (standing(book).failures, book.due(seconds(41))) == (2, (None, seconds(100)))
    book = ledger(slot(LOADING))
    book.settled(settled(FAILED, code="RUNNER_OOM"), NOW)
    assert reconciled(book, NOW + PAUSE).kind is CauseKind.MODEL_FAILED
    assert book.due(seconds(1000)) == (None, None)


def test_nothing_is_tried_again_where_others_have_taken_over():
    """Nor on a device that has failed itself: its return is news of its own."""
    failed = {"code": "STORAGE_UNAVAILABLE", "failures": 1, "failed_at": NOW}
    silent = {"w": told(health=Health.FAILED)}
    for book in (ledger(slot(FAILED, replaced=True, **failed)), ledger(slot(FAILED, **failed), devices=silent)):
        assert book.due(seconds(60)) == (None, None)


def test_a_failure_is_counted_once():
    """The rollout's letter may come twice, and the device says the same."""
    book = ledger(slot(LOADING))
    for _ in range(2):
        book.settled(settled(FAILED, code="RUNNER_OOM"), NOW)
        book.heard(told(FAILED, code="RUNNER_OOM", digest=""), NOW)
    assert standing(book).failures == 1


def test_a_plan_that_can_do_nothing_is_not_repeated_until_its_retry():
    """A hold, or a device that takes nothing, keeps a failed model as it is: one look for each try that is due."""
    book = ledger(slot(LOADING))
    book.settled(settled(FAILED, code="STORAGE_UNAVAILABLE"), NOW)
    assert reconciled(book, seconds(31)) is not None
    assert book.due(seconds(10_000)) == (None, None)


def test_freed_room_is_news_only_for_who_has_no_place():
    """And a READY replica only for who waits for one."""
    for undone, kind in ((Open(unplaced=1), CauseKind.ROOM_FREED), (Open(deferred=1), None)):
        book = ledger(slot(UNLOADING), open={"other": undone})
        book.settled(settled(IDLE), NOW)
        assert kinds(book) == ({kind} if kind else set())
    for name, kind in (("m", CauseKind.REPLACED), ("other", None)):
        book = ledger(slot(LOADING), open={name: Open(deferred=1)})
        book.settled(settled(READY), NOW)
        assert kinds(book) == ({kind} if kind else set())


def test_what_a_plan_leaves_undone_is_remembered_until_a_plan_says_otherwise():
    """A plan leaves out a deployment that has something under way, and says nothing of it then."""
    book = ledger(slot())
    request = commit()
    load = PlannedCommand(action=Action.LOAD, worker_id="x", reason="most free memory")
    book.ask(request, NOW)
    book.planned(answer(request, deployment(load, unplaced=1)), NOW)
    assert book.view().open["m"].unplaced == 1
    book.ordered(Order(kind="reconcile", by="olga"), NOW)
    assert reconciled(book, seconds(1)).by == "olga"
    assert book.view().open["m"].unplaced == 1
    book.settled(settled(READY, "x", 6), seconds(2))
    book.ordered(Order(kind="reconcile"), seconds(2))
    reconciled(book, seconds(3))
    assert book.view().open == {}


def test_a_plan_at_its_limit_is_followed_by_another():
    """300 commands fill a payload: the rest is for the next."""
    book = ledger()
    limits = book.state.settings.limits.model_copy(update={"commands": 1})
    book.configure(book.state.settings.model_copy(update={"limits": limits}))
    book.ordered(Order(kind="reconcile"), NOW)
    load = PlannedCommand(action=Action.LOAD, worker_id="w", reason="most free memory")
    reconciled(book, seconds(1), deployment(load))
    assert kinds(book) == {CauseKind.DRIFT}


def test_what_is_said_during_a_plan_waits_for_it():
    """The plan has seen the ledger as it was."""
    book = ledger(slot(LOADING))
    request = commit()
    book.ask(request, NOW)
    book.settled(settled(READY), NOW)
    book.heard(told(READY, 5, seen=9), NOW)
    assert (standing(book).state, book.state.generation, book.due(NOW)) == (LOADING, 5, (None, None))
    book.planned(answer(request), NOW)
    assert (standing(book).state, book.state.generation) == (READY, 9)


def test_a_plan_for_another_ledger_is_refused():
    """And so is one that nobody has asked for; the ledger goes on."""
    book = ledger()
    book.ordered(Order(kind="reconcile"), NOW)
    request = commit()
    for stale in (answer(commit(request_id="2")), answer(request, stamp="0" * 16)):
        book.ask(request, NOW)
        with pytest.raises(LongshoreError, match="PLAN_STALE"):
            book.planned(stale, NOW)
        book.given_up()
    assert (book.planning, book.state.applied_sha, kinds(book)) == (False, SHA, {CauseKind.OPERATOR})


@pytest.mark.parametrize(("kind", "target"), [("pause", "m"), ("cordon", "w"), ("drain", "w")])
def test_an_order_during_a_plan_has_it_made_anew(kind, target):
    """What the operator was promised holds at once: the plan that did not know of it commands nothing."""
    load = PlannedCommand(action=Action.LOAD, worker_id="x", reason="most free memory")
    for reconciles in (True, False):
        book = ledger(slot())
        book.ordered(Order(kind="reconcile"), NOW)
        cause, _ = book.due(seconds(1))
        request = book.reconciliation(cause) if reconciles else commit()
        book.ask(request, seconds(1))
        known = stamp_of(book)
        book.ordered(Order(kind=kind, target=target), seconds(2))
        with pytest.raises(LongshoreError, match="PLAN_STALE"):
            book.planned(answer(request, deployment(load), stamp=known), seconds(2))
        assert (book.planning, book.state.applied_sha, standing(book, "x")) == (False, SHA, None)
        assert CauseKind.OPERATOR in kinds(book)
        assert book.due(seconds(3))[0] is not None
        book.ask(commit(), seconds(4))
        book.planned(answer(commit(), stamp=stamp_of(book)), seconds(4))
        assert book.state.applied_sha == commit().sha


def stamp_of(book: Ledger) -> str:
    state = book.state
    return stamp(state.applied_sha, state.generation, state.slots, state.cordons, state.holds)


def test_a_reconciliation_that_cannot_be_planned_is_tried_again_later():
    """Not at once, over and over: but news brings it forward."""
    book = ledger(slot())
    book.ordered(Order(kind="reconcile"), NOW)
    cause, _ = book.due(seconds(1))
    book.ask(book.reconciliation(cause), seconds(1))
    book.given_up()
    assert book.due(seconds(2)) == (None, seconds(32))
    book.heard(told(health=Health.FAILED), seconds(3))
    assert book.due(seconds(4))[0].kind is CauseKind.OPERATOR


def test_commits_are_answered_from_memory_and_reconciliations_are_not():
    """A reconciliation has the applied commit's id, and its plan does not stand in the commit's place."""
    book = ledger()
    request = commit()
    book.ask(request, NOW)
    book.planned(answer(request), NOW)
    assert book.recorded(commit(request_id="2")).request_id == "2"
    first = book.plan
    book.ordered(Order(kind="reconcile"), NOW)
    reconciled(book, seconds(1), deployment())
    cause = Cause(kind=CauseKind.DRIFT, words="drift")
    assert (book.plan, book.recorded(book.reconciliation(cause))) == (first, None)


def test_a_commit_that_is_held_back_waits_and_is_let_through():
    """As before: and a reconciliation meanwhile forgets nothing of it."""
    book = ledger()
    request = commit()
    book.ask(request, NOW)
    blocked = PlanAnswer(
        request_id="1", sha=request.sha, outcome=PlanOutcome.MASS_UNLOAD_BLOCKED, applied_sha=SHA, reason="would"
    )
    book.planned(blocked, NOW)
    book.ordered(Order(kind="reconcile"), NOW)
    reconciled(book, seconds(1))
    accepted = book.accepted(Acceptance(sha="bbbb", code="MASS_UNLOAD_BLOCKED", by="olga"), NOW)
    assert (accepted.by, [one.due for one in book.state.held]) == ("olga", [True])
    book.started_again(book.state.held[0])
    assert [one.due for one in book.state.held] == [False]


def test_workers_are_cordoned_drained_and_let_go():
    """Only what is let go, or to be emptied, is planned at once."""
    book = ledger(slot())
    assert book.ordered(Order(kind="cordon", target="w", by="olga", reason="disk"), NOW).accepted
    assert (book.state.cordons["w"].by, kinds(book)) == ("olga", set())
    answered = book.ordered(Order(kind="drain", target="w"), NOW)
    assert (answered.words, kinds(book)) == ("draining w: 1 model to move", {CauseKind.DRAIN})
    book.ordered(Order(kind="uncordon", target="w"), NOW)
    assert (book.state.cordons, kinds(book)) == ({}, {CauseKind.DRAIN, CauseKind.OPERATOR})


def test_a_device_that_drains_itself_is_not_uncordoned():
    """Only its own host ends that."""
    book = ledger(slot())
    book.heard(told(READY, draining=True), NOW)
    assert kinds(book) == {CauseKind.DRAIN}
    refused = book.ordered(Order(kind="uncordon", target="w"), NOW)
    assert (refused.accepted, refused.words.startswith("w drains itself")) == (False, True)


def test_deployments_are_paused_aborted_and_let_go():
    """The hold outlives the rollout, which is told as well."""
    book = ledger(slot(RELOADING))
    assert book.ordered(Order(kind="abort", target="m", by="olga"), NOW).accepted
    assert book.ordered(Order(kind="pause", target="m"), NOW).accepted
    assert [(hold.kind, hold.digest) for hold in book.state.holds] == [("aborted", DIGEST), ("paused", None)]
    assert [one.steering.kind for one in book.steerings()] == ["abort", "pause"]
    assert (book.steerings(), kinds(book)) == ((), set())
    assert book.ordered(Order(kind="resume", target="m"), NOW).accepted
    assert (book.state.holds, kinds(book)) == ((), {CauseKind.OPERATOR})
    for order in ("resume", "release"):
        assert not book.ordered(Order(kind=order, target="m"), NOW).accepted
    assert not ledger(slot()).ordered(Order(kind="abort", target="m"), NOW).accepted


@pytest.mark.parametrize(
    ("kind", "code"), [("drain", "WORKER_UNKNOWN"), ("uncordon", "WORKER_UNKNOWN"), ("pause", "DEPLOYMENT_UNKNOWN")]
)
def test_orders_name_what_there_is(kind, code):
    """A misspelt id changes nothing, and the answer lists what there is."""
    book = ledger(slot())
    before = book.state
    with pytest.raises(LongshoreError, match=r"there is (m|w, x, y, z)") as refused:
        book.ordered(Order(kind=kind, target="nobody"), NOW)
    assert (refused.value.code, book.state) == (code, before)


@pytest.mark.parametrize(
    ("code", "state", "held"),
    [
        ("VALIDATION_FAILED", LOADING, True),
        ("VALIDATION_FAILED", RELOADING, True),
        ("VALIDATION_FAILED", UNLOADING, False),
        ("STORAGE_UNAVAILABLE", LOADING, False),
        ("ABORTED", LOADING, False),
        ("PREEMPTION_FAILED", LOADING, False),
        ("CAPACITY_INSUFFICIENT", LOADING, False),
    ],
)
def test_a_version_that_fails_on_three_devices_is_held(code, state, held):
    """Where it is the version's fault: not the network's, nor that of our own order."""
    book = ledger(*(slot(state, name) for name in "wxyz"))
    end = {"state": READY, "digest": OLD} if state is RELOADING else {"state": FAILED}
    for name in "wxy":
        assert book.state.holds == ()
        for _ in range(2):  # twice on one device is once
            book.settled(settled(worker_id=name, code=code, **end), NOW)
    holds = [(hold.kind, hold.digest, hold.workers) for hold in book.state.holds]
    assert holds == ([("quarantined", DIGEST, ("w", "x", "y"))] if held else [])
    assert [one.steering.code for one in book.steerings()] == (["QUARANTINED"] if held else [])
    book.settled(settled(worker_id="z", code=code, **end), NOW)
    assert book.steerings() == ()


def test_a_quarantine_ends_by_an_order_or_by_another_version():
    """And what has served on a device since does not count there any more."""
    hold = Hold(deployment_id="m", kind="quarantined", digest=DIGEST, workers=("w", "x", "y"))
    book = ledger(slot(FAILED, failures=1, failed_at=NOW, code="RUNNER_OOM"), holds=(hold,))
    assert book.ordered(Order(kind="release", target="m", by="olga"), NOW).accepted
    assert (book.state.holds, standing(book).failures, kinds(book)) == ((), 0, {CauseKind.OPERATOR})
    for digest, left in ((DIGEST, 1), (None, 1), (OTHER, 0)):
        book = ledger(slot(), holds=(hold,))
        request = commit()
        book.ask(request, NOW)
        book.planned(answer(request, deployment(digest=digest)), NOW)
        assert len(book.state.holds) == left


def test_a_version_that_has_recovered_has_not_failed_there():
    """Three devices at three times are no broken version."""
    book = ledger(*(slot(LOADING, name) for name in "wxy"))
    for name in "wxy":
        book.settled(settled(FAILED, name, code="RUNNER_CRASHED"), NOW)
        book.heard(told(READY, worker_id=name), NOW)
    assert book.state.holds == ()


def test_what_has_left_git_is_forgotten():
    """Its cordons and holds would come back with the name."""
    hold = Hold(deployment_id="gone", kind="paused")
    book = ledger(holds=(hold,))
    book.ordered(Order(kind="cordon", target="z"), NOW)
    request = commit()
    book.ask(request, NOW)
    book.planned(answer(request, workers=("w",)), NOW)
    assert (book.state.holds, book.state.cordons, set(book.view().devices)) == ((), {}, {"w"})


def test_a_ledger_that_is_lost_twice_gives_no_generation_out_twice():
    """Lost again before its plan reached a device or git, it begins from the same knowledge as before."""
    given_out: set[int] = set()
    seen = 41
    for hours in (30, 30.1, 30.2):
        book = Ledger(FleetInput(registry="r"))
        book.rebuilt([told(seen=seen)], LastApplied(sha=SHA, generation=39), NOW + timedelta(hours=hours))
        begins, seen = book.state.generation, min(given_out, default=41)
        assert given_out.isdisjoint(range(begins, begins + 50))
        given_out.update(range(begins, begins + 50))


def test_a_lost_ledger_counts_on_from_what_was_seen():
    """The devices' highest generation, git's, and then a leap: absent devices may have seen more."""
    book = Ledger(FleetInput(registry="r"))
    assert book.unheard(("w", "x")) == ("w", "x")
    records = [told(READY, 40, seen=41), told(worker_id="x", seen=7, health=Health.FAILED)]
    book.rebuilt(records, LastApplied(sha=SHA, generation=39), NOW)
    assert (book.state.applied_sha, book.state.generation, book.state.rebuilt) == (SHA, 41 + REBUILD_LEAP, True)
    cause = reconciled(book, NOW + PAUSE)
    assert (cause.kind, book.plan.goals["m"].replicas) == (CauseKind.REBUILD, 1)
    assert book.state.failures == {}  # when x had failed is not known


def test_a_lost_ledger_says_when_it_has_taken_in_what_runs():
    """Until a plan has, nobody is to conclude from its slots what is there: neither before, nor while it is made."""
    book = Ledger(FleetInput(registry="r"))
    book.rebuilt([told(READY, 40, seen=41)], LastApplied(sha=SHA, generation=39), NOW)
    assert book.view().rebuilding
    cause, _ = book.due(NOW + PAUSE)
    request = book.reconciliation(cause)
    for given_up in (True, False):
        book.ask(request, NOW + PAUSE)
        assert book.view().rebuilding
        book.given_up() if given_up else book.planned(answer(request), NOW + PAUSE)
    assert not book.view().rebuilding


def test_a_new_fleet_is_no_lost_one():
    """Nothing has ever run, so git's newest valid commit is not applied by itself."""
    book = Ledger(FleetInput(registry="r"))
    book.rebuilt([told(seen=0)], LastApplied(sha=SHA), NOW)
    assert (book.state.applied_sha, book.state.generation, book.due(seconds(60))) == (None, 0, (None, None))
    book.met(("w", "n"))
    assert (book.unheard(("w", "n")), book.state.devices["w"].health) == ((), Health.HEALTHY)


def test_a_look_at_all_is_news_like_any_other():
    """Its orphans go into the next plan, once."""
    book = ledger(slot(LOADING))
    drift = DriftFound(cause=Cause(kind=CauseKind.DRIFT, words="nobody sees to m"), orphaned=("m",))
    book.found(drift, NOW)
    cause, _ = book.due(seconds(1))
    assert book.ask(book.reconciliation(cause), seconds(1)).orphaned == ("m",)
    book.given_up()
    assert book.state.orphaned == ("m",)


def test_the_version_counts_what_a_reader_can_see():
    """A doubt is no news; what it comes to is."""
    book = ledger(slot(), devices={"w": told(READY)})
    before = book.view().version
    book.heard(told(), NOW)
    heard = book.view().version
    book.heard(told(), NOW)
    assert (before < heard, book.view().version) == (True, heard)
    book.due(NOW + GRACE)
    assert book.view().version == heard + 1
    book.watched("c" * 40)
    assert book.view().version == heard + 1


EVENTS = st.one_of(
    st.builds(
        told,
        st.sampled_from([READY, FAILED, LOADING, IDLE, None]),
        st.integers(3, 7),
        st.sampled_from([DIGEST, OLD, ""]),
        st.sampled_from([None, "RUNNER_OOM", "LOAD_TIMEOUT"]),
        worker_id=st.sampled_from("wx"),
        seen=st.integers(3, 7),
        health=st.sampled_from(Health),
    ),
    st.builds(
        settled,
        st.sampled_from([READY, FAILED, IDLE]),
        st.sampled_from("wx"),
        st.integers(3, 7),
        code=st.sampled_from([None, "RUNNER_OOM", "LOAD_TIMEOUT"]),
    ),
    st.builds(
        Order,
        kind=st.sampled_from(["cordon", "drain", "uncordon", "pause", "resume", "abort", "release", "reconcile"]),
        target=st.sampled_from("wm"),
    ),
    st.just("plan"),
)


def happen(book: Ledger, event: object, now: datetime) -> object:
    """Let one thing happen, and return what the driver sees of it."""
    seen: object = None
    match event:
        case DeviceRecord():
            book.heard(event, now)
        case SlotSettled():
            book.settled(event, now)
        case Order():
            try:
                seen = book.ordered(event, now)
            except LongshoreError as error:
                seen = error.code
        case _:
            command = PlannedCommand(action=Action.LOAD, worker_id="w", reason="most free memory")
            seen = reconciled(book, now, deployment(command, generation=book.state.generation + 1, unplaced=1))
    return seen, book.due(now), book.view(), book.steerings()


STARTS = st.lists(st.sampled_from([READY, FAILED, LOADING, RELOADING, UNLOADING]), min_size=2, max_size=2)
STORIES = st.lists(st.tuples(EVENTS, st.sampled_from([0, 1, 5, 40])), max_size=12)


@settings(max_examples=150, deadline=None)
@given(STARTS, STORIES)
def test_nothing_is_lost_between_two_runs(states, story):
    """A ledger that is carried over before each event, as JSON, behaves like the one that was not."""
    one = ledger(*(slot(state, name) for state, name in zip(states, "wx", strict=True)))
    now, other = NOW, one.state
    for event, pause in story:
        now += timedelta(seconds=pause)
        again = Ledger(FleetInput.model_validate_json(other.model_dump_json()))
        assert happen(one, event, now) == happen(again, event, now)
        other = again.carried_over()
        assert other == one.carried_over()


class Letters(RuleBasedStateMachine):
    """One device that carries out LOADs and UNLOADs by their generation, and all that is said of it.

    Commands of superseded rollouts may still reach it. Letters come late, twice and in any order; the device's own
    records in the order in which it says them, some twice. All are there within the grace of a doubt.
    """

    def __init__(self) -> None:
        super().__init__()
        self.book, self.now = ledger(generation=0), NOW
        self.seen, self.holds, self.highest = 0, False, 0
        self.commands: list[tuple[int, bool]] = []
        self.letters: list[SlotSettled] = []
        self.records: list[DeviceRecord] = []

    @rule()
    def plan(self):
        there = standing(self.book)
        load = there is None or there.state is UNLOADING
        generation = self.book.state.generation + 1
        command = PlannedCommand(action=Action.LOAD if load else Action.UNLOAD, worker_id="w", reason="as wanted")
        request = commit(request_id=str(generation))
        self.book.ask(request, self.now)
        wanted = deployment(command, generation=generation)
        self.book.planned(answer(request, wanted, generation=generation), self.now)
        self.commands.append((generation, load))

    @precondition(lambda self: self.commands)
    @rule(data=st.data())
    def obey(self, data):
        self.carry_out(*data.draw(st.sampled_from(self.commands)))

    def carry_out(self, generation: int, load: bool):  # noqa: FBT001 (a pair, as it is kept)
        if generation >= self.seen:
            self.seen, self.holds = generation, load
            self.records.append(told(READY, generation, seen=generation) if load else told(seen=generation))
            end = {"state": READY, "digest": DIGEST} if load else {"state": IDLE}
            self.letters.append(settled(generation=generation, **end))

    @precondition(lambda self: self.letters)
    @rule(data=st.data())
    def deliver(self, data):
        self.book.settled(data.draw(st.sampled_from(self.letters)), self.now)

    @precondition(lambda self: self.records)
    @rule(again=st.booleans())
    def report(self, again):
        self.book.heard(self.records[0] if again else self.records.pop(0), self.now)

    @rule()
    def wait(self):
        self.now += timedelta(milliseconds=100)
        self.book.due(self.now)

    @invariant()
    def generations_never_fall(self):
        there = standing(self.book)
        known = max(self.book.state.generation, there.generation if there else 0)
        assert known >= self.highest == max(self.highest, self.seen)
        self.highest = known

    @invariant()
    def room_is_kept_while_the_device_may_need_it(self):
        may_load = any(load and generation >= self.seen for generation, load in self.commands)
        assert standing(self.book) is not None or not (self.holds or may_load)

    def teardown(self):
        """In the end everything arrives, and ledger and device agree."""
        for command in sorted(self.commands):
            self.carry_out(*command)
        for record in self.records:
            self.book.heard(record, self.now)
        self.book.due(self.now + GRACE)
        there = standing(self.book)
        assert (there is not None and there.state is READY) == self.holds
        assert there is None or there.state is READY


TestLetters = Letters.TestCase
TestLetters.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
