"""The PRD's times at their real length, on a server that skips what nobody is waiting for."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from device_fakes import WORKER_ID, Device, FakeLease, spec
from fake_device import FakeDevice
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker
from workflow_world import REGISTRY, World, eventually

from longshore.activities.devices import DeviceActivities
from longshore.schemas.commands import Action
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.devices import DeviceInput, DeviceReport, Health, PresenceRequest
from longshore.schemas.failures import LongshoreError
from longshore.schemas.plans import DeploymentPlan, PlannedCommand
from longshore.schemas.rollouts import RolloutAnswer, RolloutOutcome, RolloutTarget, SpecRequest
from longshore.workflows import conventions
from longshore.workflows.devices import DeviceWorkflow
from longshore.workflows.rollouts import RolloutWorkflow


class Door:
    """A device that answers the first questions, refuses at once while it is away, and answers when it is back."""

    def __init__(self, world: World) -> None:
        self.there = 1
        self._device = FakeDevice(world.client, "worker-a")

    @activity.defn(name="report_presence")
    async def answer(self, _: PresenceRequest) -> DeviceReport:
        if self.there == 0:
            raise ApplicationError("away")
        self.there -= 1
        return self._device.report()


async def test_a_device_is_suspect_after_60_and_failed_after_120_seconds(bare_world: World) -> None:
    """PRD §5.5, from the last thing heard: pinged every ten seconds meanwhile, and recovering when it is back."""
    await bare_world.start_broker()
    await bare_world.open_mailboxes()
    fleet = await bare_world.mailbox(conventions.fleet_workflow_id(REGISTRY))
    door = Door(bare_world)
    queue = conventions.device_queue("worker-a")
    await bare_world.run_worker(Worker(bare_world.client, task_queue=queue, activities=[door.answer]))
    handle = await bare_world.client.start_workflow(
        DeviceWorkflow.run,
        DeviceInput(worker_id="worker-a", registry=REGISTRY),
        id=conventions.device_workflow_id("worker-a"),
        task_queue=conventions.BROKER_QUEUE,
    )
    skipping = asyncio.create_task(handle.result())  # time is skipped while somebody waits for a result

    async def told(*wanted: Health) -> list[datetime]:
        async def probe() -> list[datetime] | None:
            healths = [record["health"] for record in await fleet.query("told")]
            return await _signalled(fleet) if healths[: len(wanted)] == list(wanted) else None

        return await eventually(probe, f"the fleet is told {wanted}")

    bad_news = (Health.HEALTHY, Health.SUSPECT, Health.FAILED)
    heard, suspect, failed = (await told(*bad_news))[:3]
    door.there = 2
    await told(*bad_news, Health.RECOVERING, Health.HEALTHY)
    await handle.terminate()
    await asyncio.gather(skipping, return_exceptions=True)
    ping = timedelta(seconds=10)  # a refusal is noticed when the next question is due
    assert timedelta(seconds=60) <= suspect - heard <= timedelta(seconds=60) + 2 * ping
    assert timedelta(seconds=120) <= failed - heard <= timedelta(seconds=120) + 2 * ping


async def _signalled(handle: WorkflowHandle[Any, Any]) -> list[datetime]:
    """Return when each signal came, by the server's clock."""
    history = await handle.fetch_history()
    kind = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
    return [event.event_time.ToDatetime() for event in history.events if event.event_type == kind]


@pytest.fixture
def device(tmp_path: Path) -> Any:
    device = Device(tmp_path)
    yield device
    device.journal.close()


async def test_a_failing_load_is_tried_again_after_30_60_and_120_seconds(bare_world: World, device: Device) -> None:
    """PRD §8.2: the device counts, Temporal waits; the fourth failure is the last."""

    @activity.defn
    async def resolve_spec(request: SpecRequest) -> DeploymentSpec:
        return spec("ten", request.digest.removeprefix("digest-of-"))

    await bare_world.start_broker(resolve_spec=resolve_spec)
    await bare_world.open_mailboxes()
    await bare_world.mailbox(conventions.fleet_workflow_id(REGISTRY))
    door = DeviceActivities(device.host, FakeLease)
    queue = conventions.device_queue(WORKER_ID)
    await bare_world.run_worker(
        Worker(
            bare_world.client, task_queue=queue, activities=[door.load_model], graceful_shutdown_timeout=timedelta(1)
        )
    )
    crash = LongshoreError("RUNNER_CRASHED", "killed")
    tries: list[tuple[int, RolloutOutcome]] = []
    for failures in range(5):
        device.runners.start_errors = [crash] * failures
        answer = await _rolled_out(bare_world, failures + 1)
        tries.append((round(answer.results[0].seconds, -1), answer.outcome))
    done, failed = RolloutOutcome.DONE, RolloutOutcome.FAILED
    assert tries == [(0, done), (30, done), (90, done), (210, done), (210, failed)]


async def _rolled_out(world: World, generation: int) -> RolloutAnswer:
    version = f"{generation}.0.0"
    commit = await world.mailbox(f"commit-{generation}")
    plan = DeploymentPlan(
        deployment_id="ten",
        generation=generation,
        version=version,
        digest=f"digest-of-{version}",
        replicas=1,
        changes=(),
        commands=(PlannedCommand(action=Action.LOAD, worker_id=WORKER_ID, reason="it fits"),),
    )
    target = RolloutTarget(registry=REGISTRY, sha=f"{generation:040x}", plan=plan, reply_to=commit.id)
    handle = await world.client.start_workflow(
        RolloutWorkflow.run,
        id=conventions.rollout_workflow_id(plan.deployment_id),
        task_queue=conventions.BROKER_QUEUE,
        start_signal="set_target",
        start_signal_args=[target],
    )
    await handle.result()
    [answer] = await commit.query("answers", result_type=list[RolloutAnswer])
    return answer
