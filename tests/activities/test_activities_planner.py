"""How a plan is made at a door: what the ledger does not know is in every plan."""

import pytest

from longshore.activities.planner import Planner
from longshore.schemas.devices import DeviceRecord, Health, Told
from longshore.schemas.fleet import RequestKind
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import Cause, CauseKind
from tests.planning.fleets import Wanted, observed, registry, worker


class Broker:
    """Git and the devices, as a planner asks for them."""

    def __init__(self, desired):
        self.desired = desired

    async def snapshot(self, _sha):
        return self.desired

    async def reports(self, _workers):
        return {}

    async def facts(self, _workers):
        return {}


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        (RequestKind.COMMIT, None),
        (RequestKind.RECONCILE, None),  # a look of watch_drift
        (RequestKind.RECONCILE, Cause(kind=CauseKind.WORKER_FAILED, words="worker-b has failed")),
    ],
)
async def test_what_is_running_unknown_to_the_ledger_is_in_every_plan(kind, cause):
    """A device that was out of git for a while holds what it held: a plan that passed over it would give it away."""
    wanted = Wanted("m")
    broker = Broker(registry([worker("worker-a")], wanted))
    record = DeviceRecord(
        worker_id="worker-a",
        health=Health.HEALTHY,
        slots={"m": str(Told(ModelState.READY, 3, wanted.spec.digest[:8]))},
        generation=3,
    )
    asked = observed(devices={"worker-a": record}, generation=5)
    request = asked.request.model_copy(update={"kind": kind, "cause": cause})
    plan = await Planner(broker, broker).plan(asked.model_copy(update={"request": request, "applied_sha": "b" * 40}))
    assert [(slot.deployment_id, slot.worker_id, slot.state) for slot in plan.adopted] == [
        ("m", "worker-a", ModelState.READY)
    ]
    assert plan.deployments == ()
