"""How slots are reserved by a plan and settled by answers."""

from fleets import Wanted, answered, observed, registry, worker

from longshore.planning.plan import make_plan
from longshore.schemas.fleet import SlotSettled
from longshore.schemas.ledger import reserve, settle, stamp
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.orders import Cordon, Hold
from longshore.schemas.plans import Cause, CauseKind
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
    again = reserve(slots, pushed(slots, Wanted("m", "1.3.0", memory="1Gi")))
    for failed in (settled(slots, ModelState.READY, code="RUNNER_OOM"), settled(again, ModelState.READY, code="X")):
        assert (failed[0].version, failed[0].reserved.memory) == ("1.0.0", parse_memory("2Gi"))
    (overtaken,) = settled(slots, ModelState.READY, digest="the digest of 1.1.0")
    assert overtaken.reserved.memory == parse_memory("5Gi")


def test_failed_reload_gives_the_slot_back_to_what_serves():
    """Told by the failure code alone, or by the digest that the device still runs."""
    before = answered((), pushed((), Wanted("m", "1.0.0", memory="2Gi")))
    slots = reserve(before, pushed(before, Wanted("m", "1.1.0", memory="5Gi")))
    for facts in ({"code": "RUNNER_OOM"}, {"code": "RUNNER_OOM", "digest": before[0].digest}):
        (slot,) = settled(slots, ModelState.READY, **facts)
        assert (slot.version, slot.digest, slot.code) == ("1.0.0", before[0].digest, "RUNNER_OOM")
        assert slot.reserved.memory == parse_memory("2Gi")


def test_failed_reload_that_was_found_under_way_keeps_what_it_reserved():
    """What a rebuilt ledger finds in the middle of a RELOAD does not say what the version before took."""
    before = answered((), pushed((), Wanted("m", "1.0.0", memory="2Gi")))
    slots = reserve(before, pushed(before, Wanted("m", "1.1.0", memory="5Gi")))
    found = tuple(slot.model_copy(update={"previous_demand": None, "serving_demand": None}) for slot in slots)
    (slot,) = settled(found, ModelState.READY, code="RUNNER_OOM")
    assert (slot.version, slot.reserved.memory) == ("1.0.0", parse_memory("5Gi"))


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


def test_recreate_reserves_the_larger_of_the_two_and_fails_for_good():
    """The two are never there together, so what fails then leaves nothing that serves."""
    slots = answered((), pushed((), Wanted("m", "1.0.0", memory="8Gi")))
    plan = pushed(slots, Wanted("m", "1.1.0", memory="5Gi"))
    command = plan.deployments[0].commands[0].model_copy(update={"recreate": True})
    (slot,) = reserve(slots, with_deployment(plan, commands=(command,)))
    assert slot.reserved.memory == parse_memory("8Gi")
    (failed,) = settled((slot,), ModelState.FAILED, code="RUNNER_OOM")
    assert (failed.version, failed.reserved.memory, failed.recreate) == ("1.1.0", parse_memory("5Gi"), False)


def test_unload_remembers_what_it_takes_away():
    """An UNLOAD that never began goes back to it, also when a newer plan has carried it on."""
    slots = answered((), pushed((), Wanted("m")))
    off = pushed(slots, Wanted("m", enabled=False))
    for _ in range(2):
        slots = reserve(slots, off)
        assert [(slot.state, slot.before) for slot in slots] == [(ModelState.UNLOADING, ModelState.READY)]


def test_a_load_that_was_never_begun_frees_nothing_that_may_be_there():
    """What was being unloaded when it was planned may still hold its memory."""
    slots = answered((), pushed((), Wanted("m", memory="6Gi")))
    slots = reserve(slots, pushed(slots, Wanted("m", enabled=False)))
    slots = reserve(slots, pushed(slots, Wanted("m", "1.1.0", memory="2Gi")))
    (there,) = settled(slots, ModelState.IDLE, begun=False)
    assert (there.state, there.reserved.memory) == (ModelState.UNLOADING, parse_memory("6Gi"))
    assert settled(reserve((), pushed((), Wanted("m"))), ModelState.IDLE, begun=False) == ()


def test_lost_slots_are_marked_and_failures_are_counted_per_commit():
    """A plan's word on devices that have failed stays; a commit is a retry, a reconciliation is not."""
    slots = answered((), pushed((), Wanted("m")), {"worker-a": "RUNNER_OOM"})
    slots = tuple(slot.model_copy(update={"failures": 3}) for slot in slots)
    plan = with_deployment(pushed(slots, Wanted("m", "1.1.0")), commands=(), lost=("worker-a", "worker-x"))
    assert [(slot.replaced, slot.failures) for slot in reserve(slots, plan)] == [(True, 0)]
    cause = Cause(kind=CauseKind.DRIFT, words="worker-a has failed")
    assert [slot.failures for slot in reserve(slots, plan.model_copy(update={"cause": cause}))] == [3]


def test_adopted_slots_do_not_overwrite_what_is_known():
    """They were found in a report, and a report may be older than the ledger."""
    (slot,) = answered((), pushed((), Wanted("m")))
    plan = pushed((slot,), Wanted("m"))
    found = slot.model_copy(update={"generation": 0})
    other = found.model_copy(update={"deployment_id": "n"})
    assert reserve((slot,), plan.model_copy(update={"adopted": (found, other)})) == (slot, other)


def test_stamp_tells_ledgers_apart_and_not_their_order():
    """Whatever a plan builds on is in it."""
    one, other = answered((), pushed((), Wanted("m"), Wanted("n")))
    known = stamp("a", 1, (one, other), {}, ())
    assert known == stamp("a", 1, (other, one), {}, ())
    cordon, hold = Cordon(worker_id="w", kind="drain"), Hold(deployment_id="m", kind="paused")
    others = [
        stamp("b", 1, (one, other), {}, ()),
        stamp("a", 2, (one, other), {}, ()),
        stamp("a", 1, (one,), {}, ()),
        stamp("a", 1, (one.model_copy(update={"state": ModelState.FAILED}), other), {}, ()),
        stamp("a", 1, (one, other), {"w": cordon}, ()),
        stamp("a", 1, (one, other), {}, (hold,)),
    ]
    assert len({known, *others}) == 7
    assert known == stamp("a", 1, (one.model_copy(update={"reason": "in other words"}), other), {}, ())


def with_deployment(plan, **facts):
    (deployment,) = plan.deployments
    return plan.model_copy(update={"deployments": (deployment.model_copy(update=facts),)})


def test_a_command_that_was_not_begun_gives_its_slot_back():
    """An operator has withdrawn it: what was READY or FAILED is so again, and what was only reserved is free."""
    loading = reserve((), pushed((), Wanted("m")))
    assert settled(loading, ModelState.IDLE, begun=False) == ()
    for state, code in ((ModelState.READY, None), (ModelState.FAILED, "RUNNER_OOM")):
        before = settled(loading, state, code=code)
        unloading = reserve(before, pushed(before, Wanted("m", enabled=False)))
        (slot,) = settled(unloading, ModelState.READY, begun=False)
        assert (slot.state, slot.code, slot.before) == (state, code, None)
    ready = settled(loading, ModelState.READY)
    reloading = reserve(ready, pushed(ready, Wanted("m", "1.1.0")))
    (slot,) = settled(reloading, ModelState.READY, begun=False, version="1.0.0", digest=ready[0].digest)
    assert (slot.version, slot.state, slot.code) == ("1.0.0", ModelState.READY, None)
