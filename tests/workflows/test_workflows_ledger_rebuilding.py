"""A ledger that was lost, and what a reader of one is told."""

from __future__ import annotations

from datetime import timedelta

from ledger_book import (
    GRACE,
    LOADING,
    NOW,
    PAUSE,
    READY,
    SHA,
    answer,
    ledger,
    reconciled,
    seconds,
    slot,
    told,
)

from longshore.schemas.devices import Health
from longshore.schemas.fleet import (
    FleetInput,
)
from longshore.schemas.plans import (
    Cause,
    CauseKind,
)
from longshore.schemas.reconciliations import DriftFound, LastApplied
from longshore.workflows.ledger.machine import REBUILD_LEAP, Ledger


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
