"""What makes the fleet look whether something is to be done, and when it does."""

from __future__ import annotations

from ledger_book import (
    FAILED,
    IDLE,
    LOADING,
    NOW,
    PAUSE,
    READY,
    SHA,
    UNLOADING,
    answer,
    commit,
    deployment,
    kinds,
    ledger,
    reconciled,
    seconds,
    settled,
    slot,
    standing,
    told,
)

from longshore.schemas.commands import Action
from longshore.schemas.devices import DeviceStatus, Health
from longshore.schemas.fleet import (
    Open,
)
from longshore.schemas.orders import Order
from longshore.schemas.plans import (
    Cause,
    CauseKind,
    Change,
    ChangeType,
    Deferred,
    DeploymentPlan,
    Plan,
    PlannedCommand,
    PoolSuspicion,
)
from longshore.workflows.ledger.causes import news


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
