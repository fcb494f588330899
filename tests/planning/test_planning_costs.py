"""What a plan would cost, as far as the devices' own history tells."""

import pytest
from fleets import Wanted, answered, observed, registry, worker

from longshore.planning.costs import Cost, preview
from longshore.planning.plan import make_plan
from longshore.planning.render import capacities
from longshore.schemas.cards import Artifacts
from longshore.schemas.devices import DeviceFacts

CHECKSUM = "0123456789ab" + "c" * 52
FLEET = [worker("worker-a"), worker("worker-b")]
GI = 1024**3


def costs(wanted, facts, slots=(), **artifacts):
    asked = observed(slots).model_copy(update={"facts": facts})
    desired = registry(FLEET, wanted)
    spec = desired.specs[wanted.id]
    told = Artifacts(storage_type="s3", model_path="s3://models/model", **artifacts)
    card = spec.card.model_copy(update={"artifacts": told})
    desired = desired.model_copy(update={"specs": {wanted.id: spec.model_copy(update={"card": card})}})
    return preview(make_plan(asked, desired), asked, desired).costs


@pytest.mark.parametrize(
    ("facts", "cost"),
    [
        ({}, Cost(bytes=1000, seconds=None, rollback_seconds=None)),
        (
            {"worker-a": DeviceFacts(load_seconds={"m": 50.0}, fetch_seconds={"m": 42.0})},
            Cost(bytes=1000, seconds=50.0, rollback_seconds=None),
        ),
        (
            {"worker-b": DeviceFacts(load_seconds={"m": 20.0}), "worker-c": DeviceFacts(load_seconds={"m": 40.0})},
            Cost(bytes=1000, seconds=30.0, rollback_seconds=None),
        ),
        (
            {"worker-a": DeviceFacts(load_seconds={"m": 50.0}, fetch_seconds={"m": 42.0}, cached=(CHECKSUM[:12],))},
            Cost(bytes=0, seconds=8.0, rollback_seconds=None),
        ),
    ],
    ids=["nothing known", "its own history", "the others' median", "in its cache"],
)
def test_load_costs_what_its_device_has_taken_before(facts, cost):
    """Bytes by the card, less what the cache holds; seconds by this device, else by the others, else not known."""
    found = costs(Wanted("m"), facts, checksum=CHECKSUM, size_bytes=1000)
    assert found == {("m", "worker-a"): cost}


def test_way_back_from_a_reload_fetches_nothing():
    """The version before is still on the device, so a rollback takes a load without what it fetched."""
    slots = answered((), make_plan(observed(), registry(FLEET, Wanted("m", "1.0.0"))))
    facts = {"worker-a": DeviceFacts(load_seconds={"m": 50.0}, fetch_seconds={"m": 42.0})}
    found = costs(Wanted("m", "1.1.0"), facts, slots)
    assert found == {("m", "worker-a"): Cost(bytes=None, seconds=50.0, rollback_seconds=8.0)}


def test_a_table_of_capacities_has_the_changed_devices_only():
    """Where a plan leaves each device as full as it was, there is no table, only that it is so."""
    slots = answered((), make_plan(observed(), registry(FLEET, Wanted("m", "1.0.0"))))
    asked = observed(slots)
    same, more = (registry(FLEET, wanted) for wanted in (Wanted("m", "1.1.0"), Wanted("m", "1.1.0", cpu=3.0)))
    assert capacities(preview(make_plan(asked, same), asked, same).capacity) == f"{len(FLEET)} devices as before\n"
    assert capacities(preview(make_plan(asked, more), asked, more).capacity).splitlines()[0].startswith("device")


def test_capacity_is_told_before_and_after():
    """A RELOAD holds both versions for a while; afterwards there is one, and what was unloaded has gone."""
    before = (Wanted("m", "1.0.0", memory="2Gi"), Wanted("old", memory="1Gi", replicas=2))
    slots = answered((), make_plan(observed(), registry(FLEET, *before)))
    asked, desired = observed(slots), registry(FLEET, Wanted("m", "1.1.0", memory="3Gi"))
    row = preview(make_plan(asked, desired), asked, desired).capacity[0]
    assert (row.worker_id, row.capacity.memory, row.capacity.models) == ("worker-a", 16 * GI, 5)
    assert (row.before.memory, row.before.models) == (3 * GI, 2)
    assert (row.after.memory, row.after.models) == (3 * GI, 1)
