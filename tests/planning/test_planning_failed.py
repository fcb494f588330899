"""What becomes of models that fail on devices which are there, and of what is held back (PRD §8.1, §8.2, §5.5)."""

from datetime import timedelta

import pytest
from fleets import NOW, Wanted, answered, device, observed, reconciling, registry, worker

from longshore.planning.check import check
from longshore.planning.circumstances import word_to
from longshore.planning.failed import GiveUp, Retry, Wait, fate
from longshore.planning.plan import make_plan
from longshore.planning.render import render, summary
from longshore.schemas.commands import Action, UnloadReason
from longshore.schemas.devices import Health
from longshore.schemas.failures import Backoff
from longshore.schemas.fleet import PlanLimits, UpdateGap
from longshore.schemas.ledger import reserve
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.orders import Hold
from longshore.schemas.plans import ChangeType, DeploymentPlan
from longshore.schemas.slots import Demand
from longshore.schemas.workers import EvictionPolicy

THREE = [worker(f"worker-{name}") for name in "abc"]
ONE = Wanted("m", replicas=1)


def broken(wanted, code, *, failures=1, ago=0, workers=THREE, slots=(), worker_id="worker-a"):
    """Return the slots after `wanted` was rolled out and failed on one worker, `ago` seconds before now."""
    slots = answered(slots, make_plan(observed(slots), registry(workers, wanted)), {worker_id: code})
    counted = {"failures": failures, "failed_at": NOW - timedelta(seconds=ago)}
    return tuple(slot.model_copy(update=counted) if slot.worker_id == worker_id else slot for slot in slots)


def recreated(workers, old, new, code, *, ago=0):
    """Return the slots after worker-a took `old` down for `new`, which failed there `ago` seconds before now."""
    slots = answered((), make_plan(observed(), registry(workers, old)))
    failed = {"state": ModelState.FAILED, "version": new.version, "digest": new.spec.digest, "code": code}
    failed |= {"failures": 1, "failed_at": NOW - timedelta(seconds=ago)}
    return tuple(slot.model_copy(update=failed) if slot.worker_id == "worker-a" else slot for slot in slots)


def replanned(asked, *wanted, workers=THREE):
    desired = registry(workers, *wanted)
    plan = make_plan(asked, desired)
    assert check(plan, asked, desired) == []
    return plan, {deployment.deployment_id: deployment for deployment in plan.deployments}


def commands(deployment):
    return [(command.action, command.worker_id) for command in deployment.commands]


def told(deployment):
    return [f"{change.type}: {change.reason}" for change in deployment.changes]


@pytest.mark.parametrize(
    ("code", "failures", "ago", "expected"),
    [
        ("STORAGE_UNAVAILABLE", 1, 0, Wait(NOW + timedelta(seconds=30))),
        ("STORAGE_UNAVAILABLE", 1, 30, Retry()),
        ("STORAGE_UNAVAILABLE", 2, 30, Wait(NOW + timedelta(seconds=30))),
        ("STORAGE_UNAVAILABLE", 3, 120, GiveUp("failed 3 times, at last with STORAGE_UNAVAILABLE")),
        ("FENCED", 1, 30, Retry()),
        ("PREEMPTION_FAILED", 1, 30, Retry()),
        ("CAPACITY_INSUFFICIENT", 1, 10, Wait(NOW + timedelta(seconds=20))),
        ("CAPACITY_INSUFFICIENT", 1, 30, Retry()),
        ("RUNNER_OOM", 1, 999, GiveUp("failed with RUNNER_OOM: trying again does not mend that")),
        ("RUNNER_OOM", 0, 0, Retry()),
    ],
)
def test_failure_table_decides(code, failures, ago, expected):
    """What may pass is tried again after its backoff, all else is not; what was never counted is a retry."""
    (slot,) = broken(ONE, code, failures=failures, ago=ago)
    assert fate(slot, NOW, Backoff(base=timedelta(seconds=30), cap=timedelta(seconds=300), attempts=3)) == expected


def test_failure_that_may_pass_is_tried_again_in_its_place_after_its_backoff():
    """Until then the plan says when; a push does not wait."""
    slots = broken(ONE, "STORAGE_UNAVAILABLE", ago=10)
    _, plans = replanned(reconciling(slots), ONE)
    (later,) = plans["m"].deferred
    assert (plans["m"].commands, later.waits_for) == ((), "it is 12:00:20 UTC")
    assert told(plans["m"]) == [
        "FAILED_MODEL: 1 of 1 replica failed: STORAGE_UNAVAILABLE on worker-a (tried again at 12:00:20 UTC)"
    ]
    for asked in (reconciling(slots, now=NOW + timedelta(seconds=20)), observed(slots)):
        assert commands(replanned(asked, ONE)[1]["m"]) == [(Action.LOAD, "worker-a")]


def test_failure_that_does_not_pass_is_tried_once_on_another_device():
    """Then it is given up: the plan says so each time, and commands nothing more. A push tries all again."""
    slots = broken(ONE, "RUNNER_OOM")
    plan, plans = replanned(reconciling(slots), ONE)
    assert told(plans["m"]) == [
        "FAILED_MODEL: 1 of 1 replica failed: RUNNER_OOM on worker-a (another device is sought)"
    ]
    assert (commands(plans["m"]), plans["m"].lost) == ([(Action.LOAD, "worker-b")], ("worker-a",))
    slots = answered(slots, plan, {"worker-b": "RUNNER_OOM"})
    slots = tuple(slot.model_copy(update={"failures": 1, "failed_at": NOW}) for slot in slots)
    plan, plans = replanned(reconciling(slots), ONE)
    assert told(plans["m"])[0] == "FAILED_MODEL: 1 of 1 replica failed: RUNNER_OOM on worker-b (given up)"
    assert (plans["m"].commands, plans["m"].unplaced, plans["m"].given_up, plan.moves) == ((), 1, 1, False)
    assert summary(plan) == "1 deployment changes, 0 commands on 0 devices, 1 command later, 1 replica given up"
    assert plans["m"].rejections[0].reasons == ("1.0.0 failed with RUNNER_OOM: trying again does not mend that",)
    _, plans = replanned(observed(slots), ONE)
    assert (Action.LOAD, "worker-b") in commands(plans["m"])


def test_what_failed_is_unloaded_when_its_replacement_is_ready():
    """The room that a failed replica holds is given back, and not before."""
    slots = broken(ONE, "RUNNER_OOM")
    plan, _ = replanned(reconciling(slots), ONE)
    assert replanned(reconciling(reserve(slots, plan)), ONE)[1] == {}
    _, plans = replanned(reconciling(answered(slots, plan)), ONE)
    assert commands(plans["m"]) == [(Action.UNLOAD, "worker-a")]


def test_what_was_given_up_takes_no_room():
    """Nothing of it is on the device: a newcomer comes there at once, and only what is loading is evicted for it."""
    slots = broken(Wanted("m", memory="10Gi", priority=10), "RUNNER_OOM")
    low, high = Wanted("m", memory="10Gi", priority=10), Wanted("high", memory="10Gi", replicas=2, priority=90)
    two = THREE[:2]
    plan, _ = replanned(reconciling(slots), low, workers=two)
    _, plans = replanned(reconciling(reserve(slots, plan)), low, high, workers=two)
    assert [(c.worker_id, c.unload_reason) for c in plans["m"].commands] == [("worker-b", UnloadReason.EVICTED)]
    assert {(c.worker_id, bool(c.after)) for c in plans["high"].commands} == {("worker-a", False), ("worker-b", True)}


def test_room_of_what_is_given_up_goes_to_another_in_the_same_plan():
    """It asks for its room anew when it is commanded again; until then only its traces are unloaded, and need none."""
    small = [worker("worker-a", memory="4Gi", models=1)]
    broken_one, other = Wanted("m", memory="3Gi", priority=50), Wanted("other", memory="3Gi", priority=50)
    slots = broken(broken_one, "RUNNER_OOM", workers=small)
    plan, plans = replanned(reconciling(slots), broken_one, other, workers=small)
    assert (plans["m"].lost, plans["m"].unplaced) == (("worker-a",), 1)
    assert commands(plans["other"]) == [(Action.LOAD, "worker-a")]
    slots = answered(slots, plan)
    policy = EvictionPolicy(enable_auto_eviction=False)
    spared = [config.model_copy(update={"eviction_policy": policy}) for config in small]
    for wanted in (broken_one, Wanted("m", enabled=False)):
        plan, plans = replanned(observed(slots), wanted, other, workers=spared)
        assert commands(plans["m"]) == [(Action.UNLOAD, "worker-a")]
        assert "other" not in plans
    gone = next(slot for slot in reserve(slots, plan) if slot.deployment_id == "m")
    assert (gone.reserved, gone.models) == (Demand(), 0)


def test_who_comes_instead_of_traces_takes_a_place_itself():
    """What a lost ledger finds FAILED there takes nothing: whoever evicts it has no model's place from it."""
    two = [worker("worker-a", models=2)]
    low, high, last = Wanted("low", priority=50), Wanted("high", priority=90), Wanted("last", priority=10)
    slots = broken(low, "RUNNER_OOM", workers=two)
    found = slots[0].model_copy(update={"demand": Demand()})
    other = answered((), make_plan(observed(), registry(two, Wanted("other", priority=90))))
    _, plans = replanned(reconciling((found, *other)), low, high, last, Wanted("other", priority=90), workers=two)
    assert [awaited.deployment_id for awaited in plans["high"].commands[0].after] == ["low"]
    assert (plans["last"].commands, plans["last"].unplaced) == ((), 1)


def test_reload_that_has_failed_is_not_tried_at_every_look():
    """The old version serves; its code and its clock stand at the slot, and the failure table decides here as well."""
    old, new = Wanted("m", "1.0.0"), Wanted("m", "1.1.0")
    serving = answered((), make_plan(observed(), registry(THREE, old)))
    slots = broken(new, "STORAGE_UNAVAILABLE", slots=serving, ago=10)
    _, plans = replanned(reconciling(slots), new)
    (later,) = plans["m"].deferred
    assert (plans["m"].commands, later.action, later.waits_for) == ((), Action.RELOAD, "it is 12:00:20 UTC")
    assert later.reason == "1.1.0 failed with STORAGE_UNAVAILABLE, 1.0.0 serves"
    slots = broken(new, "VALIDATION_FAILED", slots=serving)
    _, plans = replanned(reconciling(slots), new)
    assert (plans["m"].commands, plans["m"].unplaced) == ((), 1)
    assert plans["m"].rejections[0].reasons[0].endswith("; 1.0.0 stays")


@pytest.mark.parametrize("kind", ["paused", "aborted", "quarantined"])
def test_held_version_is_brought_nowhere(kind):
    """The plan says what holds it back; a commit with another version leaves the hold behind."""
    old, new, newest = (Wanted("m", version, replicas=2) for version in ("1.0.0", "1.1.0", "1.2.0"))
    slots = answered((), make_plan(observed(), registry(THREE, old)))
    hold = Hold(deployment_id="m", kind=kind, digest=new.spec.digest, by="olga", reason="looks odd")
    plan, plans = replanned(reconciling(slots, device("worker-a", Health.FAILED), holds=(hold,)), new)
    assert (plans["m"].commands, plans["m"].held) == ((), f"{kind} by olga: looks odd")
    assert f"held: {kind} by olga: looks odd" in render(plan)
    assert "2 of 2 wanted replicas are held back from 1.1.0" in render(plan)
    _, plans = replanned(reconciling(slots, holds=(hold,)), newest)
    assert len(plans["m"].commands) == 2


@pytest.mark.parametrize(
    ("kind", "digest", "more", "expected"),
    [
        ("paused", None, {}, "pause"),
        ("paused", None, {"held": "paused by olga"}, "pause"),
        ("paused", None, {"version": None, "digest": None}, "resume"),
        ("aborted", "d", {}, "abort"),
        ("aborted", "another", {}, "resume"),
        ("aborted", "d", {"held": "aborted by olga"}, "resume"),
        ("quarantined", "d", {}, "abort"),
    ],
)
def test_rollout_is_told_of_a_hold_that_its_plan_did_not_know(kind, digest, more, expected):
    """A pause holds back whatever is brought somewhere; an abort not what a plan commands that has heeded it."""
    facts = {"deployment_id": "m", "generation": 7, "version": "1", "digest": "d", "replicas": 1}
    plan = DeploymentPlan.model_validate({**facts, "changes": (), "commands": (), **more})
    holds = (Hold(deployment_id="other", kind="paused"), Hold(deployment_id="m", kind=kind, digest=digest, by="olga"))
    word = word_to(plan, holds)
    assert (word.kind, word.generation) == (expected, 7)
    assert word.code == ("QUARANTINED" if kind == "quarantined" else "ABORTED")
    assert word_to(plan, ()).kind == "resume"


def test_paused_deployment_is_disabled_all_the_same():
    """Pausing forbids all but an emergency disable; other holds let go what is too many."""
    two, one = Wanted("m", replicas=2), Wanted("m", replicas=1)
    slots = answered((), make_plan(observed(), registry(THREE, two)))
    paused = (Hold(deployment_id="m", kind="paused"),)
    _, plans = replanned(observed(slots).model_copy(update={"holds": paused}), Wanted("m", enabled=False))
    assert commands(plans["m"]) == [(Action.UNLOAD, "worker-a"), (Action.UNLOAD, "worker-b")]
    _, plans = replanned(reconciling(slots, holds=paused), one)
    assert (plans["m"].commands, plans["m"].deferred[0].waits_for) == ((), "it is resumed")
    _, plans = replanned(reconciling(slots, holds=(Hold(deployment_id="m", kind="aborted"),)), one)
    assert [command.action for command in plans["m"].commands] == [Action.UNLOAD]


def test_last_replica_that_serves_is_not_recreated():
    """Of several the last one waits until another is READY; of one there is no other, so it has its gap."""
    tight = [worker("worker-a", memory="6Gi"), worker("worker-b", memory="6Gi")]
    old, new = (Wanted("m", version, replicas=2, memory="4Gi") for version in ("1.0.0", "1.1.0"))
    slots = answered((), make_plan(observed(), registry(tight, old)))
    limits = PlanLimits(max_unavailable=5)
    _, plans = replanned(reconciling(slots, limits=limits), new, workers=tight)
    assert [command.recreate for command in plans["m"].commands] == [True, True]
    assert plans["m"].max_unavailable == 1
    plan, plans = replanned(reconciling(slots[:1], limits=limits), new, workers=tight)
    (later,) = plans["m"].deferred
    assert commands(plans["m"]) == [(Action.LOAD, "worker-b")]
    assert (later.action, later.worker_id, later.waits_for) == (Action.RELOAD, "worker-a", "another is READY")
    _, plans = replanned(reconciling(answered(slots[:1], plan), limits=limits), new, workers=tight)
    assert [(command.worker_id, command.recreate) for command in plans["m"].commands] == [("worker-a", True)]
    single = Wanted("m", "1.1.0", memory="4Gi")
    _, plans = replanned(reconciling(slots[:1]), single, workers=tight)
    assert [command.recreate for command in plans["m"].commands] == [True]
    refusing = reconciling(slots[:1], limits=PlanLimits(update_gap=UpdateGap.REFUSE))
    assert replanned(refusing, single, workers=tight)[1]["m"].commands == ()


def test_last_replica_waits_for_no_other_that_has_no_place():
    """Where the plan says that the others find none, the update comes with its gap; what is under way is waited for."""
    tight = [worker("worker-a", memory="6Gi"), worker("worker-b", memory="2Gi")]
    old, new = (Wanted("m", version, replicas=2, memory="4Gi") for version in ("1.0.0", "1.1.0"))
    slots = answered((), make_plan(observed(), registry(tight, old)))
    _, plans = replanned(reconciling(slots), new, workers=tight)
    assert [(command.worker_id, command.recreate) for command in plans["m"].commands] == [("worker-a", True)]
    assert (plans["m"].unplaced, plans["m"].deferred) == (1, ())
    assert plans["m"].commands[0].gap == "worker-a serves nothing while 1.1.0 loads"
    refusing = reconciling(slots, limits=PlanLimits(update_gap=UpdateGap.REFUSE))
    assert replanned(refusing, new, workers=tight)[1]["m"].commands == ()
    going = slots[0].model_copy(update={"worker_id": "worker-b", "state": ModelState.UNLOADING})
    assert replanned(reconciling((*slots, going)), new, workers=tight)[1] == {}


def test_no_replica_is_taken_down_for_a_version_that_has_failed_elsewhere():
    """A broken version takes one replica down, and no other until it is READY in its place; a push is no exception."""
    tight = [worker(f"worker-{letter}", memory="6Gi") for letter in "abc"]
    old, new = (Wanted("m", version, replicas=3, memory="4Gi") for version in ("1.0.0", "1.1.0"))
    slots = recreated(tight, old, new, "STORAGE_UNAVAILABLE", ago=40)
    for asked in (reconciling(slots), observed(slots)):
        plan, plans = replanned(asked, new, workers=tight)
        assert commands(plans["m"]) == [(Action.LOAD, "worker-a")]
        assert [(one.action, one.worker_id, one.waits_for) for one in plans["m"].deferred] == [
            (Action.RELOAD, name, "1.1.0 is READY in place of what failed") for name in ("worker-b", "worker-c")
        ]
        assert "both do not fit, and 1.1.0 has failed on worker-a" in render(plan)
    waiting = recreated(tight, old, new, "STORAGE_UNAVAILABLE", ago=10)
    assert replanned(reconciling(waiting), new, workers=tight)[1]["m"].commands == ()
    _, plans = replanned(reconciling(answered(slots, plan)), new, workers=tight)
    assert commands(plans["m"]) == [(Action.RELOAD, "worker-b"), (Action.RELOAD, "worker-c")]


def test_want_of_room_on_one_device_holds_nothing_up_on_another():
    """It says nothing of the version: the device may have held what was to go, and is asked again."""
    tight = [worker(f"worker-{letter}", memory="6Gi") for letter in "abc"]
    old, new = (Wanted("m", version, replicas=3, memory="4Gi") for version in ("1.0.0", "1.1.0"))
    slots = recreated(tight, old, new, "CAPACITY_INSUFFICIENT", ago=40)
    _, plans = replanned(reconciling(slots), new, workers=tight)
    assert [command.action for command in plans["m"].commands] == [Action.LOAD, Action.RELOAD, Action.RELOAD]


def test_version_that_failed_on_one_device_and_works_on_another_goes_on():
    """What was given up on a device and taken over elsewhere keeps the others at the old version no longer."""
    tight = [worker(f"worker-{letter}", memory="6Gi") for letter in "abc"]
    old, new = (Wanted("m", version, replicas=2, memory="4Gi") for version in ("1.0.0", "1.1.0"))
    slots = recreated(tight, old, new, "RUNNER_OOM")
    plan, plans = replanned(reconciling(slots), new, workers=tight)
    assert commands(plans["m"]) == [(Action.LOAD, "worker-c")]
    assert [one.worker_id for one in plans["m"].deferred if one.action is Action.RELOAD] == ["worker-b"]
    _, plans = replanned(reconciling(answered(slots, plan)), new, workers=tight)
    assert (Action.RELOAD, "worker-b") in commands(plans["m"])


def test_scale_down_takes_what_failed_before_what_is_cordoned():
    """A device that takes nothing new serves what it has: only of what serves alike it goes first."""
    slots = broken(Wanted("m", replicas=2), "RUNNER_OOM")
    flapping = {"worker-b": (NOW,)}
    _, plans = replanned(reconciling(slots, failures=flapping), ONE)
    assert commands(plans["m"]) == [(Action.UNLOAD, "worker-a")]
    assert [change.type for change in plans["m"].changes] == [ChangeType.SCALE_DOWN]
    healthy = answered((), make_plan(observed(), registry(THREE, Wanted("m", replicas=2))))
    _, plans = replanned(reconciling(healthy, failures=flapping), ONE)
    assert commands(plans["m"]) == [(Action.UNLOAD, "worker-b")]
