"""`longshore status` against a real Temporal server whose workflows answer with fixed views."""

import asyncio
import json
import shutil
import sys
from datetime import UTC, datetime, timedelta

import pytest
from temporalio import activity, workflow
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from longshore.cli.status.gathering import gather
from longshore.schemas.commits import CommitOutcome, CommitResult
from longshore.schemas.devices import DeviceCapacity, DeviceRecord, DeviceReport, DeviceStatus, DeviceView, Health
from longshore.schemas.failures import LongshoreError
from longshore.schemas.fleet import FleetView
from longshore.schemas.issues import Issue
from longshore.workflows.conventions import BROKER_QUEUE, commit_workflow_id, device_workflow_id, fleet_workflow_id

# Long enough for a loaded machine; a passing test never waits for it.
PATIENCE_SECONDS = 60.0

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@workflow.defn(name="FleetWorkflow")
class AnsweringFleet:
    @workflow.run
    async def run(self, answer: FleetView) -> None:
        self.answer = answer
        await workflow.wait_condition(lambda: False)

    @workflow.query
    def fleet(self) -> FleetView:
        return self.answer


@activity.defn(name="report_presence")
async def hold_presence(report: DeviceReport) -> None:
    activity.heartbeat(report)
    await asyncio.Event().wait()


@workflow.defn(name="DeviceWorkflow")
class AnsweringDevice:
    @workflow.run
    async def run(self, answer: DeviceView) -> None:
        self.answer = answer
        later = answer.report.model_copy(update={"data_address": "127.0.0.1:9999"})
        await workflow.execute_activity("report_presence", later, start_to_close_timeout=timedelta(hours=1))

    @workflow.query
    def device(self) -> DeviceView:
        return self.answer


@workflow.defn(name="RegistryCommitWorkflow")
class EndedCommit:
    @workflow.run
    async def run(self, result: CommitResult) -> CommitResult:
        return result


@pytest.fixture
async def client():
    """A client of a server of its own, and a broker beside it."""
    binary = shutil.which("temporal")
    environment = await WorkflowEnvironment.start_local(
        data_converter=pydantic_data_converter, dev_server_existing_path=binary, dev_server_log_level="error"
    )
    broker = Worker(
        environment.client,
        task_queue=BROKER_QUEUE,
        workflows=[AnsweringFleet, AnsweringDevice, EndedCommit],
        activities=[hold_presence],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    try:
        async with broker:
            yield environment.client
    finally:
        await environment.shutdown()


def report(worker_id):
    capacity = DeviceCapacity(
        max_models=5, max_memory=1, used_memory=0, max_cpu=1.0, used_cpu=0.0, max_gpu=0, used_gpu=0, loaded_models=0
    )
    facts = {"boot_id": "b", "sequence": 1, "status": DeviceStatus.HEALTHY, "timestamp": LONG_AGO}
    return DeviceReport(worker_id=worker_id, capacity=capacity, **facts)


async def serve(client, registry):
    fleet = FleetView(
        registry=registry,
        applied_sha=None,
        generation=0,
        devices={name: DeviceRecord(worker_id=name) for name in ("worker-a", "worker-b")},
        slots=(),
        plan=None,
    )
    await client.start_workflow("FleetWorkflow", fleet, id=fleet_workflow_id(registry), task_queue=BROKER_QUEUE)


async def eventually(client, ready):
    """Ask until the server's visibility, which lags a little, shows what `ready` looks for."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                answer = await gather(client, None)
            except LongshoreError as error:
                answer = error
            if ready(answer):
                return answer
            await asyncio.sleep(0.1)


async def test_registry_devices_and_commits_are_found(client):
    """The only registry is found by itself; a device's heartbeats count, and one without a workflow is shown."""
    await serve(client, "registry")
    heard = DeviceView(worker_id="worker-a", health=Health.HEALTHY, last_evidence=LONG_AGO, report=report("worker-a"))
    await client.start_workflow("DeviceWorkflow", heard, id=device_workflow_id("worker-a"), task_queue=BROKER_QUEUE)
    issue = Issue(code="REF_NOT_FOUND", file="models/production/m.yaml", message="no tag v9.9.9")
    result = CommitResult(sha="12345", outcome=CommitOutcome.REJECTED, summary="rejected", issues=(issue,))
    await client.execute_workflow(
        "RegistryCommitWorkflow", result, id=commit_workflow_id("registry", "12345"), task_queue=BROKER_QUEUE
    )
    status = await eventually(
        client, lambda s: getattr(s, "commits", ()) and s.commits[0].outcome and s.workers[0].last_heard > LONG_AGO
    )
    assert status.workers[0].data_address == "127.0.0.1:9999"
    assert [(w.worker_id, w.health) for w in status.workers] == [
        ("worker-a", Health.HEALTHY),
        ("worker-b", Health.UNKNOWN),
    ]
    assert [(c.sha, c.outcome, c.issues) for c in status.commits] == [("12345", CommitOutcome.REJECTED, (issue,))]


async def test_registry_must_be_known(client):
    """None, an unknown one, and several: each is told by name."""
    with pytest.raises(LongshoreError, match="No registry is served"):
        await gather(client, None)
    with pytest.raises(LongshoreError, match="'nobody'"):
        await gather(client, "nobody")
    await serve(client, "one")
    await serve(client, "two")
    several = await eventually(client, lambda answer: "Several" in str(answer))
    assert "one, two" in str(several)
    assert (await gather(client, "two")).registry == "two"


async def test_command_ends_cleanly_thirty_times(client):
    """A short process that used a temporalio client ends with its own code every time (DESIGN §3 Exit)."""
    await serve(client, "registry")
    await eventually(client, lambda answer: not isinstance(answer, LongshoreError))
    command = [
        sys.executable,
        "-m",
        "longshore",
        "status",
        "--json",
        "--temporal",
        client.service_client.config.target_host,
    ]
    for _ in range(10):
        runs = [
            await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            for _ in range(3)
        ]
        for run in runs:
            out, err = await run.communicate()
            assert (run.returncode, err) == (0, b"")
            assert json.loads(out)["registry"] == "registry"
