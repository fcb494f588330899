"""An operator's orders, and versions that are held because they failed on several devices."""

from __future__ import annotations

import pytest
from ledger_book import (
    DIGEST,
    FAILED,
    LOADING,
    NOW,
    OLD,
    OTHER,
    READY,
    RELOADING,
    UNLOADING,
    answer,
    commit,
    deployment,
    kinds,
    ledger,
    settled,
    slot,
    standing,
    told,
)

from longshore.schemas.failures import LongshoreError
from longshore.schemas.orders import Hold, Order
from longshore.schemas.plans import (
    CauseKind,
)


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
