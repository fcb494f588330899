"""What a plan is made upon, what it leaves in the ledger, and what happens meanwhile."""

from __future__ import annotations

import pytest
from ledger_book import (
    LOADING,
    NOW,
    READY,
    SHA,
    answer,
    commit,
    deployment,
    kinds,
    ledger,
    reconciled,
    seconds,
    settled,
    slot,
    stamp_of,
    standing,
    told,
)

from longshore.schemas.commands import Action
from longshore.schemas.devices import Health
from longshore.schemas.failures import LongshoreError
from longshore.schemas.fleet import (
    PlanAnswer,
    PlanOutcome,
)
from longshore.schemas.held import Acceptance
from longshore.schemas.orders import Order
from longshore.schemas.plans import (
    Cause,
    CauseKind,
    PlannedCommand,
)


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
