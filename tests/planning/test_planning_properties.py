"""What holds for every plan, whatever the fleet, the commits and the devices' answers."""

import random

from fleets import Wanted, answered, device, observed, registry, worker
from hypothesis import given
from hypothesis import strategies as st

from longshore.planning.check import check
from longshore.planning.plan import make_plan
from longshore.planning.render import render
from longshore.schemas.devices import Health
from longshore.schemas.fleet import SlotSettled
from longshore.schemas.ledger import reserve, settle
from longshore.schemas.lifecycle import ModelState

ZONES = ["a", "b"]
WORKERS = [f"worker-{n}" for n in range(5)]

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
        st.sampled_from(["m0", "m1", "m2", "m3"]),
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

commits = st.lists(st.tuples(workers, wanted, devices, st.randoms(use_true_random=False)), min_size=1, max_size=5)


def some_answers(slots, chance: random.Random):
    """Let some devices answer, well or badly, and others not."""
    for slot in slots:
        if slot.state in (ModelState.READY, ModelState.FAILED) or chance.random() < 0.4:
            continue
        well = chance.random() < 0.6
        state = ModelState.READY if well or slot.state is ModelState.RELOADING else ModelState.FAILED
        if well and slot.state is ModelState.UNLOADING:
            state = ModelState.IDLE
        slots = settle(
            slots,
            SlotSettled(
                deployment_id=slot.deployment_id,
                worker_id=slot.worker_id,
                generation=slot.generation,
                state=state,
                code=None if well else "RUNNER_OOM",
            ),
        )
    return slots


@given(commits)
def test_every_plan_of_every_history_is_sound(history):
    """Whatever was pushed and answered before, the next plan breaks no rule, and its text can be written."""
    slots, generation = (), 0
    for fleet, wishes, records, chance in history:
        asked = observed(slots, records, generation=generation)
        desired = registry(fleet, *wishes)
        plan = make_plan(asked, desired)
        assert check(plan, asked, desired) == []
        assert render(plan)
        generation = plan.generation
        slots = some_answers(reserve(slots, plan), chance)


@given(commits)
def test_planning_the_same_commit_again_comes_to_rest(history):
    """While devices work on a plan, planning it again commands nothing that the first left undone, and soon nothing."""
    slots, generation = (), 0
    for fleet, wishes, records, chance in history:
        desired = registry(fleet, *wishes)
        for _ in range(len(wishes) + 2):
            plan = make_plan(observed(slots, records, generation=generation), desired)
            generation = plan.generation
            slots = reserve(slots, plan)
            if not any(deployment.commands for deployment in plan.deployments):
                break
        else:
            raise AssertionError(f"still commanding:\n{render(plan)}")
        slots = some_answers(slots, chance)


@given(workers, st.lists(wanted, min_size=1, max_size=3))
def test_when_every_device_answers_well_the_next_plan_commands_nothing(fleet, pushes):
    """A plan that was carried out leaves nothing to do."""
    slots, generation = (), 0
    for wishes in pushes:
        desired = registry(fleet, *wishes)
        plan = make_plan(observed(slots, generation=generation), desired)
        slots, generation = answered(slots, plan), plan.generation
    # What was being unloaded by the last push is free now: one more round may use it.
    plan = make_plan(observed(slots, generation=generation), desired)
    slots, generation = answered(slots, plan), plan.generation
    again = make_plan(observed(slots, generation=generation), desired)
    assert [deployment.commands for deployment in again.deployments if deployment.commands] == []


@given(commits, st.randoms(use_true_random=False))
def test_the_order_of_the_inputs_does_not_matter(history, chance):
    """The same facts in another order give the same plan."""
    slots = ()
    for fleet, wishes, records, answers in history:
        plan = make_plan(observed(slots, records), registry(fleet, *wishes))
        mixed = [list(part) for part in (slots, fleet, wishes, records.items())]
        for part in mixed:
            chance.shuffle(part)
        other = make_plan(observed(mixed[0], dict(mixed[3])), registry(mixed[1], *mixed[2]))
        assert other == plan
        slots = some_answers(reserve(slots, plan), answers)
