"""How slots are reserved by a plan and settled by answers."""

from fleets import Wanted, answered, observed, registry, worker

from longshore.planning.plan import make_plan
from longshore.schemas.fleet import SlotSettled
from longshore.schemas.ledger import reserve, settle
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.quantities import parse_memory

ONE = [worker("worker-a")]


def pushed(slots, *wanted):
    return make_plan(observed(slots), registry(ONE, *wanted))


def settled(slots, state, **facts):
    (slot,) = slots
    event = {"generation": slot.generation, "state": state} | facts
    return settle(slots, SlotSettled(deployment_id=slot.deployment_id, worker_id=slot.worker_id, **event))


def test_load_reserves_until_it_is_ready():
    """A slot is LOADING from the plan on, and READY when the device says so."""
    slots = reserve((), pushed((), Wanted("m")))
    assert [(s.state, s.version, s.generation) for s in slots] == [(ModelState.LOADING, "1.0.0", 1)]
    assert settled(slots, ModelState.READY)[0].state is ModelState.READY


def test_reload_reserves_both_versions_until_it_has_ended():
    """The old runner's memory is freed with the answer, not before."""
    slots = answered((), pushed((), Wanted("m", "1.0.0", memory="4Gi")))
    slots = reserve(slots, pushed(slots, Wanted("m", "1.1.0", memory="5Gi")))
    assert slots[0].reserved.memory == parse_memory("9Gi")
    ready = settled(slots, ModelState.READY)
    assert ready[0].reserved.memory == parse_memory("5Gi")
    assert ready[0].previous_version is None


def test_superseded_reload_reserves_the_larger_of_what_may_serve():
    """While it is unknown which of two versions serves, the larger one is reckoned with."""
    slots = answered((), pushed((), Wanted("m", "1.0.0", memory="2Gi")))
    slots = reserve(slots, pushed(slots, Wanted("m", "1.1.0", memory="5Gi")))
    slots = reserve(slots, pushed(slots, Wanted("m", "1.2.0", memory="1Gi")))
    assert slots[0].reserved.memory == parse_memory("6Gi")
    assert slots[0].previous_version == "1.0.0"


def test_failed_reload_gives_the_slot_back_to_what_serves():
    """Told by the failure code alone, or by the digest that the device still runs."""
    before = answered((), pushed((), Wanted("m", "1.0.0", memory="2Gi")))
    slots = reserve(before, pushed(before, Wanted("m", "1.1.0", memory="5Gi")))
    for facts in ({"code": "RUNNER_OOM"}, {"code": "RUNNER_OOM", "digest": before[0].digest}):
        (slot,) = settled(slots, ModelState.READY, **facts)
        assert (slot.version, slot.digest, slot.code) == ("1.0.0", before[0].digest, "RUNNER_OOM")
        assert slot.reserved.memory == parse_memory("2Gi")


def test_failed_load_keeps_its_place():
    """A FAILED slot still holds its reservation: the next push tries again there."""
    slots = settled(reserve((), pushed((), Wanted("m"))), ModelState.FAILED, code="RUNNER_OOM")
    assert [(s.state, s.code, s.reserved.memory) for s in slots] == [
        (ModelState.FAILED, "RUNNER_OOM", parse_memory("4Gi"))
    ]


def test_unload_frees_only_when_it_is_confirmed():
    """UNLOADING still counts; IDLE frees."""
    slots = answered((), pushed((), Wanted("m")))
    slots = reserve(slots, pushed(slots))
    assert [(s.state, s.reserved.memory) for s in slots] == [(ModelState.UNLOADING, parse_memory("4Gi"))]
    assert settled(slots, ModelState.IDLE) == ()


def test_late_answers_of_an_older_generation_change_nothing():
    """A second push has reserved anew: what the first one's devices say is past."""
    slots = reserve((), pushed((), Wanted("m", "1.0.0")))
    slots = reserve(slots, pushed(slots, Wanted("m", "1.1.0")))
    assert settled(slots, ModelState.READY, generation=1) == slots


def test_answers_for_unknown_slots_change_nothing():
    """A repeated IDLE finds nothing to free."""
    event = SlotSettled(deployment_id="m", worker_id="worker-a", generation=1, state=ModelState.IDLE)
    assert settle((), event) == ()


def test_reserving_twice_is_reserving_once():
    """The ledger may see a plan again."""
    slots = answered((), pushed((), Wanted("m", "1.0.0")))
    plan = pushed(slots, Wanted("m", "1.1.0", memory="5Gi"))
    once = reserve(slots, plan)
    assert reserve(once, plan) == once
