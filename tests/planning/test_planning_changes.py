"""What differs between git and the fleet, and what each difference leads to (PRD §5.2, §11.1)."""

from fleets import Wanted, answered, device, observed, registry, worker

from longshore.planning.plan import make_plan
from longshore.schemas.commands import Action, UnloadReason
from longshore.schemas.devices import Health
from longshore.schemas.ledger import reserve
from longshore.schemas.plans import ChangeType

FIVE = [worker(f"worker-{name}") for name in "abcde"]


def running(*wanted, workers=FIVE, failures=None):
    """Return the slots of a fleet on which `wanted` has been rolled out."""
    return answered((), make_plan(observed(), registry(workers, *wanted)), failures)


def planned(slots, *wanted, workers=FIVE, devices=None):
    """Return the only deployment plan of a commit, or None where there is nothing to do."""
    plan = make_plan(observed(slots, devices), registry(workers, *wanted))
    assert len(plan.deployments) <= 1
    return plan.deployments[0] if plan.deployments else None


def kinds(deployment):
    return [change.type for change in deployment.changes]


def commands(deployment):
    return [(command.action, command.worker_id) for command in deployment.commands]


def later(deployment):
    assert {one.action for one in deployment.deferred} <= {Action.UNLOAD}
    return [(one.worker_id, one.waits_for) for one in deployment.deferred]


def test_new_deployment_is_loaded_on_as_many_workers_as_replicas():
    """A deployment that nobody has is NEW_DEPLOYMENT and gets a LOAD per replica."""
    deployment = planned((), Wanted("m", replicas=3))
    assert kinds(deployment) == [ChangeType.NEW_DEPLOYMENT]
    assert commands(deployment) == [(Action.LOAD, f"worker-{name}") for name in "abc"]


def test_same_commit_content_changes_nothing():
    """What already runs as wanted does not appear in the plan, and the counter stays."""
    slots = running(Wanted("m", replicas=3))
    plan = make_plan(observed(slots), registry(FIVE, Wanted("m", replicas=3)))
    assert plan.deployments == ()
    assert plan.generation == 1


def test_new_version_is_reloaded_where_the_old_one_runs():
    """VERSION_UPDATE says both versions, and each RELOAD carries what is believed to run."""
    deployment = planned(running(Wanted("m", "1.0.0", replicas=2)), Wanted("m", "1.1.0", replicas=2))
    assert kinds(deployment) == [ChangeType.VERSION_UPDATE]
    assert deployment.changes[0].reason == "1.0.0 → 1.1.0 on 2 workers"
    assert commands(deployment) == [(Action.RELOAD, "worker-a"), (Action.RELOAD, "worker-b")]
    assert {command.previous_version for command in deployment.commands} == {"1.0.0"}


def test_going_back_is_a_version_update_with_a_higher_generation():
    """A rollback is a RELOAD like any other; its generation rises all the same."""
    slots = running(Wanted("m", "1.0.0"))
    plan = make_plan(observed(slots), registry(FIVE, Wanted("m", "1.1.0")))
    slots = answered(slots, plan)
    back = planned(slots, Wanted("m", "1.0.0"))
    assert back.changes[0].reason == "1.1.0 → 1.0.0 on 1 worker"
    assert back.generation == 3


def test_changed_endpoint_is_an_update_of_the_same_version():
    """The digest decides, not the version: an endpoint that changed is reloaded, and the words say so."""
    deployment = planned(running(Wanted("m")), Wanted("m", endpoint="https://api.example/v2"))
    assert kinds(deployment) == [ChangeType.VERSION_UPDATE]
    assert "same version" in deployment.changes[0].reason
    assert commands(deployment) == [(Action.RELOAD, "worker-a")]


def test_more_replicas_are_loaded_beside_the_others():
    """SCALE_UP loads only what is missing."""
    deployment = planned(running(Wanted("m", replicas=2)), Wanted("m", replicas=4))
    assert kinds(deployment) == [ChangeType.SCALE_UP]
    assert deployment.changes[0].reason == "2 → 4 replicas"
    assert commands(deployment) == [(Action.LOAD, "worker-c"), (Action.LOAD, "worker-d")]


def test_fewer_replicas_are_unloaded():
    """SCALE_DOWN unloads the surplus, with the reason that callers are told."""
    deployment = planned(running(Wanted("m", replicas=4)), Wanted("m", replicas=3))
    assert kinds(deployment) == [ChangeType.SCALE_DOWN]
    assert [command.unload_reason for command in deployment.commands] == [UnloadReason.SCALED_DOWN]


def test_scale_down_takes_the_busiest_device():
    """The replica on the most utilised device goes first."""
    slots = running(Wanted("m", replicas=5), Wanted("other", priority=10, selector={"zone": "c"}), workers=zoned())
    deployment = planned(
        slots, Wanted("m", replicas=4), Wanted("other", priority=10, selector={"zone": "c"}), workers=zoned()
    )
    assert commands(deployment) == [(Action.UNLOAD, "worker-c")]
    assert "50% of the device in use, 2 models" in deployment.commands[0].reason


def test_scale_down_takes_what_serves_nothing_first():
    """A FAILED replica goes before any that serves, whatever the devices' load."""
    slots = running(Wanted("m", replicas=3), failures={"worker-b": "MODEL_LOAD_FAILED"})
    assert commands(planned(slots, Wanted("m", replicas=2))) == [(Action.UNLOAD, "worker-b")]


def test_new_version_and_fewer_replicas_at_once():
    """A victim is not reloaded as well; it serves the old version until the new one has proved itself."""
    deployment = planned(running(Wanted("m", "1.0.0", replicas=3)), Wanted("m", "1.1.0", replicas=1))
    assert kinds(deployment) == [ChangeType.SCALE_DOWN, ChangeType.VERSION_UPDATE]
    assert commands(deployment) == [(Action.RELOAD, "worker-c")]
    assert later(deployment) == [("worker-a", "another is READY"), ("worker-b", "another is READY")]


def test_new_version_and_more_replicas_at_once():
    """What runs is reloaded, what is missing is loaded."""
    deployment = planned(running(Wanted("m", "1.0.0")), Wanted("m", "1.1.0", replicas=2))
    assert kinds(deployment) == [ChangeType.VERSION_UPDATE, ChangeType.SCALE_UP]
    assert commands(deployment) == [(Action.RELOAD, "worker-a"), (Action.LOAD, "worker-b")]


def test_disabled_removed_and_zero_replicas_unload_everywhere():
    """DISABLE has three causes, and each is told."""
    slots = running(Wanted("m", replicas=2))
    for wanted, cause, reason in [
        ((Wanted("m", replicas=2, enabled=False),), "enabled is false", UnloadReason.DISABLED),
        ((Wanted("m", replicas=0),), "replicas is 0", UnloadReason.DISABLED),
        ((), "the manifest is no longer in git", UnloadReason.REMOVED),
    ]:
        deployment = planned(slots, *wanted)
        assert kinds(deployment) == [ChangeType.DISABLE]
        assert deployment.changes[0].reason.startswith(cause)
        assert deployment.version is None
        assert [(c.action, c.unload_reason) for c in deployment.commands] == [(Action.UNLOAD, reason)] * 2


def test_failed_replica_is_loaded_again_by_the_next_push():
    """A push is a retry: a FAILED slot is loaded again in its place, with a new generation."""
    slots = running(Wanted("m", replicas=2), failures={"worker-b": "STORAGE_UNAVAILABLE"})
    deployment = planned(slots, Wanted("m", replicas=2))
    assert kinds(deployment) == [ChangeType.FAILED_MODEL]
    told = "1 of 2 replicas failed: STORAGE_UNAVAILABLE on worker-b (tried again there)"
    assert deployment.changes[0].reason == told
    assert commands(deployment) == [(Action.LOAD, "worker-b")]


def test_failed_replica_on_a_lost_device_is_replaced():
    """Where the device itself is gone, the retry goes to another one; the lost one is told nothing."""
    slots = running(Wanted("m", replicas=2), failures={"worker-b": "DEVICE_UNREACHABLE"})
    deployment = planned(slots, Wanted("m", replicas=2), devices=device("worker-b", Health.FAILED))
    assert kinds(deployment) == [ChangeType.UNRESPONSIVE_WORKER]
    assert commands(deployment) == [(Action.LOAD, "worker-c")]
    assert deployment.lost == ("worker-b",)


def test_failed_reload_is_tried_again_by_the_next_push():
    """After a RELOAD that failed the old version serves; the next push finds it outdated again."""
    slots = running(Wanted("m", "1.0.0"))
    update = registry(FIVE, Wanted("m", "1.1.0"))
    slots = answered(slots, make_plan(observed(slots), update), {"worker-a": "VALIDATION_FAILED"})
    assert [(slot.version, slot.code) for slot in slots] == [("1.0.0", "VALIDATION_FAILED")]
    assert commands(planned(slots, Wanted("m", "1.1.0"))) == [(Action.RELOAD, "worker-a")]


def test_replica_moves_when_the_selector_moves():
    """A replica where the selector no longer matches is replaced where it does, and unloaded when that is READY."""
    slots = running(Wanted("m", selector={"zone": "a"}), workers=zoned())
    moved = Wanted("m", selector={"zone": "b"})
    plan = make_plan(observed(slots), registry(zoned(), moved))
    deployment = plan.deployments[0]
    assert kinds(deployment) == [ChangeType.MIGRATE]
    assert deployment.changes[0].reason == "moves from worker-a: the selector no longer matches it"
    assert commands(deployment) == [(Action.LOAD, "worker-b")]
    assert later(deployment) == [("worker-a", "another is READY")]
    deployment = planned(answered(slots, plan), moved, workers=zoned())
    assert commands(deployment) == [(Action.UNLOAD, "worker-a")]


def test_device_that_left_git_counts_as_gone():
    """Its replica is replaced, nothing is sent to it, and its slot is freed."""
    slots = running(Wanted("m", replicas=2))
    plan = make_plan(observed(slots), registry(FIVE[1:], Wanted("m", replicas=2)))
    assert commands(plan.deployments[0]) == [(Action.LOAD, "worker-c")]
    assert {slot.worker_id for slot in reserve(slots, plan)} == {"worker-b", "worker-c"}


def test_rollout_under_way_to_the_same_version_is_left_alone():
    """Planning again while devices still work on it yields nothing."""
    wanted = registry(FIVE, Wanted("m", replicas=3))
    slots = reserve((), make_plan(observed(), wanted))
    assert make_plan(observed(slots), wanted).deployments == ()


def test_rollout_under_way_is_carried_on_when_its_deployment_changes_again():
    """A new generation supersedes the rollout before it, so it commands anew what that one had under way."""
    slots = reserve((), make_plan(observed(), registry(FIVE, Wanted("m", replicas=2))))
    deployment = planned(slots, Wanted("m", replicas=3))
    assert commands(deployment) == [(Action.LOAD, f"worker-{name}") for name in "abc"]
    assert deployment.commands[0].reason.startswith("carried on")


def test_second_push_supersedes_the_versions_under_way():
    """What is on its way to another digest is commanded anew; a RELOAD still names what serves."""
    slots = running(Wanted("m", "1.0.0"))
    slots = reserve(slots, make_plan(observed(slots), registry(FIVE, Wanted("m", "1.1.0"))))
    deployment = planned(slots, Wanted("m", "1.2.0"))
    assert [(c.action, c.previous_version) for c in deployment.commands] == [(Action.RELOAD, "1.0.0")]


def test_second_push_back_to_what_serves():
    """While 1.0.0 → 1.1.0 is under way, a push back to 1.0.0 reloads from 1.1.0: it may be there already."""
    slots = running(Wanted("m", "1.0.0"))
    slots = reserve(slots, make_plan(observed(slots), registry(FIVE, Wanted("m", "1.1.0"))))
    deployment = planned(slots, Wanted("m", "1.0.0"))
    assert [(c.action, c.previous_version) for c in deployment.commands] == [(Action.RELOAD, "1.1.0")]


def test_disable_comes_first_then_priority_then_id():
    """What is to end is planned first, the rest in the order of its priority."""
    slots = running(Wanted("ends", priority=1))
    plan = make_plan(
        observed(slots),
        registry(FIVE, Wanted("b", priority=50), Wanted("a", priority=50), Wanted("urgent", priority=100)),
    )
    assert [deployment.deployment_id for deployment in plan.deployments] == ["ends", "urgent", "a", "b"]
    assert {deployment.generation for deployment in plan.deployments} == {2}


def zoned():
    return [worker(f"worker-{name}", zone=name) for name in "abcde"]


def test_a_device_that_leaves_git_is_waited_for_no_longer():
    """Its LOAD can never end: the new generation supersedes the rollout, and what else is under way is carried on."""
    slots = reserve((), make_plan(observed(), registry(FIVE[:3], Wanted("m", replicas=3))))
    deployment = planned(slots, Wanted("m", replicas=2), workers=FIVE[:2])
    assert deployment.changes[-1].reason == "no longer waits for worker-c: not in git any more"
    assert commands(deployment) == [(Action.LOAD, "worker-a"), (Action.LOAD, "worker-b")]


def test_an_unload_on_a_device_that_leaves_git_is_waited_for_no_longer():
    """Nobody will confirm it; the plan is empty but for its generation, and the next one has nothing to do."""
    before = registry(FIVE[:2], Wanted("m", replicas=2, enabled=False))
    slots = reserve(running(Wanted("m", replicas=2), workers=FIVE[:2]), make_plan(observed(), before))
    slots = reserve(slots, make_plan(observed(slots), before))
    left = next(slot for slot in slots if slot.worker_id == "worker-b")
    after = registry(FIVE[:1], Wanted("m", replicas=2, enabled=False))
    plan = make_plan(observed((left,)), after)
    assert [(d.commands, d.replicas) for d in plan.deployments] == [((), 0)]
    assert make_plan(observed(reserve((left,), plan)), after).deployments == ()
    assert commands(make_plan(observed(slots), after).deployments[0]) == [(Action.UNLOAD, "worker-a")]
