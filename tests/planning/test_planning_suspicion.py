"""When so much of a pool is silent that it is not believed (FAULTS 85)."""

from datetime import timedelta

import pytest
from fleets import NOW, Wanted, answered, device, observed, reconciling, registry, worker

from longshore.planning.check import check
from longshore.planning.plan import make_plan
from longshore.planning.render import render
from longshore.planning.suspicion import suspicions
from longshore.schemas.commands import Action
from longshore.schemas.devices import DeviceStatus, Health
from longshore.schemas.plans import PoolSuspicion

POOL = [worker(f"worker-{n}") for n in range(5)]
STAGING = worker("worker-s", pool="staging")


def suspected(*silent, failed=(), workers=POOL):
    """Return the suspicions of a pool in which `silent` are suspect and `failed` (id, seconds ago) have failed."""
    devices, failures = {}, {}
    for config in workers:
        devices |= device(config.worker_id)
    for worker_id in silent:
        devices |= device(worker_id, Health.SUSPECT)
    for worker_id, ago in failed:
        devices |= device(worker_id, Health.FAILED)
        failures[worker_id] = (NOW - timedelta(seconds=ago),)
    window = timedelta(seconds=120)
    known = {config.worker_id: config for config in workers}
    return suspicions(known, devices, failures, NOW, share=0.55, window=window)


def test_more_than_the_share_of_a_pool_within_one_window_is_suspicious():
    """Devices that are only suspect count: when the first of them has failed, nothing was moved yet."""
    assert suspected("worker-1", failed=[("worker-0", 5)]) == ()
    (suspicion,) = suspected("worker-1", "worker-2", failed=[("worker-0", 5)])
    assert suspicion == PoolSuspicion(pool="production", unhealthy=3, alive_before=5)


def test_devices_that_died_long_before_count_on_neither_side():
    """Three dead since yesterday do not make one more a mass; two of the two that were left do."""
    dead = [(f"worker-{n}", 7200 * (n + 1)) for n in range(3)]
    assert suspected("worker-3", failed=dead) == ()
    (suspicion,) = suspected("worker-3", "worker-4", failed=dead)
    assert (suspicion.unhealthy, suspicion.alive_before) == (2, 2)


def test_suspicion_lasts_while_they_are_silent():
    """An hour later they are as silent as they were; that alone proves nothing."""
    assert suspected(failed=[(f"worker-{n}", 3600 + n) for n in range(4)]) != ()


def test_devices_that_said_goodbye_are_no_mass_failure():
    """Their hosts were stopped on purpose: what they held moves, and beside them one dead device is one."""
    devices = {name: one for config in POOL for name, one in device(config.worker_id).items()}
    for worker_id in ("worker-0", "worker-1", "worker-2"):
        devices |= device(worker_id, Health.FAILED, status=DeviceStatus.LEAVING)
    failures = {f"worker-{n}": (NOW,) for n in range(4)}
    known = {config.worker_id: config for config in POOL}
    share, window = 0.55, timedelta(seconds=120)
    assert suspicions(known, devices, failures, NOW, share=share, window=window) == ()
    devices |= device("worker-3", Health.FAILED)
    assert suspicions(known, devices, failures, NOW, share=share, window=window) == ()


@pytest.mark.parametrize("count", [1, 2])
def test_one_silent_device_is_no_mass(count):
    """A pool of one or two must have its replicas replaced elsewhere."""
    assert suspected("worker-0", workers=POOL[:count]) == ()


def test_nothing_lost_in_a_suspect_pool_is_replaced_and_nothing_evicted():
    """What runs is left alone, also by something more important; the plan says why. Other pools go on."""
    low, other = Wanted("low", memory="12Gi", replicas=5, priority=10), Wanted("other", selector={"pool": "staging"})
    workers = [*POOL, STAGING]
    slots = answered((), make_plan(observed(), registry(workers, low)))
    devices, failures = {}, {}
    for number in range(3):
        devices |= device(f"worker-{number}", Health.FAILED)
        failures[f"worker-{number}"] = (NOW,)
    for config in POOL[3:]:
        devices |= device(config.worker_id)
    high = Wanted("high", memory="12Gi", priority=90)
    asked, desired = reconciling(slots, devices, failures=failures), registry(workers, low, other, high)
    plan = make_plan(asked, desired)
    assert check(plan, asked, desired) == []
    plans = {deployment.deployment_id: deployment for deployment in plan.deployments}
    assert [(command.action, command.worker_id) for command in plans["other"].commands] == [(Action.LOAD, "worker-s")]
    assert "low" not in plans
    assert plans["high"].commands == ()
    assert plans["high"].rejections[-1].reasons[-1] == (
        "nothing is evicted: 3 of 5 devices of pool production are silent at once"
    )
    assert plan.suspects == (PoolSuspicion(pool="production", unhealthy=3, alive_before=5),)
    assert "! FLEET_SUSPECT: 3 of 5 devices of pool production are silent at once" in render(plan)
    later = make_plan(reconciling(slots, devices), desired)
    assert later.suspects == ()
    assert {d.deployment_id: d.lost for d in later.deployments}["low"] == ("worker-0", "worker-1", "worker-2")
