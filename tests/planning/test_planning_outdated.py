"""Whether a target that is handed over, perhaps late or again, is still what the ledger wants."""

import pytest
from fleets import Wanted, answered, observed, registry, worker

from longshore.planning.outdated import outdated
from longshore.planning.plan import make_plan
from longshore.schemas.ledger import reserve
from longshore.schemas.lifecycle import ModelState

TWO = [worker("worker-a"), worker("worker-b")]
M = Wanted("m", replicas=2)


def planned(slots, wanted):
    plan = make_plan(observed(slots), registry(TWO, wanted))
    return plan, plan.deployments[0]


@pytest.mark.parametrize("state", [None, ModelState.READY, ModelState.FAILED])
def test_what_the_ledger_stands_behind_is_carried_on(state):
    """Whatever has become of it: its device answers again what it has answered before."""
    plan, deployment = planned((), M)
    slots = reserve((), plan) if state is None else answered((), plan)
    slots = tuple(slot.model_copy(update={"state": state or slot.state}) for slot in slots)
    assert not outdated(deployment, slots)


@pytest.mark.parametrize("change", [{"generation": 2}, {"generation": 0}, {"replaced": True}, None])
def test_what_was_planned_anew_since_is_outdated(change):
    """As a whole: by a newer plan, on one device alone, because others took over, or because it is gone."""
    plan, deployment = planned((), M)
    first, second = reserve((), plan)
    slots = (first, second.model_copy(update=change)) if change else (first,)
    assert outdated(deployment, slots)


def test_an_unload_that_has_left_nothing_is_not_outdated():
    """Where nothing is left of it, nobody has planned anything since."""
    slots = answered((), planned((), M)[0])
    plan, deployment = planned(slots, Wanted("m", enabled=False))
    assert not outdated(deployment, reserve(slots, plan))
    assert not outdated(deployment, ())
    assert outdated(deployment, slots)  # as a ledger that was lost finds it: nobody has ordered it away
