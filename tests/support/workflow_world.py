"""A Temporal server with real workflows and real doors; git and devices are in memory."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from fake_device import FakeDevice
from temporalio import workflow
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from longshore.activities.commits import CommitActivities
from longshore.activities.fleet import FleetActivities
from longshore.activities.planner import Planner
from longshore.activities.reconciliations import ReconciliationActivities
from longshore.activities.records import RecordActivities
from longshore.activities.rollouts import RolloutActivities
from longshore.activities.telling import TellingActivities
from longshore.broker.control import SANDBOX, control_worker
from longshore.broker.entities import Entities
from longshore.broker.registry_service import Commits
from longshore.broker.settings import ControlSettings
from longshore.schemas.commits import CommitResult, RecordRequest, ValidationResult
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.failures import LongshoreError
from longshore.schemas.fleet import FleetView
from longshore.schemas.issues import Issue
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.reconciliations import LastApplied, ReconciliationRecord, RecordWatch
from longshore.schemas.registries import RegistrySnapshot
from longshore.schemas.rollouts import RolloutAnswer, SpecRequest
from longshore.schemas.telling import Delivery, NotifyRequest, StatusRequest
from longshore.workflows import conventions

REGISTRY = "ops"
T = TypeVar("T")


def program(name: str) -> str:
    """Return the path of a program that is installed beside this Python, or on PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found is not None, f"{name} is not installed"
    return found


@asynccontextmanager
async def time_skipping_server() -> AsyncIterator[Client]:
    """The small test server: no visibility; its time stands still for nobody while an activity is pending."""
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=program("temporal-test-server"), data_converter=pydantic_data_converter
    ) as environment:
        names = {key.name: 2 for key in conventions.SEARCH_ATTRIBUTES}
        await environment.client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace="default", search_attributes=names)
        )
        yield environment.client


@asynccontextmanager
async def real_server(*arguments: str) -> AsyncIterator[Client]:
    """The real development server, in memory; `arguments` are added to its command line."""
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=program("temporal"),
        data_converter=pydantic_data_converter,
        search_attributes=list(conventions.SEARCH_ATTRIBUTES),
        dev_server_extra_args=list(arguments),
        dev_server_log_level="error",
    ) as environment:
        yield environment.client


async def eventually(probe: Callable[[], Awaitable[T | None]], what: str, timeout: float = 30.0) -> T:
    """Return the first true value of `probe`."""
    deadline = asyncio.get_running_loop().time() + timeout
    while asyncio.get_running_loop().time() < deadline:
        if value := await probe():
            return value
        await asyncio.sleep(0.05)
    raise AssertionError(f"did not happen: {what}")


@workflow.defn(sandboxed=False)
class Mailbox:
    """Stands in for a commit or a fleet: keeps every answer and every settled slot that it is told."""

    def __init__(self) -> None:
        self._answers: list[RolloutAnswer] = []
        self._settled: list[Any] = []

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)

    @workflow.signal
    def answer(self, answer: RolloutAnswer) -> None:
        self._answers.append(answer)

    @workflow.signal
    def slot_settled(self, event: Any) -> None:
        self._settled.append(event)

    @workflow.signal
    def device_changed(self, record: Any) -> None:
        self._settled.append(record)

    @workflow.query
    def answers(self) -> list[RolloutAnswer]:
        return self._answers

    @workflow.query
    def told(self) -> list[Any]:
        return self._settled


class FakeRegistry:
    """Commits in a row: each descends from the one before. Whatever the broker writes is kept in `recorded`."""

    def __init__(self) -> None:
        self.shas: list[str] = []
        self.parents: dict[str, str | None] = {}
        self.snapshots: dict[str, RegistrySnapshot] = {}
        self.issues: dict[str, tuple[Issue, ...]] = {}
        self.recorded: list[RecordRequest] = []
        self.reconciled: list[ReconciliationRecord] = []
        self.record_error: LongshoreError | None = None
        self.applied: str | None = None
        """What the recorded state says has been applied."""
        self.head: str | None = None
        """What the watch sees; None while it is not to see anything."""
        self.before_validation: Callable[[str], Awaitable[None]] | None = None

    def push(self, snapshot: RegistrySnapshot, *issues: Issue) -> str:
        sha = f"{len(self.shas) + 1:040x}"
        self.parents[sha] = self.shas[-1] if self.shas else None
        self.shas.append(sha)
        return self._keep(sha, snapshot, *issues)

    def rewrite(self, snapshot: RegistrySnapshot, parent: str | None = None) -> str:
        """A commit that descends from none of the row: from another one like it, or from nothing at all."""
        sha = f"{0xF0 + len(self.parents) - len(self.shas):x}" * 20
        self.parents[sha] = parent
        return self._keep(sha, snapshot)

    def _keep(self, sha: str, snapshot: RegistrySnapshot, *issues: Issue) -> str:
        self.snapshots[sha] = snapshot.model_copy(update={"sha": sha})
        self.issues[sha] = issues
        return sha

    async def look(self) -> str:
        if self.head is None:
            raise LongshoreError("GIT_UNREACHABLE", "nobody has pushed yet")
        return self.head

    async def validate(self, sha: str) -> ValidationResult:
        if self.before_validation is not None:
            await self.before_validation(sha)
        workers = tuple(self.snapshots[sha].workers)
        return ValidationResult(sha=sha, author="Olga Ops", subject="Deploy", issues=self.issues[sha], workers=workers)

    async def snapshot(self, sha: str) -> RegistrySnapshot:
        return self.snapshots[sha]

    async def is_ancestor(self, older: str, newer: str) -> bool:
        line: str | None = newer
        while line is not None and line != older:
            line = self.parents.get(line)
        return line == older

    async def spec(self, request: SpecRequest) -> DeploymentSpec:
        spec = self.snapshots[request.sha].specs[request.deployment_id]
        if spec.digest != request.digest:
            raise LongshoreError("TAG_MOVED", f"{request.deployment_id} reads otherwise by now")
        return spec

    async def record(self, request: RecordRequest) -> None:
        if self.record_error is not None:
            raise self.record_error
        self.recorded.append(request)

    async def record_reconciliation(self, request: ReconciliationRecord) -> None:
        if self.record_error is not None:
            raise self.record_error
        self.reconciled.append(request)

    async def keep(self, watch: RecordWatch) -> int:
        await asyncio.Event().wait()
        return watch.seen_version

    async def last_applied(self, commits: Commits) -> LastApplied:
        """As the broker finds it: the newest that its workflow has planned, or that the recorded state names."""
        for sha in reversed(self.shas):
            generation = await commits.planned(sha)
            if generation is not None or sha == self.applied:
                return LastApplied(sha=sha, generation=generation or 0, workers=tuple(self.snapshots[sha].workers))
        return LastApplied(sha=None)


class People:
    """The git host's page of commits, and whoever is notified: they keep what they were told, or refuse it."""

    def __init__(self) -> None:
        self.shown: list[StatusRequest] = []
        self.told: list[NotifyRequest] = []
        self.show_error: LongshoreError | None = None
        self.refuse: Callable[[NotifyRequest], LongshoreError | None] = lambda _: None
        self.before_sending: Callable[[NotifyRequest], Awaitable[None]] | None = None

    async def show(self, request: StatusRequest) -> None:
        if self.show_error is not None:
            raise self.show_error
        self.shown.append(request)

    async def send(self, request: NotifyRequest) -> Delivery:
        if self.before_sending is not None:
            await self.before_sending(request)
        if error := self.refuse(request):
            raise error
        self.told.append(request)
        return Delivery.TOLD


class World:
    """One broker, one registry, and the devices that a test turns on."""

    def __init__(self, client: Client, stack: AsyncExitStack, **settings: Any) -> None:
        self.client = client
        self.registry = FakeRegistry()
        self.people = People()
        self.devices: dict[str, FakeDevice] = {}
        self.settings = ControlSettings(
            registry=f"https://git.example/{REGISTRY}.git",
            **{
                "poll_interval": timedelta(milliseconds=200),
                "first_report_grace": timedelta(milliseconds=500),
                "reconcile_pause": timedelta(milliseconds=50),
                "doubt_grace": timedelta(seconds=1),
                "rebuild_grace": timedelta(seconds=2),
                **settings,
            },
        )
        self.entities = Entities(client, self.settings)
        self.planner = Planner(self.registry, self.entities)
        self._stack = stack

    def activities(self) -> list[Callable[..., Any]]:
        commits = CommitActivities(self.registry, self.entities, self.registry)
        fleet = FleetActivities(self.registry, self.registry, self.entities, self.planner)
        reconciliations = ReconciliationActivities(self.planner, self.registry, self.entities)
        records = RecordActivities(self.registry)
        rollouts = RolloutActivities(self.entities, self.registry)
        telling = TellingActivities(
            self.people, self.people, lambda token: self.client.get_async_activity_handle(task_token=token)
        )
        return [
            commits.validate_commit, commits.start_devices, commits.ask_fleet_for_plan, commits.record_result,
            fleet.plan_commit, fleet.watch_registry, fleet.start_commit_again,
            reconciliations.start_reconciliation, reconciliations.watch_drift,
            reconciliations.hear_devices, reconciliations.last_applied,
            records.keep_records, records.record_reconciliation,
            rollouts.start_rollouts, rollouts.resolve_spec, rollouts.await_freed,
            telling.show_status, telling.notify,
        ]  # fmt: skip

    async def start_broker(self, **replaced: Callable[..., Any]) -> None:
        """Start the control worker; `replaced` activities stand in for ours, by name."""
        activities = {getattr(a, "__temporal_activity_definition").name: a for a in self.activities()} | replaced
        await self.run_worker(control_worker(self.client, list(activities.values()), max_cached_workflows=100))

    async def run_worker(self, worker: Worker) -> None:
        await self._stack.enter_async_context(worker)

    async def mailbox(self, workflow_id: str) -> WorkflowHandle[Any, Any]:
        return await self.client.start_workflow(Mailbox.run, id=workflow_id, task_queue="mailbox")

    async def open_mailboxes(self) -> None:
        await self.run_worker(Worker(self.client, task_queue="mailbox", workflows=[Mailbox], workflow_runner=SANDBOX))

    async def device(self, worker_id: str) -> FakeDevice:
        """Turn a device on: it polls its queue from now on."""
        device = self.devices.get(worker_id) or FakeDevice(self.client, worker_id)
        self.devices[worker_id] = device
        door = device.door()
        activities = [door.load_model, door.reload_model, door.unload_model, door.report_presence]
        queue = conventions.device_queue(worker_id)
        await self.run_worker(Worker(self.client, task_queue=queue, activities=activities))
        return device

    async def commit(self, sha: str) -> WorkflowHandle[Any, CommitResult]:
        await self.entities.start_commit(sha)
        workflow_id = conventions.commit_workflow_id(REGISTRY, sha)
        return self.client.get_workflow_handle(workflow_id, result_type=CommitResult)

    async def result(self, sha: str) -> CommitResult:
        handle = await self.commit(sha)
        return await asyncio.wait_for(handle.result(), 60)

    async def fleet(self) -> FleetView:
        return await self.entities.fleet()

    async def settled(self) -> FleetView:
        """Wait until no slot is under way any more."""

        async def probe() -> FleetView | None:
            view = await self.fleet()
            return view if all(slot.state in {ModelState.READY, ModelState.FAILED} for slot in view.slots) else None

        return await eventually(probe, "every slot has settled")


@asynccontextmanager
async def world(client: Client, **settings: Any) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(client, stack, **settings)
