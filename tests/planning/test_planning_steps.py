"""Whatever is evicted for whom, no device holds more at any step than it can, and what is unsound is found."""

import random

import pytest
from fleets import Wanted, observed, registry, worker
from hypothesis import given, settings
from hypothesis import strategies as st

from longshore.planning.check import check
from longshore.planning.order import by_device
from longshore.planning.plan import make_plan
from longshore.schemas.commands import Action, UnloadReason
from longshore.schemas.fleet import PlanLimits, SlotSettled, UpdateGap
from longshore.schemas.ledger import reserve, settle
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.orders import Hold
from longshore.schemas.plans import Awaited, Deferred, DeploymentPlan, Plan, PlannedCommand
from longshore.schemas.slots import Demand, Slot


def unload(worker_id, why=UnloadReason.EVICTED):
    return PlannedCommand(action=Action.UNLOAD, worker_id=worker_id, reason="", unload_reason=why)


def deployment(wanted, generation, commands=(), **more):
    facts = {
        "deployment_id": wanted.id,
        "generation": generation,
        "version": wanted.version,
        "digest": wanted.spec.digest,
        "priority": wanted.priority,
        "demand": Demand.of(wanted.spec.card.resources),
        "replicas": wanted.replicas,
        "changes": (),
        "commands": tuple(commands),
    }
    return DeploymentPlan(**facts | more)


def done(slot):
    return SlotSettled(
        deployment_id=slot.deployment_id,
        worker_id=slot.worker_id,
        generation=slot.generation,
        state=ModelState.IDLE if slot.state is ModelState.UNLOADING else ModelState.READY,
    )


def assert_it_fits(slots, begun, desired):
    """Count what is really there: what was commanded and waits is not."""
    for worker_id, config in desired.workers.items():
        there = [s for s in slots if s.worker_id == worker_id]
        there = [s for s in there if s.state is not ModelState.LOADING or (s.deployment_id, worker_id) in begun]
        assert sum(s.demand.memory for s in there) <= config.capacity.memory_bytes
        assert len(there) <= config.capacity.max_models


def play(slots, desired, chance, steps):
    """Let rollouts and devices do some of what they may do next, in any order; return the ledger after it."""
    begun = set()
    for _ in range(steps):
        flight = [s for s in slots if s.state in (ModelState.LOADING, ModelState.UNLOADING)]
        present = {(s.deployment_id, s.worker_id) for s in slots}
        may = [
            s
            for s in flight
            if s.state is ModelState.UNLOADING or not any((gone, s.worker_id) in present for gone in s.instead_of)
        ]
        if not may:
            assert not flight, "nothing can go on"
            break
        slot = chance.choice(may)
        key = (slot.deployment_id, slot.worker_id)
        if slot.state is ModelState.LOADING and key not in begun:
            begun.add(key)
        else:
            slots = settle(slots, done(slot))
        assert_it_fits(slots, begun, desired)
    # What has begun and not ended counts from the next round on as waiting again: let it end.
    for slot in slots:
        if slot.state is ModelState.LOADING and (slot.deployment_id, slot.worker_id) in begun:
            slots = settle(slots, done(slot))
    return slots


workers = st.lists(st.tuples(st.integers(4, 9), st.integers(1, 4), st.sampled_from("ab")), min_size=1, max_size=3).map(
    lambda facts: [
        worker(f"worker-{n}", memory=f"{memory}Gi", cpu=32.0, models=models, zone=zone)
        for n, (memory, models, zone) in enumerate(facts)
    ]
)
wishes = st.lists(
    st.builds(
        Wanted,
        st.sampled_from([f"m{n}" for n in range(6)]),
        replicas=st.integers(1, 2),
        priority=st.integers(1, 4),
        memory=st.sampled_from(["1Gi", "2Gi", "3Gi", "5Gi"]),
    ),
    min_size=1,
    unique_by=lambda one: one.id,
)


@settings(deadline=None)
@given(workers, wishes, st.data(), st.randoms(use_true_random=False))
def test_no_device_ever_holds_more_than_it_can(fleet, wanted, data, chance: random.Random):
    """Over rounds of newcomers and half-finished evictions every plan is sound, and every order of events fits."""
    slots, generation = (), 0
    for _ in range(3):
        some = data.draw(st.lists(st.sampled_from(wanted), min_size=1, unique_by=lambda one: one.id))
        # Those that were there stay wanted; the round adds others.
        there = {slot.deployment_id for slot in slots}
        now = [one for one in wanted if one in some or one.id in there]
        desired = registry(fleet, *now)
        asked = observed(slots, generation=generation)
        plan = make_plan(asked, desired)
        assert check(plan, asked, desired) == []
        generation = plan.generation
        slots = play(reserve(slots, plan), desired, chance, data.draw(st.integers(0, 8)))
    play(slots, desired, chance, 100)


# What `check` finds ---------------------------------------------------------------------------------------------

LOW = Wanted("low", priority=10, memory="10Gi")
MIDDLE = Wanted("middle", priority=40, memory="4Gi")
HIGH = Wanted("high", priority=50, memory="10Gi")
FLEET = [worker("worker-a"), worker("worker-b", pool="staging")]


def ready(wanted, worker_id="worker-a", state=ModelState.READY, **more):
    return Slot(
        deployment_id=wanted.id,
        worker_id=worker_id,
        generation=1,
        version=wanted.version,
        digest=wanted.spec.digest,
        priority=wanted.priority,
        demand=Demand.of(wanted.spec.card.resources),
        state=state,
        **more,
    )


def awaited(wanted, worker_id="worker-a"):
    return Awaited(deployment_id=wanted.id, worker_id=worker_id, generation=2)


def load(*after, worker_id="worker-a"):
    return PlannedCommand(action=Action.LOAD, worker_id=worker_id, reason="", after=after)


def complaints(*plans, slots=None, wanted=(LOW, MIDDLE, HIGH), **asked):
    slots = (ready(LOW), ready(MIDDLE)) if slots is None else slots
    plan = Plan(sha="a" * 40, generation=2, deployments=plans, workers=("worker-a", "worker-b"))
    return check(plan, observed(slots).model_copy(update=asked), registry(FLEET, *wanted))


SOUND = (
    deployment(HIGH, 2, [load(awaited(LOW))]),
    deployment(LOW, 2, [unload("worker-a")], unplaced=1),
)


def test_eviction_is_sound():
    """The newcomer waits for who goes, and the device is full at no step."""
    assert complaints(*SOUND) == []


@pytest.mark.parametrize(
    ("plans", "complaint"),
    [
        ((deployment(HIGH, 2, [load(awaited(LOW))]),), "waits for low on worker-a, which nothing unloads"),
        (
            (deployment(HIGH, 2, [load(awaited(LOW, "worker-b"))]), SOUND[1]),
            "high: LOAD on worker-a waits for low on worker-b, another device",
        ),
        (
            (deployment(Wanted("high", priority=10, memory="10Gi"), 2, [load(awaited(LOW))]), SOUND[1]),
            "waits for low on worker-a, whose priority is not below 10",
        ),
        ((deployment(HIGH, 2, [load()]), SOUND[1]), "low on worker-a is evicted for nobody"),
        (
            (deployment(HIGH, 2, unplaced=1), deployment(MIDDLE, 2, [unload("worker-a", UnloadReason.DISABLED)])),
            "middle: 0 placed and 0 unplaced are not the 1 wanted",
        ),
    ],
)
def test_unsound_eviction_is_complained_about(plans, complaint):
    """Each rule of who may wait for whom has its own sentence."""
    assert any(complaint in sentence for sentence in complaints(*plans))


def test_room_promised_twice_is_complained_about():
    """Two newcomers cannot both have the room of one victim."""
    other = Wanted("other", priority=60, memory="10Gi")
    plans = (*SOUND, deployment(other, 2, [load(awaited(LOW))]))
    assert "low on worker-a makes room for several" in complaints(*plans, wanted=(LOW, MIDDLE, HIGH, other))


def test_step_at_which_a_device_is_over_its_capacity_is_complained_about():
    """Not waiting for the victim is too much before it has gone; waiting for one that is too small is so after."""
    early = (
        deployment(HIGH, 2, [load()]),
        deployment(LOW, 2, [unload("worker-a", UnloadReason.DISABLED)], version=None, digest=None, replicas=0),
    )
    assert complaints(*early) == ["worker-a: 2.57698e+10 memory reserved, the limit is 1.71799e+10"]
    small = (deployment(HIGH, 2, [load(awaited(MIDDLE))]), deployment(MIDDLE, 2, [unload("worker-a")], unplaced=1))
    assert complaints(*small) == ["worker-a: 2.14748e+10 memory reserved, the limit is 1.71799e+10"]


def test_victim_may_not_return_while_its_room_is_promised():
    """The newcomer of an earlier plan still waits for its UNLOAD."""
    slots = (ready(HIGH, state=ModelState.LOADING, instead_of=("low",)), ready(LOW, state=ModelState.UNLOADING))
    assert "low: LOAD on worker-a, where it makes room for high" in complaints(
        deployment(LOW, 2, [load()]), slots=slots, wanted=(LOW, HIGH)
    )


@pytest.mark.parametrize(
    ("hold", "complaint"),
    [
        (Hold(deployment_id="high", kind="paused"), "high: LOAD on worker-a, though it is paused"),
        (
            Hold(deployment_id="high", kind="quarantined", digest=HIGH.spec.digest),
            "high: LOAD on worker-a, though it is quarantined",
        ),
        (Hold(deployment_id="high", kind="aborted", digest="another"), None),
        (Hold(deployment_id="another", kind="paused"), None),
    ],
)
def test_command_to_what_is_held_is_complained_about(hold, complaint):
    """A hold outlives every plan but one that wants another digest."""
    assert complaints(*SOUND, holds=(hold,)) == ([] if complaint is None else [complaint])


def test_recreating_needs_a_word_and_leave():
    """A gap is said beforehand, allowed by a setting, and one replica at a time."""
    newer = Wanted("low", "1.1.0", priority=10, memory="10Gi")
    command = PlannedCommand(
        action=Action.RELOAD,
        worker_id="worker-a",
        reason="",
        previous_version="1.0.0",
        previous_digest=LOW.spec.digest,
        recreate=True,
    )
    said = command.model_copy(update={"gap": "worker-a serves nothing for about 40 s"})
    wanted, slots = (newer,), (ready(LOW, replaced=False),)
    assert complaints(deployment(newer, 2, [command]), slots=slots, wanted=wanted) == [
        "low: RELOAD on worker-a recreates and does not say what its callers will notice"
    ]
    refused = {"limits": PlanLimits(update_gap=UpdateGap.REFUSE)}
    assert complaints(deployment(newer, 2, [said]), slots=slots, wanted=wanted, **refused) == [
        "low: RELOAD on worker-a recreates, and gaps are refused"
    ]
    many = deployment(newer, 2, [said], max_unavailable=2)
    assert complaints(many, slots=slots, wanted=wanted) == ["low: recreates 2 at once, the limit is 1"]
    alone = deployment(newer, 2, [said], replicas=2, unplaced=1)
    assert complaints(alone, slots=slots, wanted=wanted) == []
    coming = ready(newer, worker_id="worker-b", state=ModelState.LOADING, replaced=False)
    last = deployment(newer, 2, [said], replicas=2)
    assert complaints(last, slots=(*slots, coming), wanted=wanted) == ["low: recreates the last replica that serves"]
    failed = ready(newer, worker_id="worker-b", state=ModelState.FAILED, replaced=False)
    one_of_two = deployment(newer, 2, [said], replicas=2, unplaced=1)
    assert "low: RELOAD on worker-a recreates, though 1.1.0 has failed on worker-b" in complaints(
        one_of_two, slots=(*slots, failed), wanted=wanted
    )


def test_lost_and_deferred_slots_are_no_replicas():
    """What has failed with its device, and what goes once others are READY, is neither surplus nor placed."""
    twice = [worker("worker-a"), worker("worker-b"), worker("worker-c")]
    one = Wanted("m", memory="1Gi")
    slots = [ready(one, name) for name in ("worker-a", "worker-b", "worker-c")]
    later = Deferred(action=Action.UNLOAD, worker_id="worker-b", reason="", waits_for="1 other is READY")
    plan = Plan(
        sha="a" * 40,
        generation=2,
        deployments=(deployment(one, 2, lost=("worker-a",), deferred=(later,)),),
        workers=("worker-a", "worker-b", "worker-c"),
    )
    assert check(plan, observed(slots), registry(twice, one)) == []


def test_commands_are_told_in_the_order_of_the_device():
    """DISABLE before all, then what frees, then what fills; of one kind the more important first."""
    off = Wanted("off", priority=90)
    plan = Plan(
        sha="a" * 40,
        generation=2,
        workers=("worker-a",),
        deployments=(
            deployment(LOW, 2, [unload("worker-a")]),
            deployment(HIGH, 2, [load(awaited(LOW))]),
            deployment(MIDDLE, 2, [load()]),
            deployment(off, 2, [unload("worker-a", UnloadReason.DISABLED)]),
            deployment(Wanted("gone"), 2, [unload("worker-a", UnloadReason.REMOVED)]),
        ),
    )
    assert [name for name, _ in by_device(plan)["worker-a"]] == ["off", "gone", "low", "high", "middle"]
