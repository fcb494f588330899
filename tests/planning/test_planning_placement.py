"""Which devices are chosen, and why not the others (PRD §5.3, §11.1)."""

from fleets import Wanted, answered, device, observed, registry, worker

from longshore.planning.check import check
from longshore.planning.plan import make_plan
from longshore.schemas.commands import Action
from longshore.schemas.devices import DeviceStatus, Health
from longshore.schemas.ledger import reserve


def planned(workers, *wanted, slots=(), devices=None):
    """Plan a sound plan and return its deployments by id."""
    asked, desired = observed(slots, devices), registry(workers, *wanted)
    plan = make_plan(asked, desired)
    assert check(plan, asked, desired) == []
    return {deployment.deployment_id: deployment for deployment in plan.deployments}


def places(deployment):
    return [command.worker_id for command in deployment.commands if command.action is Action.LOAD]


def reasons(deployment):
    return {rejection.worker_id: rejection.reasons for rejection in deployment.rejections}


def test_only_workers_with_every_label_and_the_region_are_candidates():
    """One label that differs excludes a worker, and so does another region."""
    workers = [
        worker("worker-a", tier="gold"),
        worker("worker-b", tier="silver"),
        worker("worker-c", tier="gold", pool="staging"),
        worker("worker-d", tier="gold", region="eu-west-1"),
    ]
    deployment = planned(workers, Wanted("m", replicas=4, selector={"pool": "production", "tier": "gold"}))["m"]
    assert places(deployment) == ["worker-a"]
    assert deployment.unplaced == 3


def test_worker_without_capacity_is_rejected_with_every_shortfall():
    """Memory, CPU, GPU and the number of models are all told, not only the first."""
    small = worker("worker-a", memory="2Gi", cpu=1.0, models=1)
    slots = answered((), make_plan(observed(), registry([small], Wanted("other", memory="1Gi", cpu=0.5))))
    other = Wanted("other", memory="1Gi", cpu=0.5)
    deployment = planned([small], other, Wanted("m", memory="4Gi", cpu=2.0, gpu=1), slots=slots)["m"]
    assert deployment.unplaced == 1
    assert reasons(deployment)["worker-a"] == (
        "memory: 4Gi wanted, 1Gi of 2Gi taken",
        "cpu: 2 wanted, 0.5 of 1 taken",
        "gpu: 1 wanted, 0 of 0 taken",
        "models: 1 wanted, 1 of 1 taken",
    )
    shortfalls = deployment.rejections[0].shortfalls
    assert [(s.resource, s.requested, s.used, s.capacity) for s in shortfalls][3] == ("models", 1, 1, 1)


def test_exact_fit_is_a_fit():
    """A device may be filled to its last byte and core."""
    deployment = planned([worker("worker-a", memory="4Gi", cpu=0.3)], Wanted("m", memory="4Gi", cpu=0.3))["m"]
    assert places(deployment) == ["worker-a"]


def test_float_cores_add_up():
    """Three times a tenth of a core is three tenths."""
    tiny = [Wanted(f"m{n}", cpu=0.1, memory="1Mi") for n in range(3)]
    assert all(places(d) for d in planned([worker("worker-a", cpu=0.3)], *tiny).values())


def test_workers_are_ranked_by_free_memory_then_cpu_then_models_then_id():
    """Each key decides where those before it are equal."""
    workers = [
        worker("worker-d"),
        worker("worker-c"),
        worker("worker-a", memory="8Gi"),
        worker("worker-b", cpu=4.0),
    ]
    filled = [
        Wanted("one", memory="2Gi", cpu=1.0, selector={"slot": "a"}),
        Wanted("two", memory="2Gi", cpu=1.0, selector={"slot": "b"}),
    ]
    tagged = [w.model_copy(update={"labels": w.labels.model_copy(update={"slot": w.worker_id[-1]})}) for w in workers]
    slots = answered((), make_plan(observed(), registry(tagged, *filled)))
    deployment = planned(tagged, *filled, Wanted("m", replicas=4, memory="1Gi"), slots=slots)["m"]
    order = sorted(deployment.commands, key=lambda command: int(command.reason.split()[1]))
    assert [command.worker_id for command in order] == ["worker-c", "worker-d", "worker-b", "worker-a"]


def test_deployments_spread_over_the_fleet():
    """Equal models on equal devices: every device gets one before any gets two."""
    workers = [worker(f"worker-{name}") for name in "abcd"]
    placed = planned(workers, *(Wanted(f"m{n}", memory="2Gi") for n in range(4)))
    assert sorted(place for deployment in placed.values() for place in places(deployment)) == [
        w.worker_id for w in workers
    ]


def test_failed_and_leaving_devices_are_excluded_with_that_reason():
    """No new replica goes to a device that is not there, and the plan says why."""
    workers = [worker("worker-a"), worker("worker-b"), worker("worker-c")]
    devices = device("worker-a", Health.FAILED) | device("worker-b", status=DeviceStatus.LEAVING)
    deployment = planned(workers, Wanted("m", replicas=3), devices=devices)["m"]
    assert places(deployment) == ["worker-c"]
    assert reasons(deployment) == {
        "worker-a": ("the device has failed: nothing was heard of it",),
        "worker-b": ("the device is leaving",),
    }


def test_devices_never_heard_of_come_last():
    """A device that is heard is preferred, even when it is fuller."""
    workers = [worker("worker-a"), worker("worker-b", memory="8Gi"), worker("worker-c")]
    devices = device("worker-b") | device("worker-c", Health.SUSPECT)
    deployment = planned(workers, Wanted("m", replicas=2), devices=devices)["m"]
    assert places(deployment) == ["worker-b", "worker-c"]


def test_worker_that_cannot_read_the_card_is_not_chosen():
    """Schema support is filtered like capacity (PRD §3.4)."""
    workers = [worker("worker-a", schemas=["3.0.0"]), worker("worker-b")]
    deployment = planned(workers, Wanted("m", replicas=2, schema="3.1.0"))["m"]
    assert places(deployment) == ["worker-b"]
    assert reasons(deployment) == {"worker-a": ("supports schema 3.0.0, the card is 3.1.0",)}


def test_rejections_are_kept_only_while_something_is_unplaced():
    """Nobody asks why not the others when every replica has its place."""
    workers = [worker("worker-a"), worker("worker-b", memory="1Gi")]
    assert planned(workers, Wanted("m"))["m"].rejections == ()


def test_rejections_are_capped_and_the_rest_counted():
    """A large fleet that is full stays a small plan."""
    workers = [worker(f"worker-{n:02}", memory="1Gi") for n in range(50)]
    deployment = planned(workers, Wanted("m"))["m"]
    assert (len(deployment.rejections), deployment.truncated) == (20, 30)


def test_reload_needs_room_for_both_versions():
    """Where old and new do not fit together, the old one stays and the plan says so (DESIGN §5 Memory)."""
    workers = [worker("worker-a", memory="16Gi"), worker("worker-b", memory="8Gi")]
    slots = answered((), make_plan(observed(), registry(workers, Wanted("m", "1.0.0", replicas=2, memory="6Gi"))))
    deployment = planned(workers, Wanted("m", "1.1.0", replicas=2, memory="6Gi"), slots=slots)["m"]
    assert [(c.action, c.worker_id) for c in deployment.commands] == [(Action.RELOAD, "worker-a")]
    assert deployment.unplaced == 1
    assert reasons(deployment)["worker-b"] == (
        "no room for 1.1.0 beside 1.0.0, which stays",
        "memory: 6Gi wanted, 6Gi of 8Gi taken",
    )


def test_reload_under_way_keeps_its_room_for_both_versions():
    """A replica elsewhere cannot take the room that a RELOAD holds until the old runner has gone."""
    one = [worker("worker-a", memory="8Gi")]
    slots = answered((), make_plan(observed(), registry(one, Wanted("m", "1.0.0", memory="3Gi"))))
    update = make_plan(observed(slots), registry(one, Wanted("m", "1.1.0", memory="3Gi")))
    under_way = reserve(slots, update)
    wanted = (Wanted("m", "1.1.0", memory="3Gi"), Wanted("n", memory="3Gi"))
    assert planned(one, *wanted, slots=under_way)["n"].unplaced == 1
    assert planned(one, *wanted, slots=answered(slots, update))["n"].unplaced == 0


def test_room_of_an_unload_is_given_away_only_when_it_is_confirmed():
    """One commit that swaps two models finds no place yet, and says what is being freed."""
    one = [worker("worker-a", memory="8Gi")]
    slots = answered((), make_plan(observed(), registry(one, Wanted("old", memory="6Gi"))))
    deployment = planned(one, Wanted("new", memory="6Gi"), slots=slots)["new"]
    assert reasons(deployment)["worker-a"] == ("memory: 6Gi wanted, 6Gi of 8Gi taken (6Gi of it is being unloaded)",)


def test_device_shrunk_below_what_it_holds_keeps_it():
    """Less capacity in git unloads nothing; it only takes nothing new."""
    slots = answered((), make_plan(observed(), registry([worker("worker-a")], Wanted("m", memory="8Gi"))))
    shrunk = [worker("worker-a", memory="4Gi")]
    assert planned(shrunk, Wanted("m", memory="8Gi"), slots=slots) == {}
    assert planned(shrunk, Wanted("m", memory="8Gi"), Wanted("n", memory="1Gi"), slots=slots)["n"].unplaced == 1


def test_load_that_has_not_ended_gives_way_to_a_larger_version():
    """It counts as not there; where the newer one does not fit, it is unloaded and a place sought elsewhere."""
    workers = [worker("worker-a", memory="8Gi"), worker("worker-b", memory="4Gi")]
    first = make_plan(observed(), registry(workers, Wanted("m", "1.0.0", memory="3Gi", replicas=2)))
    slots = reserve((), first)
    deployment = planned(workers, Wanted("m", "1.1.0", memory="6Gi", replicas=2), slots=slots)["m"]
    assert [(c.action, c.worker_id) for c in deployment.commands] == [
        (Action.UNLOAD, "worker-b"),
        (Action.LOAD, "worker-a"),
    ]
    assert deployment.unplaced == 1
