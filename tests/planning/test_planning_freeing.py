"""When the room that a command waits for counts as made."""

import pytest

from longshore.planning.freeing import freed
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import Awaited
from longshore.schemas.slots import Demand, Slot

AWAITED = Awaited(deployment_id="churn", worker_id="worker-a", generation=7)


def slot(state, generation, worker_id="worker-a", code=None):
    return Slot(
        deployment_id="churn",
        worker_id=worker_id,
        generation=generation,
        version="1.0.0",
        digest="d",
        priority=20,
        demand=Demand(),
        state=state,
        code=code,
    )


@pytest.mark.parametrize(
    ("state", "generation", "outcome"),
    [
        (ModelState.UNLOADING, 7, None),
        (ModelState.UNLOADING, 9, None),
        (ModelState.READY, 6, None),
        (ModelState.FAILED, 7, "kept"),
        (ModelState.READY, 7, "kept"),
        (ModelState.READY, 8, "kept"),
        (ModelState.LOADING, 8, "kept"),
    ],
)
def test_a_slot_that_is_there(state, generation, outcome):
    """Under way: wait; failed, withdrawn or wanted anew: it stays."""
    answer = freed([AWAITED], [slot(state, generation)])
    assert (answer and answer.outcome) == outcome


def test_a_slot_that_has_gone():
    """Only once all are gone; the same deployment on another device is none of them."""
    other = AWAITED.model_copy(update={"deployment_id": "fraud"})
    elsewhere = slot(ModelState.READY, 3, "worker-b")
    assert freed([AWAITED, other], [elsewhere]).outcome == "freed"
    assert freed([AWAITED, other], [elsewhere, slot(ModelState.UNLOADING, 7)]) is None


def test_what_stays_is_named():
    """The newcomer's failure says which, where, and why."""
    answer = freed([AWAITED], [slot(ModelState.FAILED, 7, code="DEVICE_UNREACHABLE")])
    assert answer.words == "churn stays on worker-a: failed (DEVICE_UNREACHABLE)"
