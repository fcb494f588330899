"""What devices run and the ledger has lost is taken in as it is."""

from __future__ import annotations

from datetime import UTC, datetime

from fleets import Wanted, registry, worker

from longshore.planning.adoption import adopt
from longshore.schemas.devices import (
    DeviceCapacity,
    DeviceRecord,
    DeviceReport,
    DeviceStatus,
    Health,
    ModelReport,
    Told,
)
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.slots import Demand

TEN = Wanted("ten", priority=70)
DESIRED = registry([worker("worker-a"), worker("worker-b")], TEN)
OTHER = "12345678" + "0" * 56


def record(worker_id: str = "worker-a", **slots: Told) -> dict[str, DeviceRecord]:
    told = {name: str(word) for name, word in slots.items()}
    return {worker_id: DeviceRecord(worker_id=worker_id, health=Health.HEALTHY, slots=told)}


def report(**model) -> dict[str, DeviceReport]:
    known = {"deployment_id": "ten", "state": ModelState.READY, "generation": 41, **model}
    capacity = DeviceCapacity(
        max_models=5, max_memory=1, used_memory=0, max_cpu=1, used_cpu=0, max_gpu=0, used_gpu=0, loaded_models=1
    )
    return {
        "worker-a": DeviceReport(
            worker_id="worker-a",
            boot_id="b",
            sequence=1,
            status=DeviceStatus.HEALTHY,
            timestamp=datetime(2026, 1, 1, tzinfo=UTC),
            capacity=capacity,
            models=(ModelReport(**known),),
        )
    }


def test_the_wanted_version_is_known_by_its_digest():
    """The record's 8 digits are enough: version, demand and priority are git's."""
    (slot,) = adopt((), record(ten=Told(ModelState.READY, 41, TEN.spec.digest[:8])), {}, DESIRED)
    assert (slot.worker_id, slot.generation, slot.state, slot.priority) == ("worker-a", 41, ModelState.READY, 70)
    assert (slot.version, slot.digest) == ("1.0.0", TEN.spec.digest)
    assert slot.demand.cpu == TEN.cpu


def test_another_version_takes_what_its_device_holds_for_it():
    """Or what it uses, on a device that does not say; or, unheard, what its deployment would take."""
    heard = record(ten=Told(ModelState.READY, 41, OTHER[:8]))
    told = {"version": "0.9.0", "digest": OTHER, "memory_bytes": 3, "cpu": 1.5}
    for more, demand in (
        ({"reserved": Demand(memory=5)}, Demand(memory=5)),
        ({}, Demand(memory=3, cpu=1.5)),
    ):
        (slot,) = adopt((), heard, report(**told, **more), DESIRED)
        assert (slot.version, slot.digest, slot.demand) == ("0.9.0", OTHER, demand)
    (unheard,) = adopt((), heard, {}, DESIRED)
    assert (unheard.version, unheard.digest, unheard.demand.cpu) == ("?", OTHER[:8], TEN.cpu)


def test_what_git_never_named_is_adopted_too():
    """To be unloaded as an orphan: its room is taken until then."""
    (slot,) = adopt((), record(old=Told(ModelState.FAILED, 3, "", "RUNNER_OOM")), {}, DESIRED)
    assert (slot.deployment_id, slot.state, slot.code, slot.priority) == ("old", ModelState.FAILED, "RUNNER_OOM", 1)


def test_what_is_on_its_way_goes_on():
    """A LOAD or RELOAD of the wanted version is known by that; of any other it is to be commanded anew."""
    loading = record(ten=Told(ModelState.LOADING, 41, ""))
    for version, digest in (("1.0.0", TEN.spec.digest), ("0.8.0", "")):
        (slot,) = adopt((), loading, report(state=ModelState.LOADING, incoming_version=version), DESIRED)
        assert (slot.state, slot.version, slot.digest) == (ModelState.LOADING, version, digest)
    told = {"state": ModelState.RELOADING, "version": "0.9.0", "digest": OTHER, "incoming_version": "1.0.0"}
    reloading = record(ten=Told(ModelState.RELOADING, 41, OTHER[:8]))
    (slot,) = adopt((), reloading, report(**told, reserved=Demand(memory=9)), DESIRED)
    assert (slot.digest, slot.previous_digest, slot.reserved) == (TEN.spec.digest, OTHER, Demand(memory=9))


def test_what_is_known_or_idle_or_has_left_git_is_not_adopted():
    """The ledger's own word stands, and a device that git does not name is nobody's."""
    ready = Told(ModelState.READY, 41, TEN.spec.digest[:8])
    heard = record(ten=ready, idle=Told(ModelState.IDLE, 3, "", "DISK_FULL")) | record("worker-z", ten=ready)
    known = adopt((), heard, {}, DESIRED)
    assert [(slot.deployment_id, slot.worker_id) for slot in known] == [("ten", "worker-a")]
    assert adopt(known, heard, {}, DESIRED) == ()
