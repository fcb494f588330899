"""What happens to replicas whose device fails, returns, is drained or may not keep them (PRD §5.2, §8.3; FAULTS 90)."""

import pytest
from fleets import NOW, Wanted, answered, device, observed, reconciling, registry, worker

from longshore.planning.check import check
from longshore.planning.plan import make_plan
from longshore.planning.render import render
from longshore.schemas.commands import Action
from longshore.schemas.devices import DeviceStatus, Health
from longshore.schemas.fleet import PlanLimits
from longshore.schemas.ledger import reserve
from longshore.schemas.orders import Cordon
from longshore.schemas.plans import Cause, CauseKind, ChangeType

FOUR = [worker(f"worker-{name}") for name in "abcd"]


def running(*wanted, workers=FOUR):
    return answered((), make_plan(observed(), registry(workers, *wanted)))


def replanned(asked, *wanted, workers=FOUR, adopted=()):
    """Return the sound plans of a question, by deployment id."""
    desired = registry(workers, *wanted)
    plan = make_plan(asked, desired, adopted)
    assert check(plan, asked, desired) == []
    return plan, {deployment.deployment_id: deployment for deployment in plan.deployments}


def commands(deployment):
    return [(command.action, command.worker_id) for command in deployment.commands]


def told(deployment):
    return [f"{change.type}: {change.reason}" for change in deployment.changes]


def test_what_a_failed_device_held_is_replaced_by_priority():
    """The more important deployment gets the room that is left; the other says what it lacks."""
    small = [worker(name, memory="8Gi") for name in ("worker-a", "worker-b", "worker-c")]
    high, low = Wanted("high", memory="6Gi", priority=90), Wanted("low", memory="6Gi", priority=10)
    slots = running(low, high, workers=small)
    assert {(s.deployment_id, s.worker_id) for s in slots} == {("high", "worker-a"), ("low", "worker-b")}
    gone = device("worker-a", Health.FAILED) | device("worker-b", Health.FAILED)
    _, plans = replanned(reconciling(slots, gone, limits=PlanLimits(suspect_share=1.0)), low, high, workers=small)
    assert told(plans["high"]) == ["UNRESPONSIVE_WORKER: worker-a has failed: nothing was heard of it"]
    assert (plans["high"].lost, commands(plans["high"])) == (("worker-a",), [(Action.LOAD, "worker-c")])
    assert (plans["low"].lost, plans["low"].commands, plans["low"].unplaced) == (("worker-b",), (), 1)


def test_surplus_of_a_device_that_returns_waits_until_its_replacements_are_ready():
    """A healed partition never leaves fewer READY than wanted, and the returned device is the one that gives up."""
    wanted = Wanted("m", replicas=2)
    slots = running(wanted)
    plan, plans = replanned(reconciling(slots, device("worker-a", Health.FAILED)), wanted)
    assert commands(plans["m"]) == [(Action.LOAD, "worker-c")]
    under_way = reserve(slots, plan)
    _, plans = replanned(reconciling(under_way, device("worker-a")), wanted)
    assert "m" not in plans, "its rollout goes on"
    ready = answered(slots, plan)
    _, plans = replanned(reconciling(ready, device("worker-a", Health.FAILED)), wanted)
    assert "m" not in plans, "nothing more is done about a device that is away"
    _, plans = replanned(reconciling(ready, device("worker-a")), wanted)
    assert commands(plans["m"]) == [(Action.UNLOAD, "worker-a")]
    for doubtful in (device("worker-b", Health.SUSPECT), device("worker-b", status=DeviceStatus.LEAVING)):
        _, plans = replanned(reconciling(ready, device("worker-a") | doubtful), wanted)
        (later,) = plans["m"].deferred
        assert (plans["m"].commands, later.worker_id, later.waits_for) == ((), "worker-a", "2 others are READY")


def test_rollout_does_not_wait_for_a_device_that_has_failed():
    """Where a LOAD was under way there, a plan is made though nothing can be commanded: it supersedes the rollout."""
    wanted, one = Wanted("m", memory="10Gi"), [worker("worker-a")]
    slots = reserve((), make_plan(observed(), registry(one, wanted)))
    plan, plans = replanned(reconciling(slots, device("worker-a", Health.FAILED)), wanted, workers=one)
    assert (plans["m"].commands, plans["m"].lost, plans["m"].generation) == ((), ("worker-a",), 2)
    _, again = replanned(
        reconciling(reserve(slots, plan), device("worker-a", Health.FAILED), generation=2), wanted, workers=one
    )
    assert again["m"].lost == ()


def test_disabled_model_on_a_failed_device_is_owed():
    """The commit ends without the device; once it is heard again, the first look unloads the model there."""
    on, off = Wanted("m", replicas=2), Wanted("m", replicas=2, enabled=False)
    slots = running(on)
    asked = observed(slots, device("worker-a", Health.FAILED))
    plan, plans = replanned(asked, off)
    (later,) = plans["m"].deferred
    assert (commands(plans["m"]), plans["m"].lost) == ([(Action.UNLOAD, "worker-b")], ("worker-a",))
    assert (later.worker_id, later.waits_for) == ("worker-a", "the device is heard again")
    slots = answered(slots, plan)
    _, plans = replanned(reconciling(slots, device("worker-a", Health.FAILED)), off)
    assert plans == {}
    _, plans = replanned(reconciling(slots, device("worker-a")), off)
    assert commands(plans["m"]) == [(Action.UNLOAD, "worker-a")]


def test_drained_device_is_emptied_without_a_gap():
    """What it holds is loaded elsewhere first; what has no other place stays, and the plan says so."""
    movable, bound = Wanted("movable"), Wanted("bound", selector={"zone": "x"})
    workers = [worker("worker-a", zone="x", memory="32Gi"), worker("worker-b", zone="y")]
    slots = running(movable, bound, workers=workers[:1])
    cordons = {"worker-a": Cordon(worker_id="worker-a", kind="drain", by="olga", reason="disk swap")}
    plan, plans = replanned(reconciling(slots, cordons=cordons), movable, bound, workers=workers)
    why = "moves from worker-a: the device is being drained (olga, disk swap)"
    assert told(plans["movable"]) == [f"MIGRATE: {why}"]
    assert commands(plans["movable"]) == [(Action.LOAD, "worker-b")]
    assert f"  later  worker-a  UNLOAD once another is READY: {why[21:]}" in render(plan).splitlines()
    assert (plans["bound"].commands, plans["bound"].unplaced, len(plans["bound"].deferred)) == ((), 1, 1)
    asked = reconciling(answered(slots, plan), cordons=cordons)
    _, plans = replanned(asked, movable, bound, workers=workers)
    assert commands(plans["movable"]) == [(Action.UNLOAD, "worker-a")]


@pytest.mark.parametrize(
    "more",
    [
        {"devices": device("worker-a", Health.RECOVERING)},
        {"devices": device("worker-a", Health.SUSPECT)},
        {"devices": device("worker-a", status=DeviceStatus.LEAVING)},
        {"cordons": {"worker-a": Cordon(worker_id="worker-a", kind="cordon")}},
        {"failures": {"worker-a": (NOW,)}},
    ],
)
def test_device_that_takes_nothing_new_keeps_what_it_holds(more):
    """Cordoned, back, flapping, suspect, leaving: none of it takes a replica away."""
    wanted = Wanted("m", replicas=2)
    _, plans = replanned(reconciling(running(wanted), **more), wanted)
    assert plans == {}


def test_what_git_never_named_is_an_orphan():
    """A model that only a report knows is unloaded as ORPHAN; one whose manifest was removed as DISABLE."""
    slots = running(Wanted("m"))
    _, plans = replanned(reconciling(), adopted=slots)
    assert [change.type for change in plans["m"].changes] == [ChangeType.ORPHAN]
    assert told(plans["m"]) == ["ORPHAN: runs on worker-a, and git does not name it"]
    assert commands(plans["m"]) == [(Action.UNLOAD, "worker-a")]
    _, plans = replanned(reconciling(slots))
    assert [change.type for change in plans["m"].changes] == [ChangeType.DISABLE]


def test_what_is_found_as_wanted_is_taken_in_and_left_alone():
    """A ledger that was lost is made anew without a command."""
    wanted = Wanted("m", replicas=2)
    slots = running(wanted)
    cause = Cause(kind=CauseKind.REBUILD, words="the ledger was lost", by="olga@desk")
    asked = reconciling(generation=7)
    asked = asked.model_copy(update={"request": asked.request.model_copy(update={"cause": cause})})
    plan, plans = replanned(asked, wanted, adopted=slots)
    assert (plans, plan.adopted, plan.moves, plan.generation) == ({}, slots, True, 7)
    assert render(plan).splitlines()[1:] == [
        "because the ledger was lost (olga@desk)",
        "found m 1.0.0 on worker-a, ready",
        "found m 1.0.0 on worker-b, ready",
        "nothing to do",
    ]


def test_rollout_that_nobody_sees_to_is_commanded_anew():
    """An operator who terminates a rollout in the Web UI has it back with the next look, and only that one."""
    wanted = [Wanted("m", replicas=2), Wanted("n")]
    slots = reserve((), make_plan(observed(), registry(FOUR, *wanted)))
    assert replanned(reconciling(slots), *wanted)[1] == {}
    _, plans = replanned(reconciling(slots, orphaned=("m",)), *wanted)
    assert [command.reason for command in plans["m"].commands] == ["carried on: under way since generation 1"] * 2
    assert plans.keys() == {"m"}


def test_reconciliation_stops_at_its_limit_of_commands():
    """The most important goes first; the rest is for the next reconciliation. A commit has no such limit."""
    wanted = [Wanted("high", replicas=2, priority=9), Wanted("low", priority=1)]
    limits = PlanLimits(commands=2)
    assert replanned(reconciling(limits=limits), *wanted)[1].keys() == {"high"}
    assert replanned(observed().model_copy(update={"limits": limits}), *wanted)[1].keys() == {"high", "low"}


@pytest.mark.parametrize("moved", ["selector", "drain"])
def test_a_reload_under_way_where_nothing_may_stay_is_carried_on_until_it_is_replaced(moved):
    """The rollout that saw to it is superseded by the plan that moves it: nobody else would hear how it ends."""
    fleet = [worker("worker-a", zone="x", memory="6Gi"), worker("worker-b", zone="y", memory="6Gi")]
    here = {"zone": "x"} if moved == "selector" else {}
    slots = answered((), make_plan(observed(), registry(fleet, Wanted("m", selector={"zone": "x"}))))
    newer = Wanted("m", version="1.1.0", selector=here)
    under_way = reserve(slots, make_plan(observed(slots, generation=1), registry(fleet, newer)))
    cordons = {"worker-a": Cordon(worker_id="worker-a", kind="drain")} if moved == "drain" else {}
    there = Wanted("m", version="1.1.0", selector={"zone": "y"} if moved == "selector" else {})
    asked = reconciling(under_way, cordons=cordons)
    _, plans = replanned(asked, there, workers=fleet)
    assert commands(plans["m"]) == [(Action.RELOAD, "worker-a"), (Action.LOAD, "worker-b")]
    assert [(later.action, later.worker_id) for later in plans["m"].deferred] == [(Action.UNLOAD, "worker-a")]
