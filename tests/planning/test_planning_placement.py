"""Which devices are chosen, and why not the others (PRD §5.3, §11.1)."""

from datetime import UTC, datetime, timedelta

import pytest
from fleets import Wanted, answered, device, observed, registry, worker

from longshore.planning.check import check
from longshore.planning.fleet import Fleet
from longshore.planning.placement import place
from longshore.planning.plan import make_plan
from longshore.schemas.commands import Action
from longshore.schemas.devices import DeviceRecord, DeviceStatus, Health
from longshore.schemas.fleet import PlanLimits, UpdateGap
from longshore.schemas.ledger import reserve
from longshore.schemas.orders import Cordon

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def planned(workers, *wanted, slots=(), devices=None):
    """Plan a sound plan and return its deployments by id."""
    asked, desired = observed(slots, devices), registry(workers, *wanted)
    plan = make_plan(asked, desired)
    assert check(plan, asked, desired) == []
    return {deployment.deployment_id: deployment for deployment in plan.deployments}


def fleet_of(workers, devices=None, slots=(), **asked):
    return Fleet.of(observed(slots, devices).model_copy(update={"now": NOW, **asked}), registry(workers))


def places(deployment):
    return [command.worker_id for command in deployment.commands if command.action is Action.LOAD]


def reasons(deployment):
    return {rejection.worker_id: rejection.reasons for rejection in deployment.rejections}


def test_workers_are_correctly_filtered_by_label_selectors():
    """One label that differs excludes a worker, and so does another region (PRD §11.1)."""
    workers = [
        worker("worker-a", tier="gold"),
        worker("worker-b", tier="silver"),
        worker("worker-c", tier="gold", pool="staging"),
        worker("worker-d", tier="gold", region="eu-west-1"),
    ]
    deployment = planned(workers, Wanted("m", replicas=4, selector={"pool": "production", "tier": "gold"}))["m"]
    assert places(deployment) == ["worker-a"]
    assert deployment.unplaced == 3


def test_workers_without_sufficient_capacity_are_excluded():
    """What is missing of memory, CPU, GPU and models is all told, not only the first (PRD §11.1)."""
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
        "no eviction helps: the device is too small",
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


def test_workers_are_ranked_by_available_capacity():
    """Free memory, then CPU, then models, then the id: each decides where those before it are equal (PRD §11.1)."""
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


def test_reload_without_room_for_both_versions_has_a_gap():
    """Where old and new do not fit together, the old one goes first, and the plan says what callers notice."""
    workers = [worker("worker-a", memory="16Gi"), worker("worker-b", memory="8Gi")]
    slots = answered((), make_plan(observed(), registry(workers, Wanted("m", "1.0.0", replicas=2, memory="6Gi"))))
    deployment = planned(workers, Wanted("m", "1.1.0", replicas=2, memory="6Gi"), slots=slots)["m"]
    assert [(c.worker_id, c.recreate, c.gap) for c in deployment.commands] == [
        ("worker-a", False, None),
        ("worker-b", True, "worker-b serves nothing while 1.1.0 loads"),
    ]
    assert (deployment.unplaced, deployment.max_unavailable) == (0, 1)


def test_gap_may_be_refused():
    """With `update_gap: refuse` the old version stays where both do not fit (DESIGN §5 Memory)."""
    workers = [worker("worker-a", memory="16Gi"), worker("worker-b", memory="8Gi")]
    slots = answered((), make_plan(observed(), registry(workers, Wanted("m", "1.0.0", replicas=2, memory="6Gi"))))
    limits = PlanLimits(update_gap=UpdateGap.REFUSE)
    asked = observed(slots).model_copy(update={"limits": limits})
    (deployment,) = make_plan(asked, registry(workers, Wanted("m", "1.1.0", replicas=2, memory="6Gi"))).deployments
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
    """One commit that swaps two models on a full device loads the one when the other has gone."""
    one = [worker("worker-a", memory="8Gi")]
    slots = answered((), make_plan(observed(), registry(one, Wanted("old", memory="6Gi"))))
    (command,) = planned(one, Wanted("new", memory="6Gi"), slots=slots)["new"].commands
    assert [(awaited.deployment_id, awaited.generation) for awaited in command.after] == [("old", 2)]
    assert command.reason == "makes room: old is being unloaded already"


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


def test_replicas_spread_over_zones():
    """The zone with fewest replicas of the deployment comes first, even where it has less room."""
    workers = [
        worker("worker-a", zone="a"),
        worker("worker-b", zone="a"),
        worker("worker-c", zone="a"),
        worker("worker-d", zone="b", memory="8Gi"),
        worker("worker-e", zone="b", memory="8Gi"),
    ]
    deployment = planned(workers, Wanted("m", replicas=4))["m"]
    order = sorted(deployment.commands, key=lambda command: int(command.reason.split()[1]))
    assert [command.worker_id for command in order] == ["worker-a", "worker-d", "worker-b", "worker-e"]
    assert order[0].reason.endswith("none of its replicas in zone a before")
    assert order[2].reason.endswith("1 of its replicas in zone a before")


def test_replicas_that_are_there_count_for_their_zone():
    """A second replica goes where the first is not."""
    workers = [worker("worker-a", zone="a"), worker("worker-b", zone="a"), worker("worker-c", zone="b", memory="8Gi")]
    slots = answered((), make_plan(observed(), registry(workers, Wanted("m"))))
    assert places(planned(workers, Wanted("m", replicas=2), slots=slots)["m"]) == ["worker-c"]


def test_device_that_failed_less_often_is_preferred():
    """Of devices with equal room the more reliable one, before the id decides (PRD §5.3 phase 4)."""
    workers = [worker("worker-a"), worker("worker-b")]
    fleet = fleet_of(workers, failures={"worker-a": (NOW - timedelta(hours=20),)})
    target = make_plan(observed(), registry(workers, Wanted("m"))).deployments[0]
    (command,) = place(target, ("worker-a", "worker-b"), "3.0.0", 1, fleet).commands
    assert command.worker_id == "worker-b"


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, None),
        ({"devices": device("worker-a", Health.SUSPECT)}, None),
        ({"devices": device("worker-a", Health.FAILED)}, "the device has failed: nothing was heard of it"),
        ({"devices": device("worker-a", status=DeviceStatus.LEAVING)}, "the device is leaving"),
        (
            {"devices": device("worker-a", Health.RECOVERING)},
            "the device has come back: it takes nothing new until its next report",
        ),
        (
            {"cordons": {"worker-a": Cordon(worker_id="worker-a", kind="cordon", by="olga", reason="disk swap")}},
            "the device is cordoned (olga, disk swap)",
        ),
        (
            {"cordons": {"worker-a": Cordon(worker_id="worker-a", kind="drain")}},
            "the device is being drained",
        ),
        (
            {"devices": {"worker-a": DeviceRecord(worker_id="worker-a", health=Health.HEALTHY, draining=True)}},
            "the device drains itself",
        ),
        (
            {"failures": {"worker-a": (NOW - timedelta(hours=3), NOW - timedelta(seconds=100))}},
            "the device has failed 2 times within a day: it takes nothing new until 12:02:20 UTC",
        ),
        ({"failures": {"worker-a": (NOW - timedelta(seconds=120),)}}, None),
        (
            {"failures": {"worker-a": (NOW - timedelta(minutes=29),) * 20}},
            "the device has failed 20 times within a day: it takes nothing new until 12:01:00 UTC",
        ),
        ({"failures": {"worker-a": (NOW - timedelta(minutes=30),) * 20}}, None),
    ],
)
def test_why_a_device_takes_nothing_new(facts, words):
    """Each reason in its own words; a device that flaps rests twice as long after each failure, 30 min at most."""
    assert fleet_of([worker("worker-a")], **facts).absence("worker-a") == words
