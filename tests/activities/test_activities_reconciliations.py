"""Looking for drift: by whose clock, and what it names."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

from temporalio.testing import ActivityEnvironment

from longshore.activities.planner import Planner
from longshore.activities.reconciliations import ReconciliationActivities
from longshore.schemas.fleet import FleetView
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.reconciliations import DriftWatch
from longshore.schemas.slots import Demand, Slot
from tests.planning.fleets import NOW, SHA, Wanted, device, registry, worker

FAILED = Wanted("m")
TOO_LARGE = Wanted("large", memory="64Gi")


class Broker:
    """Git, the devices and the ledger, as a look asks for them: by each look `m` has failed so long ago."""

    def __init__(self, *ago: timedelta):
        self.desired = registry([worker("worker-a")], FAILED, TOO_LARGE)
        self.ago = list(ago)

    async def snapshot(self, _sha):
        return self.desired

    async def facts(self, _workers):
        return {}

    async def running_rollouts(self, _deployments):
        return {}

    async def fleet(self):
        slot = Slot(
            deployment_id="m",
            worker_id="worker-a",
            generation=5,
            version="1.0.0",
            digest=FAILED.spec.digest,
            priority=50,
            demand=Demand(),
            state=ModelState.FAILED,
            code="STORAGE_UNAVAILABLE",
            failures=1,
            failed_at=NOW - self.ago.pop(0),
        )
        return FleetView(
            registry="ops", applied_sha=SHA, generation=5, devices=device("worker-a"), slots=(slot,), plan=None
        )


async def test_a_retry_is_due_by_the_servers_clock():
    """FAULTS 68: this host's may be months ahead. What has no place, as before, is not named as drift."""
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(environment.info, started_time=NOW)
    broker = Broker(timedelta(0), timedelta(hours=1))
    activities = ReconciliationActivities(Planner(broker, broker), broker, broker)
    found = await environment.run(activities.watch_drift, DriftWatch(registry="ops", interval=timedelta(0)))
    assert (broker.ago, found.cause.deployments) == ([], ("m",))
