"""What the ledger believes of what devices and rollouts say, what it doubts, and for how long."""

from __future__ import annotations

import pytest
from ledger_book import (
    DIGEST,
    FAILED,
    GRACE,
    IDLE,
    LOADING,
    NOW,
    OLD,
    OTHER,
    PAUSE,
    READY,
    RELOADING,
    UNLOADING,
    kinds,
    ledger,
    reconciled,
    seconds,
    settled,
    slot,
    standing,
    told,
)

from longshore.schemas.devices import Health, Told
from longshore.schemas.drift import ROLLED_BACK
from longshore.schemas.plans import (
    CauseKind,
)

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
