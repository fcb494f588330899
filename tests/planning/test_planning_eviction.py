"""What must go so that something more important fits (PRD §5.3 phase 3, §11.1)."""

from datetime import UTC, datetime, timedelta
from itertools import combinations

import pytest
from fleets import Wanted, device, observed, registry, worker
from hypothesis import given
from hypothesis import strategies as st

from longshore.planning.eviction import Eviction, Veto, choose, evictable
from longshore.planning.fleet import Fleet
from longshore.planning.placement import place, rejection
from longshore.schemas.devices import DeviceFacts
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.orders import Hold
from longshore.schemas.plans import DeploymentPlan, PoolSuspicion
from longshore.schemas.slots import Demand, Slot
from longshore.schemas.workers import EvictionPolicy

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GI = 1024**3


def slot(wanted, worker_id="worker-a", state=ModelState.READY, **more):
    return Slot(
        deployment_id=wanted.id,
        worker_id=worker_id,
        generation=3,
        version=wanted.version,
        digest=wanted.spec.digest,
        priority=wanted.priority,
        demand=Demand.of(wanted.spec.card.resources),
        state=state,
        **more,
    )


def target(wanted, generation=4):
    return DeploymentPlan(
        deployment_id=wanted.id,
        generation=generation,
        version=wanted.version,
        digest=wanted.spec.digest,
        priority=wanted.priority,
        demand=Demand.of(wanted.spec.card.resources),
        replicas=wanted.replicas,
        changes=(),
        commands=(),
    )


def policy(config, **facts):
    return config.model_copy(update={"eviction_policy": EvictionPolicy(**facts)})


def fleet_of(workers, slots, *wanted, suspects=(), **asked):
    """Return a fleet in which every slot belongs to one of `wanted`."""
    question = observed(slots, asked.pop("devices", None)).model_copy(update={"now": NOW, **asked})
    return Fleet.of(question, registry(workers, *wanted), suspects)


def asked_at(**ages):
    return {"worker-a": DeviceFacts(last_inference={name: NOW - timedelta(days=age) for name, age in ages.items()})}


def ids(slots):
    return [one.deployment_id for one in slots]


def chosen(fleet, newcomer, worker_id="worker-a"):
    return choose(worker_id, target(newcomer), Demand.of(newcomer.spec.card.resources), 1, fleet)


# PRD §11.1, LRU eviction logic ----------------------------------------------------------------------------------


def test_models_are_sorted_by_priority_then_last_inference_time():
    """The least priority goes first; of one priority who was asked longest ago, before that who never was."""
    wanted = [
        Wanted("recent", priority=20),
        Wanted("ancient", priority=20),
        Wanted("never", priority=20),
        Wanted("lower", priority=10),
        Wanted("equal", priority=50),
    ]
    facts = asked_at(recent=0, ancient=9, lower=1, equal=99)
    fleet = fleet_of([worker("worker-a")], [slot(one) for one in wanted], *wanted, facts=facts)
    newcomer = Wanted("new", priority=50)
    assert ids(evictable("worker-a", target(newcomer), fleet)) == ["lower", "never", "ancient", "recent"]


def test_enough_models_are_selected_to_free_the_required_resources():
    """As many as it takes, and what turns out not to be needed is put back."""
    wanted = [
        Wanted("small", priority=10, memory="1Gi"),
        Wanted("middle", priority=20, memory="3Gi"),
        Wanted("large", priority=30, memory="6Gi"),
        Wanted("larger", priority=40, memory="6Gi"),
    ]
    fleet = fleet_of([worker("worker-a", cpu=32.0)], [slot(one) for one in wanted], *wanted)
    assert ids(chosen(fleet, Wanted("new", priority=50, memory="4Gi")).victims) == ["small", "middle"]
    assert ids(chosen(fleet, Wanted("new", priority=50, memory="5Gi")).victims) == ["large"]
    assert ids(chosen(fleet, Wanted("new", priority=50, memory="8Gi")).victims) == ["middle", "large"]


def test_eviction_fails_when_all_models_have_higher_priority_than_the_new_one():
    """Equal is not below; the sentence names who stands in the way and how much is missing."""
    wanted = [Wanted("fraud", priority=80, memory="8Gi"), Wanted("sentiment", priority=90, memory="8Gi")]
    fleet = fleet_of([worker("worker-a")], [slot(one) for one in wanted], *wanted)
    veto = chosen(fleet, Wanted("new", priority=80, memory="8Gi"))
    assert veto.reasons == (
        "evicting would free 0Gi of 8Gi memory: fraud (priority 80) and sentiment (priority 90) are not below 80",
    )
    assert [shortfall.resource for shortfall in veto.shortfalls] == ["memory"]


# PRD §11.1, worker selection ------------------------------------------------------------------------------------


def test_eviction_feasibility_is_correctly_calculated():
    """Devices with room come first; of the others the one whose victims matter least, and what cannot is told."""
    wanted = [
        Wanted("cheap", priority=10, memory="14Gi"),
        Wanted("dear", priority=40, memory="14Gi"),
        Wanted("fraud", priority=80, memory="14Gi"),
    ]
    workers = [worker(f"worker-{name}") for name in "abcd"]
    slots = [slot(wanted[0], "worker-c"), slot(wanted[1], "worker-a"), slot(wanted[2], "worker-d")]
    newcomer = Wanted("new", priority=50, memory="4Gi", replicas=4)
    fleet = fleet_of(workers, slots, *wanted, newcomer)
    names = tuple(one.worker_id for one in workers)
    placed = place(target(newcomer), names, "3.0.0", 4, fleet)
    assert [(c.worker_id, [gone.deployment_id for gone in c.after]) for c in placed.commands] == [
        ("worker-b", []),
        ("worker-c", ["cheap"]),
        ("worker-a", ["dear"]),
    ]
    assert placed.commands[1].reason == "makes room: evicts cheap (priority 10)"
    assert fleet.evicted == {("cheap", "worker-c"): "new", ("dear", "worker-a"): "new"}
    assert placed.unfit == ("worker-d",)
    assert rejection(target(newcomer), "worker-d", "3.0.0", fleet).reasons == (
        "memory: 4Gi wanted, 14Gi of 16Gi taken",
        "evicting would free 0Gi of 2Gi memory: fraud (priority 80) is not below 50",
    )


# Beyond the PRD's cases -----------------------------------------------------------------------------------------

FULL = [Wanted("one", priority=10, memory="8Gi"), Wanted("two", priority=20, memory="8Gi")]
NEWCOMER = Wanted("new", priority=50, memory="8Gi")


def full(config, **more):
    return fleet_of([config], [slot(one) for one in FULL], *FULL, NEWCOMER, **more)


def test_device_may_forbid_evictions():
    """With `enable_auto_eviction: false` nothing is unloaded unasked, and the plan says by which setting."""
    fleet = full(policy(worker("worker-a"), enable_auto_eviction=False))
    assert chosen(fleet, NEWCOMER).reasons == ("nothing is evicted: enable_auto_eviction is false",)


def test_nothing_is_evicted_while_much_of_the_pool_is_silent():
    """A mass failure is the network's more often than the devices': what runs is left alone (FAULTS 85)."""
    fleet = full(worker("worker-a"), suspects=[PoolSuspicion(pool="production", unhealthy=3, alive_before=4)])
    assert chosen(fleet, NEWCOMER).reasons == (
        "nothing is evicted: 3 of 4 devices of pool production are silent at once",
    )


def test_largest_goes_first_where_the_device_says_priority():
    """With `strategy: priority` it is not asked who was used when: of one priority, the largest goes."""
    wanted = [Wanted("a", priority=10, memory="2Gi"), Wanted("b", priority=10, memory="9Gi")]
    fleet = fleet_of(
        [policy(worker("worker-a"), strategy="priority")],
        [slot(one) for one in wanted],
        *wanted,
        facts=asked_at(b=0),
    )
    assert ids(evictable("worker-a", target(NEWCOMER), fleet)) == ["b", "a"]
    assert ids(chosen(fleet, NEWCOMER).victims) == ["b"]
    assert fleet.wondered == set()


def test_what_is_being_unloaded_is_waited_for_rather_than_evicting():
    """Room that comes free anyway costs nobody's service, whatever the priority of what goes."""
    slots = [slot(FULL[0]), slot(FULL[1], state=ModelState.UNLOADING)]
    fleet = fleet_of([worker("worker-a")], slots, *FULL, NEWCOMER)
    (command,) = place(target(NEWCOMER), ("worker-a",), "3.0.0", 1, fleet).commands
    assert [(gone.deployment_id, gone.generation) for gone in command.after] == [("two", 3)]
    assert command.reason == "makes room: two is being unloaded already"
    assert fleet.evicted == {}


def test_room_is_promised_once():
    """What one newcomer waits for cannot be waited for by another, and that one cannot be evicted meanwhile."""
    fleet = full(worker("worker-a"))
    assert len(place(target(NEWCOMER), ("worker-a",), "3.0.0", 1, fleet).commands) == 1
    other = Wanted("other", priority=60, memory="9Gi")
    assert chosen(fleet, other).reasons == (
        "evicting would free 8Gi of 9Gi memory: new waits for room itself, one makes room for new",
    )


def test_victim_does_not_return_before_its_evictor_has_begun():
    """Otherwise its second slot would make the promised room a fiction."""
    fleet = full(worker("worker-a", models=9, cpu=32.0, memory="24Gi"))
    hungry = Wanted("new", priority=50, memory="12Gi")
    place(target(hungry), ("worker-a",), "3.0.0", 1, fleet)
    fleet.occupancy.put(slot(FULL[0], state=ModelState.UNLOADING))
    assert place(target(FULL[0], generation=5), ("worker-a",), "3.0.0", 1, fleet).unfit == ("worker-a",)
    assert rejection(target(FULL[0]), "worker-a", "3.0.0", fleet).reasons[0] == "makes room there for new"


def test_paused_deployment_is_not_evicted():
    """An operator has said that nothing happens to it."""
    hold = Hold(deployment_id="one", kind="paused")
    fleet = full(worker("worker-a"), holds=(hold,))
    assert ids(chosen(fleet, NEWCOMER).victims) == ["two"]


def test_priority_is_what_git_says_now():
    """A commit that changes a priority commands nothing, so the slot still has the old one."""
    raised = Wanted("one", priority=90, memory="8Gi")
    fleet = fleet_of([worker("worker-a")], [slot(one) for one in FULL], raised, FULL[1], NEWCOMER)
    assert ids(chosen(fleet, NEWCOMER).victims) == ["two"]


def test_what_this_plan_does_not_command_is_not_evicted():
    """An eviction is an UNLOAD in the plan of the victim: a deployment that has none cannot be a victim."""
    fleet = fleet_of([worker("worker-a")], [slot(one) for one in FULL], FULL[1], NEWCOMER)
    assert ids(chosen(fleet, NEWCOMER).victims) == ["two"]


def test_device_that_is_too_small_evicts_nothing():
    """What would not fit on the empty device is not worth a single model."""
    giant = Wanted("new", priority=50, memory="64Gi")
    assert chosen(full(worker("worker-a")), giant).reasons == ("no eviction helps: the device is too small",)


def test_device_that_is_silent_evicts_last():
    """Before something goes on a device that may not answer, something more important goes elsewhere."""
    wanted = [Wanted("cheap", priority=10, memory="14Gi"), Wanted("dear", priority=40, memory="14Gi")]
    slots = [slot(wanted[0], "worker-a"), slot(wanted[1], "worker-b")]
    fleet = fleet_of([worker("worker-a"), worker("worker-b")], slots, *wanted, NEWCOMER, devices=device("worker-b"))
    (command,) = place(target(NEWCOMER), ("worker-a", "worker-b"), "3.0.0", 1, fleet).commands
    assert command.worker_id == "worker-b"


@pytest.mark.parametrize(
    ("facts", "sizes", "wondered"),
    [
        ({}, ("8Gi", "8Gi"), True),
        ({}, ("4Gi", "4Gi"), False),
        (asked_at(one=1), ("8Gi", "8Gi"), False),
    ],
    ids=["one of two", "both", "known"],
)
def test_fleet_wonders_only_where_news_could_change_the_choice(facts, sizes, wondered):
    """A device is asked for its newest report only where some of one priority go and some stay."""
    wanted = [Wanted(name, priority=10, memory=size) for name, size in zip(("one", "two"), sizes, strict=True)]
    config = worker("worker-a", memory="16Gi" if sizes[0] == "8Gi" else "8Gi")
    fleet = fleet_of([config], [slot(one) for one in wanted], *wanted, facts=facts)
    assert isinstance(chosen(fleet, NEWCOMER), Eviction)
    assert fleet.wondered == ({"worker-a"} if wondered else set())


def test_newcomer_takes_only_what_is_more_than_its_victims():
    """While both are in the ledger the device is not over its capacity; a READY newcomer counts in full."""
    fleet = full(worker("worker-a"))
    place(target(NEWCOMER), ("worker-a",), "3.0.0", 1, fleet)
    assert (fleet.occupancy.usage("worker-a").memory, fleet.occupancy.usage("worker-a").models) == (16 * GI, 2)
    fleet.occupancy.put(slot(NEWCOMER, instead_of=("one",)))
    assert (fleet.occupancy.usage("worker-a").memory, fleet.occupancy.usage("worker-a").models) == (24 * GI, 3)


def test_own_version_that_serves_is_not_offset_by_victims():
    """A RELOAD that evicts has its old version beside the victims, and only its new one in their place."""
    old = Demand(memory=2 * GI)
    reloading = slot(NEWCOMER, state=ModelState.RELOADING, previous_demand=old, instead_of=("one",))
    fleet = fleet_of([worker("worker-a")], [slot(FULL[0]), reloading], FULL[0], NEWCOMER)
    usage = fleet.occupancy.usage("worker-a")
    assert (usage.memory, usage.models) == (10 * GI, 2)


models = st.lists(
    st.tuples(
        st.integers(1, 4),  # priority
        st.integers(1, 4),  # memory
        st.sampled_from([0.5, 1.0, 2.0]),  # cores
        st.sampled_from(["ready", "failed", "unloading"]),
        st.one_of(st.none(), st.integers(0, 2)),  # days since it was asked
    ),
    max_size=6,
)


@given(
    models,
    st.integers(1, 5),
    st.integers(1, 12),
    st.sampled_from([0.5, 2.0, 4.0]),
    st.sampled_from(["lru", "priority"]),
)
def test_victims_are_the_minimum_of_all_that_would_do(there, priority, memory, cores, strategy):
    """Of every set that makes the room, the one whose most valuable member is least valuable, then the next, …"""
    config = policy(worker("worker-a", memory="12Gi", cpu=4.0, models=6), strategy=strategy)
    wanted, slots, ages = [], [], {}
    for n, (low, size, cpu, state, age) in enumerate(there):
        one = Wanted(f"m{n}", priority=low, memory=f"{size}Gi", cpu=cpu)
        wanted.append(one)
        slots.append(slot(one, state=ModelState(state)))
        if age is not None:
            ages[one.id] = age
    newcomer = Wanted("new", priority=priority, memory=f"{memory}Gi", cpu=cores)
    fleet = fleet_of([config], slots, *wanted, newcomer, facts=asked_at(**ages))

    def value(one):
        if one.state is ModelState.UNLOADING:
            return (0, 0, one.deployment_id)
        old = -ages[one.deployment_id] if one.deployment_id in ages else -99
        return (one.priority, old if strategy == "lru" else -one.demand.memory, one.deployment_id)

    may_go = [one for one in slots if one.state is ModelState.UNLOADING or one.priority < priority]
    free_memory = 12 * GI - sum(one.demand.memory for one in slots)
    free_cores = 4.0 - sum(one.demand.cpu for one in slots)
    enough = [
        some
        for count in range(len(may_go) + 1)
        for some in combinations(may_go, count)
        if free_memory + sum(one.demand.memory for one in some) >= memory * GI
        and free_cores + sum(one.demand.cpu for one in some) >= cores
        and len(slots) - len(some) < 6
    ]
    best = min(enough, key=lambda some: sorted(map(value, some), reverse=True), default=None)
    found = chosen(fleet, newcomer)
    if best is None:
        assert isinstance(found, Veto)
        assert found.reasons
    else:
        assert set(ids((*found.leaving, *found.victims))) == set(ids(best))
        assert list(found.victims) == sorted(found.victims, key=value)
