"""How one plan makes room: who goes, who waits for that, and what becomes of it when the next plan comes first."""

from fleets import NOW, Wanted, answered, observed, reconciling, registry, worker

from longshore.planning.check import check
from longshore.planning.plan import consider, make_plan
from longshore.planning.render import render
from longshore.schemas.commands import Action, UnloadReason
from longshore.schemas.devices import DeviceFacts
from longshore.schemas.fleet import PlanLimits, UpdateGap
from longshore.schemas.ledger import reserve, stamp
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import Awaited
from longshore.schemas.workers import EvictionPolicy

TWO = [worker("worker-a", memory="8Gi"), worker("worker-b", memory="4Gi")]
LOW, HIGH = Wanted("low", priority=10), Wanted("high", memory="6Gi", priority=90)


def replanned(asked, *wanted, workers=TWO):
    desired = registry(workers, *wanted)
    plan = make_plan(asked, desired)
    assert check(plan, asked, desired) == []
    return plan, {deployment.deployment_id: deployment for deployment in plan.deployments}


def running(*wanted, workers=TWO):
    return answered((), make_plan(observed(), registry(workers, *wanted)))


def test_victim_is_unloaded_by_its_own_plan_and_placed_elsewhere():
    """One generation for both: the newcomer waits for the victim's UNLOAD, the victim moves to what is left."""
    plan, plans = replanned(observed(running(LOW)), LOW, HIGH)
    (load,) = plans["high"].commands
    assert load.after == (Awaited(deployment_id="low", worker_id="worker-a", generation=2),)
    unload, moved = plans["low"].commands
    assert (unload.worker_id, unload.unload_reason) == ("worker-a", UnloadReason.EVICTED)
    assert (moved.action, moved.worker_id) == (Action.LOAD, "worker-b")
    assert [d.deployment_id for d in plan.deployments] == ["high", "low"]
    assert render(plan).splitlines()[2:] == [
        "high (priority 90)",
        "  NEW_DEPLOYMENT: 1.0.0, 1 replica",
        "  LOAD   worker-a  makes room: evicts low (priority 10)",
        "         after UNLOAD low on worker-a",
        "",
        "low (priority 10)",
        "  SCALE_DOWN: makes room for high on worker-a",
        "  UNLOAD worker-a  evicted for high",
        "  LOAD   worker-b  rank 1 of 1 that fit: 100% of memory and 100% of CPU free, 0 models",
    ]


def test_command_that_waits_for_room_waits_in_the_next_plan_as_well():
    """When its deployment is commanded anew before the victim has gone, its LOAD still waits for that."""
    slots = running(LOW)
    plan, _ = replanned(observed(slots), LOW, HIGH)
    under_way = reserve(slots, plan)
    assert replanned(observed(under_way), LOW, HIGH)[1] == {}
    _, plans = replanned(reconciling(under_way, orphaned=("high", "low")), LOW, HIGH)
    assert [awaited.deployment_id for awaited in plans["high"].commands[0].after] == ["low"]
    reasons = {command.worker_id: command.unload_reason for command in plans["low"].commands}
    assert reasons == {"worker-a": UnloadReason.EVICTED, "worker-b": None}
    newer = Wanted("high", "1.1.0", memory="6Gi", priority=90)
    _, plans = replanned(observed(under_way), LOW, newer)
    (load,) = plans["high"].commands
    assert (load.reason, load.after[0].deployment_id) == ("instead of 1.0.0, which was still loading", "low")


def test_devices_are_asked_when_a_tie_of_priorities_was_broken():
    """Which of two equals goes depends on who was asked last; without that the plan names whom to ask."""
    workers = [worker("worker-a", memory="8Gi")]
    equals = [Wanted("one", priority=10), Wanted("two", priority=10)]
    newcomer = Wanted("high", memory="4Gi", priority=90)
    slots, desired = running(*equals, workers=workers), registry(workers, *equals, newcomer)
    assert consider(observed(slots), desired).wondered == ("worker-a",)
    asked = observed(slots).model_copy(update={"facts": {"worker-a": DeviceFacts(last_inference={"one": NOW})}})
    plan, doubtful = consider(asked, desired)
    assert ([d.deployment_id for d in plan.deployments], doubtful) == (["high", "two"], ())
    assert consider(observed(slots), registry(workers, *equals)).wondered == ()


def test_plan_is_stamped_with_the_ledger_it_was_made_for():
    """On any other ledger it would be refused."""
    asked = observed(running(LOW))
    plan, _ = replanned(asked, LOW)
    assert plan.stamp == stamp(asked.applied_sha, asked.generation, asked.slots, asked.cordons, asked.holds)
    assert plan.stamp != replanned(observed(), LOW)[0].stamp


def test_newcomer_whose_room_was_not_freed_asks_for_it_anew():
    """Where the victim's UNLOAD failed it is evicted again; where that may not be, another place is looked for."""
    slots = running(LOW)
    plan, _ = replanned(observed(slots), LOW, HIGH)
    kept = answered(slots, plan, {"worker-a": "PREEMPTION_FAILED"})
    assert {(s.deployment_id, s.worker_id, s.state) for s in kept} == {
        ("high", "worker-a", ModelState.FAILED),
        ("low", "worker-a", ModelState.FAILED),
        ("low", "worker-b", ModelState.READY),
    }
    _, plans = replanned(reconciling(kept), LOW, HIGH)
    (load,) = plans["high"].commands
    assert [(awaited.deployment_id, awaited.worker_id) for awaited in load.after] == [("low", "worker-a")]
    policy = EvictionPolicy(enable_auto_eviction=False)
    spared = [config.model_copy(update={"eviction_policy": policy}) for config in TWO]
    _, plans = replanned(reconciling(kept), LOW, HIGH, workers=spared)
    assert [(command.action, command.worker_id) for command in plans["high"].commands] == [(Action.UNLOAD, "worker-a")]
    assert plans["high"].commands[0].reason == "no place for 1.0.0: memory: 6Gi wanted, 4Gi of 8Gi taken"


def test_update_may_evict_where_gaps_are_refused():
    """The RELOAD waits for the victim; until then the old version serves."""
    one = [worker("worker-a", memory="6Gi")]
    old, new = (Wanted("m", f"{n}.0.0", memory=f"{2 * n}Gi", priority=90) for n in (1, 2))
    low = Wanted("low", memory="2Gi", priority=10)
    asked = reconciling(running(old, low, workers=one), limits=PlanLimits(update_gap=UpdateGap.REFUSE))
    _, plans = replanned(asked, new, low, workers=one)
    (command,) = plans["m"].commands
    assert (command.action, command.recreate) == (Action.RELOAD, False)
    assert (command.reason, command.after[0].deployment_id) == (
        "1.0.0 → 2.0.0, makes room: evicts low (priority 10)",
        "low",
    )


def test_what_has_gone_comes_back_where_the_newcomer_no_longer_needs_its_room():
    """The newcomer is planned anew and smaller: what it waited for before is not promised any more."""
    one = [worker("worker-a", memory="8Gi")]
    slots = running(LOW, workers=one)
    plan, _ = replanned(observed(slots), LOW, HIGH, workers=one)
    under_way = [slot for slot in reserve(slots, plan) if slot.deployment_id == "high"]
    smaller = Wanted("high", version="1.1.0", memory="2Gi", priority=90)
    _, plans = replanned(observed(under_way), LOW, smaller, workers=one)
    assert [(c.action, c.worker_id, c.after) for c in plans["high"].commands] == [(Action.LOAD, "worker-a", ())]
    assert [(c.action, c.worker_id) for c in plans["low"].commands] == [(Action.LOAD, "worker-a")]
