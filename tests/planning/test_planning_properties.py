"""What holds for every plan, whatever the fleet, the commits, the orders and the devices' answers."""

import random
from datetime import timedelta

from fleets import NOW, Wanted, device, observed, reconciling, registry, worker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longshore.planning.check import check
from longshore.planning.plan import make_plan
from longshore.planning.render import render
from longshore.schemas.devices import Health
from longshore.schemas.fleet import PlanLimits, SlotSettled, UpdateGap
from longshore.schemas.ledger import reserve, settle
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.orders import Cordon, Hold
from longshore.schemas.slots import Demand

ZONES = ["a", "b"]
WORKERS = [f"worker-{n}" for n in range(5)]
NAMES = ["m0", "m1", "m2", "m3"]

PROPERTY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# One code of each fate: tried again, given up, only out of order.
CODES = ["STORAGE_UNAVAILABLE", "RUNNER_OOM", "FENCED"]

workers = st.lists(st.sampled_from(WORKERS), min_size=1, unique=True).flatmap(
    lambda names: st.tuples(
        *(
            st.builds(
                worker,
                st.just(name),
                memory=st.sampled_from(["2Gi", "4Gi", "8Gi"]),
                cpu=st.sampled_from([1.0, 2.5, 8.0]),
                gpu=st.integers(0, 1),
                models=st.integers(1, 3),
                schemas=st.sampled_from([["3.0.0"], ["3.0.0", "3.1.0"]]),
                zone=st.sampled_from(ZONES),
            )
            for name in names
        )
    )
)

wanted = st.lists(
    st.builds(
        Wanted,
        st.sampled_from(NAMES),
        version=st.sampled_from(["1.0.0", "1.1.0", "2.0.0"]),
        replicas=st.integers(0, 4),
        priority=st.integers(1, 3),
        enabled=st.booleans(),
        memory=st.sampled_from(["512Mi", "2Gi", "3Gi"]),
        cpu=st.sampled_from([0.1, 0.7, 2.0]),
        gpu=st.sampled_from([0, 0, 0, 1]),
        schema=st.sampled_from(["3.0.0", "3.1.0"]),
        selector=st.sampled_from([{}, {"zone": "a"}, {"zone": "b"}]),
    ),
    unique_by=lambda one: one.id,
)

devices = st.dictionaries(st.sampled_from(WORKERS), st.sampled_from(list(Health))).map(
    lambda healths: {name: record for one in healths for name, record in device(one, healths[one]).items()}
)

limits = st.builds(
    PlanLimits,
    max_unavailable=st.integers(1, 2),
    update_gap=st.sampled_from(UpdateGap),
    retries=st.integers(0, 2),
    suspect_share=st.sampled_from([0.55, 1.0]),
)

# What else a plan is told: orders, clocks, limits. `minutes` say how long ago a device failed.
circumstances = st.fixed_dictionaries(
    {
        "cordons": st.dictionaries(st.sampled_from(WORKERS), st.sampled_from(["cordon", "drain"])).map(
            lambda kinds: {name: Cordon(worker_id=name, kind=kind) for name, kind in kinds.items()}
        ),
        "holds": st.lists(
            st.builds(
                Hold, deployment_id=st.sampled_from(NAMES), kind=st.sampled_from(["paused", "aborted", "quarantined"])
            ),
            max_size=1,
        ).map(tuple),
        "failures": st.dictionaries(
            st.sampled_from(WORKERS),
            st.integers(0, 40).map(lambda minutes: (NOW - timedelta(minutes=minutes),)),
        ),
        "now": st.just(NOW),
        "limits": limits,
    }
)

moments = st.tuples(workers, wanted, devices, circumstances, st.booleans(), st.randoms(use_true_random=False))
histories = st.lists(moments, min_size=1, max_size=5)


def asking(slots, records, more, *, generation, drift):
    """Return what a reconciliation asks, or a push."""
    if drift:
        return reconciling(slots, records, generation=generation, **more)
    return observed(slots, records, generation=generation).model_copy(update=more)


def some_answers(slots, chance: random.Random):
    """Let some devices answer, well or badly, and others not."""
    for slot in slots:
        if slot.state in (ModelState.READY, ModelState.FAILED) or chance.random() < 0.4:
            continue
        slots = answer(slots, slot, None if chance.random() < 0.6 else chance.choice(CODES))
    return slots


def answer(slots, slot, code):
    """Let one device answer, and count a failure as the fleet does."""
    state = ModelState.READY if code is None or slot.state is ModelState.RELOADING else ModelState.FAILED
    if code is None and slot.state is ModelState.UNLOADING:
        state = ModelState.IDLE
    told = settle(
        slots,
        SlotSettled(
            deployment_id=slot.deployment_id,
            worker_id=slot.worker_id,
            generation=slot.generation,
            state=state,
            code=code,
        ),
    )
    counted = {"failures": slot.failures + 1, "failed_at": NOW - timedelta(seconds=45)}
    same = (slot.deployment_id, slot.worker_id)
    return tuple(
        one.model_copy(update=counted) if code and (one.deployment_id, one.worker_id) == same else one for one in told
    )


def some_forgotten(slots, chance: random.Random):
    """Return the slots of a ledger that has lost some, and those as reports tell of them: without what was before."""
    lost = tuple(slot for slot in slots if chance.random() < 0.1)
    blank = {"previous_version": None, "previous_digest": None, "previous_demand": None, "before": None}
    blank |= {"instead_of": (), "recreate": False, "replaced": False, "failures": 0, "failed_at": None}
    found = tuple(slot.model_copy(update=blank | {"demand": slot.reserved}) for slot in lost)
    return tuple(slot for slot in slots if slot not in lost), found


def live(slot, records):
    return slot.worker_id not in records or records[slot.worker_id].health is not Health.FAILED


def carried_out(slots, plan, desired, records, chance: random.Random):
    """Let every command to a live device be done well, in any order that its `after` allows; nothing is ever too much.

    What a failed device was doing stays under way: nobody answers.
    """
    before = {worker_id: memory(slots, worker_id) for worker_id in desired.workers}
    limits = {name: max(before[name], config.capacity.memory_bytes) for name, config in desired.workers.items()}
    slots, begun = reserve(slots, plan), set()
    while True:
        there = {(s.deployment_id, s.worker_id) for s in slots}
        settled = (ModelState.READY, ModelState.FAILED)
        flight = [s for s in slots if s.state not in settled and s.generation == plan.generation and live(s, records)]
        free = [s for s in flight if not any((gone, s.worker_id) in there for gone in s.instead_of)]
        if not free:
            assert not flight, "somebody waits for ever"
            return slots
        slot = chance.choice(free)
        if slot in begun:
            slots = answer(slots, slot, None)
            continue
        begun.add(slot)
        waiting = {s for s in flight if s not in begun and s.state is not ModelState.UNLOADING}
        assert all(memory(slots, worker_id, waiting) <= limit for worker_id, limit in limits.items())


def memory(slots, worker_id, waiting=frozenset()):
    """Sum what is there; of what was not issued yet only the version before is."""
    here = (slot for slot in slots if slot.worker_id == worker_id)
    return sum((s.previous_demand or Demand()).memory if s in waiting else s.reserved.memory for s in here)


@PROPERTY
@given(histories)
def test_every_plan_of_every_history_is_sound(history):
    """Whatever was pushed, ordered, lost and answered before, the next plan breaks no rule, and has a text."""
    slots, generation = (), 0
    for fleet, wishes, records, more, drift, chance in history:
        known, found = some_forgotten(slots, chance)
        asked = asking(known, records, more, generation=generation, drift=drift)
        desired = registry(fleet, *wishes)
        plan = make_plan(asked, desired, found)
        assert check(plan, asked, desired) == []
        assert render(plan)
        generation = max(generation, plan.generation)
        slots = some_answers(reserve(known, plan), chance)


@PROPERTY
@given(histories)
def test_planning_the_same_again_comes_to_rest(history):
    """While devices work on a plan, planning it again commands nothing that the first left undone, and soon nothing."""
    slots, generation = (), 0
    for fleet, wishes, records, more, drift, chance in history:
        desired = registry(fleet, *wishes)
        for _ in range(len(wishes) + 2):
            asked = asking(slots, records, more, generation=generation, drift=drift)
            plan = make_plan(asked, desired)
            generation = plan.generation
            slots = reserve(slots, plan)
            if not any(deployment.commands for deployment in plan.deployments):
                break
        else:
            raise AssertionError(f"still commanding:\n{render(plan)}")
        slots = some_answers(slots, chance)


@PROPERTY
@given(histories)
def test_what_is_carried_out_reaches_what_is_wanted_or_says_what_is_missing(history):
    """When devices do as they are told, reconciling ends: all is as wanted, or the last plan names what is not."""
    slots, generation = (), 0
    for fleet, wishes, records, more, drift, chance in history[:-1]:
        asked = asking(slots, records, more, generation=generation, drift=drift)
        plan = make_plan(asked, registry(fleet, *wishes))
        slots, generation = some_answers(reserve(slots, plan), chance), plan.generation
    fleet, wishes, records, more, _, chance = history[-1]
    desired = registry(fleet, *wishes)
    for _ in range(20):
        lost = tuple({s.deployment_id for s in slots if s.state not in (ModelState.READY, ModelState.FAILED)})
        asked = asking(slots, records, more | {"orphaned": lost}, generation=generation, drift=True)
        plan = make_plan(asked, desired)
        assert check(plan, asked, desired) == []
        generation = plan.generation
        if not plan.moves:
            break
        slots = carried_out(slots, plan, desired, records, chance)
    else:
        raise AssertionError(f"still commanding:\n{render(plan)}")
    told = {deployment.deployment_id: deployment for deployment in plan.deployments}
    heard = [s for s in slots if s.worker_id in desired.workers and live(s, records)]
    for name, goal in plan.goals.items():
        digest = desired.specs[name].digest if name in desired.specs else None
        there = [s for s in heard if s.deployment_id == name]
        right = [s for s in there if s.state is ModelState.READY and s.digest == digest]
        said = told[name].unplaced + len(told[name].deferred) if name in told else 0
        assert len(right) + said >= goal.replicas, render(plan)
        assert len(there) - len(right) <= said, render(plan)


@PROPERTY
@given(histories, st.randoms(use_true_random=False))
def test_the_order_of_the_inputs_does_not_matter(history, chance):
    """The same facts in another order give the same plan."""
    slots = ()
    for fleet, wishes, records, more, drift, answers in history:
        generation = max((slot.generation for slot in slots), default=0)
        asked = asking(slots, records, more, generation=generation, drift=drift)
        plan = make_plan(asked, registry(fleet, *wishes))
        mixed = [list(part) for part in (slots, fleet, wishes, records.items())]
        for part in mixed:
            chance.shuffle(part)
        asked = asked.model_copy(update={"slots": tuple(mixed[0]), "devices": dict(mixed[3])})
        assert make_plan(asked, registry(mixed[1], *mixed[2])) == plan
        slots = some_answers(reserve(slots, plan), answers)
