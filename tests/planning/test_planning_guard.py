"""What counts as a mass unload: at which share, of what, and which commits are never held back."""

from dataclasses import replace

import pytest
from fleets import Wanted, answered, observed, registry, worker
from hypothesis import given
from hypothesis import strategies as st

from longshore.planning.guard import mass_unload
from longshore.planning.plan import make_plan
from longshore.schemas.ledger import reserve
from longshore.schemas.lifecycle import ModelState

FOUR = tuple(worker(f"worker-{letter}", models=40, memory="900Gi", cpu=900) for letter in "abcd")


def serving(*wanted, fleet=FOUR):
    """The slots of a fleet on which everything wanted serves."""
    slots = answered((), make_plan(observed(), registry(fleet, *wanted)))
    assert all(slot.state is ModelState.READY for slot in slots)
    return slots


def verdict(slots, *wanted, fleet=FOUR, limit=50):
    return mass_unload(slots, make_plan(observed(slots), registry(fleet, *wanted)), limit)


def test_the_sentence_names_what_is_lost_and_the_limit():
    """An operator who reads it knows which manifests to look for."""
    fraud, ten, kept = Wanted("fraud", replicas=2), Wanted("ten", replicas=4), Wanted("kept", replicas=2)
    told = verdict(serving(fraud, ten, kept), kept)
    assert told == "would unload 6 of 8 replicas (75 %, the limit is 50 %): ten (4), fraud (2)"


def test_only_the_ten_largest_losses_are_named():
    """A commit that deletes a thousand manifests still has a summary that can be read."""
    many = [Wanted(f"m-{n:02}") for n in range(12)]
    told = verdict(serving(*many))
    assert told is not None
    assert told.endswith("m-08 (1), m-09 (1), and 2 more")


@pytest.mark.parametrize(("deleted", "blocked"), [(1, False), (2, False), (3, True), (4, True)])
def test_exactly_the_limit_is_allowed(deleted, blocked):
    """Half of four may go at 50 %, more may not."""
    four = [Wanted(name) for name in ("m-0", "m-1", "m-2", "m-3")]
    assert (verdict(serving(*four), *four[deleted:]) is not None) is blocked


def test_a_share_just_above_the_limit_does_not_read_as_the_limit():
    """34 of 67 is 50.7 %."""
    many = [Wanted(f"m-{n:02}", memory="1Gi", cpu=0.1) for n in range(67)]
    assert "34 of 67 replicas (51 %, the limit is 50 %)" in str(verdict(serving(*many), *many[34:]))


def test_an_emergency_is_never_held_back():
    """PRD §7.4: `enabled: false` for the only deployment, or for the one that is nearly all of it, works at once."""
    ten, small = Wanted("ten", replicas=4), Wanted("small")
    assert verdict(serving(ten), replace(ten, enabled=False)) is None
    assert verdict(serving(ten, small), replace(ten, enabled=False), small, limit=0) is None
    assert verdict(serving(ten), replace(ten, replicas=1)) is None


def test_a_deleted_manifest_counts_even_when_it_is_the_only_one():
    """Deletion is what a slip looks like; one that was disabled before may be deleted."""
    ten = Wanted("ten", replicas=2)
    assert verdict(serving(ten)) == "would unload 2 of 2 replicas (100 %, the limit is 50 %): ten (2)"
    off = replace(ten, enabled=False)
    assert verdict(answered(serving(ten), make_plan(observed(serving(ten)), registry(FOUR, off)))) is None


def test_two_emergencies_at_once_are_held_back():
    """Each alone would pass; together they look like a slip."""
    one, two = Wanted("one", replicas=2), Wanted("two", replicas=2)
    assert verdict(serving(one, two), replace(one, enabled=False), replace(two, enabled=False)) is not None


def test_devices_that_leave_git_count():
    """A folder of workers that was deleted takes their replicas away, though nobody can command them."""
    ten = Wanted("ten", replicas=4)
    assert verdict(serving(ten), ten, fleet=FOUR[:2]) is None
    told = verdict(serving(ten), ten, fleet=FOUR[:1])
    assert told == "would unload 3 of 4 replicas (75 %, the limit is 50 %): ten (3)"
    assert verdict(serving(ten), replace(ten, enabled=False), fleet=FOUR[:1]) is None


def test_what_does_not_serve_is_no_loss():
    """A deployment that has failed everywhere, or is still loading, may go."""
    ten = Wanted("ten", replicas=4)
    plan = make_plan(observed(), registry(FOUR, ten))
    for slots in (reserve((), plan), answered((), plan, {one.worker_id: "RUNNER_OOM" for one in FOUR})):
        assert len(slots) == 4
        assert verdict(slots) is None


wanted = st.lists(
    st.builds(
        Wanted,
        st.sampled_from([f"m{n}" for n in range(6)]),
        version=st.sampled_from(["1.0.0", "1.1.0"]),
        replicas=st.integers(0, 4),
        enabled=st.booleans(),
    ),
    unique_by=lambda one: one.id,
)
fleets = st.lists(st.sampled_from(FOUR), unique_by=lambda one: one.worker_id)


@given(wanted, wanted, fleets, st.integers(0, 100))
def test_held_back_means_above_the_limit(before, after, fleet, limit):
    """Never at or below the limit, reckoned from what serves before and after; always above it, unless one alone is
    changed whose manifest is there."""
    slots = serving(*before)
    plan = make_plan(observed(slots), registry(fleet, *after))
    unloaded = {(d.deployment_id, c.worker_id) for d in plan.deployments for c in d.commands if c.action == "UNLOAD"}
    names = {one.worker_id for one in fleet}
    lost = [s for s in slots if (s.deployment_id, s.worker_id) in unloaded or s.worker_id not in names]
    above = len(lost) * 100 > limit * len(slots)
    blocked = mass_unload(slots, plan, limit) is not None
    assert not blocked or above
    alone_and_there = {s.deployment_id for s in lost} <= {w.id for w in after} and len({*map(_id, lost)}) == 1
    assert blocked or not above or alone_and_there
    assert mass_unload(slots, plan, 100) is None


def _id(slot):
    return slot.deployment_id


@given(wanted, st.integers(0, 100))
def test_one_deployment_disabled_is_never_held_back(before, limit):
    """Whatever runs beside it, and whatever the limit."""
    slots = serving(*before)
    for one in before:
        others = [other for other in before if other is not one]
        assert verdict(slots, *others, replace(one, enabled=False), limit=limit) is None
