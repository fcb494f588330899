"""The long-lived workflows, as the broker's activities and its webhook reach them: through a Temporal client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TypeVar

import structlog
from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
)
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from longshore.activities.device_facts import facts_of, with_heartbeat
from longshore.broker.settings import ControlSettings
from longshore.schemas.commits import RegistryCommit
from longshore.schemas.devices import DeviceFacts, DeviceInput, DeviceRecord, DeviceReport, DeviceView
from longshore.schemas.failures import FAILURES
from longshore.schemas.fleet import FleetInput, FleetView, PlanAnswer, PlanRequest
from longshore.schemas.reconciliations import Reconciliation
from longshore.schemas.rollouts import RolloutTarget, Steering
from longshore.schemas.wording import short
from longshore.telemetry.metrics import BrokerMetrics
from longshore.workflows import conventions
from longshore.workflows.commits import RegistryCommitWorkflow
from longshore.workflows.devices import DeviceWorkflow
from longshore.workflows.fleet import FleetWorkflow
from longshore.workflows.reconciliations import ReconciliationWorkflow
from longshore.workflows.rollouts import RolloutWorkflow

log = structlog.get_logger()

# How the server says that the run ended before it had answered: the next one may be asked.
_RUN_ENDED = "AcceptedUpdateCompletedWorkflow"

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Entities:
    """The workflows of one registry. Every method may be repeated; what runs already is left running."""

    def __init__(self, client: Client, settings: ControlSettings, metrics: BrokerMetrics | None = None) -> None:
        self._client = client
        self._metrics = metrics or BrokerMetrics()
        self._settings = settings
        self._registry = settings.name
        self._configured: set[str] = set()
        """Devices that have our intervals: they cannot change before this process ends."""

    async def start_fleet(self) -> None:
        """Start the fleet where it is not running, and give it our settings in either case."""
        await self._start_fleet(configured=False)

    async def start_commit(self, sha: str) -> None:
        # One that has ended is left alone: a slow poll, or a webhook that was delivered again.
        with suppress(WorkflowAlreadyStartedError):
            await self._start_commit(sha, WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY)

    async def start_commit_again(self, sha: str, after_run: str) -> None:
        held_back = self._client.get_workflow_handle(
            conventions.commit_workflow_id(self._registry, sha), run_id=after_run
        )
        try:
            # It may still be telling git. Started now, it would be taken for the run that is wanted.
            await held_back.result(follow_runs=False)
        except WorkflowFailureError:
            pass  # terminated, for instance: it has ended all the same
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:  # so long ago that the server has forgotten it
                raise
        await self._start_commit(sha, WorkflowIDReusePolicy.ALLOW_DUPLICATE)

    async def start_devices(self, workers: tuple[str, ...]) -> None:
        await in_windows(self._start_device, workers)

    async def ask_fleet(self, request: PlanRequest) -> PlanAnswer:
        start = WithStartWorkflowOperation(
            FleetWorkflow.run,
            self._fleet_input(),
            id=conventions.fleet_workflow_id(self._registry),
            task_queue=conventions.BROKER_QUEUE,
            task_timeout=conventions.WORKFLOW_TASK_TIMEOUT,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        )
        try:
            # The fleet knows a repeated request by its request id. An update id of its own for each try: the server
            # would answer a known one with the failure of the first, also when planning could succeed by now.
            return await self._client.execute_update_with_start_workflow(
                FleetWorkflow.plan, request, start_workflow_operation=start
            )
        except WorkflowUpdateFailedError as error:
            if isinstance(error.cause, ApplicationError) and error.cause.type != _RUN_ENDED:
                raise error.cause from error  # the code and whether to try again stand in it
            raise

    async def set_targets(self, targets: tuple[RolloutTarget, ...]) -> None:
        await in_windows(self._set_target, targets)

    async def steer(self, deployment_id: str, word: Steering) -> None:
        handle = self._client.get_workflow_handle(conventions.rollout_workflow_id(deployment_id))
        try:
            await handle.signal("steer", word)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:  # it has ended, and has nothing to be told
                raise

    async def fleet(self) -> FleetView:
        handle = self._client.get_workflow_handle(conventions.fleet_workflow_id(self._registry))
        return await handle.query(FleetWorkflow.fleet)

    async def version(self) -> int:
        """Return the ledger's version: a smaller question than `fleet`, asked every second."""
        handle = self._client.get_workflow_handle(conventions.fleet_workflow_id(self._registry))
        version: int = await handle.query("version", result_type=int)
        return version

    async def device(self, worker_id: str) -> DeviceView:
        """Return what is known of a device, its heartbeats included: its workflow hears of changes only."""
        handle = self._client.get_workflow_handle(conventions.device_workflow_id(worker_id))
        return await with_heartbeat(self._client, handle, await handle.query(DeviceWorkflow.device))

    async def hear(self, workers: tuple[str, ...]) -> tuple[DeviceRecord, ...]:
        """Return what each device's workflow would tell the fleet; one that does not answer is left out."""
        await self.start_devices(workers)
        records = await in_windows(self._record, workers)
        return tuple(record for record in records if record is not None)

    async def facts(self, workers: tuple[str, ...]) -> dict[str, DeviceFacts]:
        return await facts_of(self._client, {name: conventions.device_workflow_id(name) for name in workers})

    async def reports(self, workers: tuple[str, ...]) -> dict[str, DeviceReport]:
        """Return what each device has reported last; one that cannot be asked, or has not reported, is left out."""
        views = await in_windows(self._view, workers)
        return {view.worker_id: view.report for view in views if view is not None and view.report is not None}

    async def running_rollouts(self, deployments: tuple[str, ...]) -> dict[str, int | None]:
        running = [name for name, runs in await in_windows(self._has_rollout, deployments) if runs]
        return dict(await in_windows(self._rollout_generation, running))

    async def start_reconciliation(self, asked: Reconciliation) -> None:
        asked = asked.model_copy(update={"intervals": self._settings.commands, "telling": self._settings.telling})
        attributes = [
            SearchAttributePair(conventions.COMMIT, asked.sha),
            SearchAttributePair(conventions.CAUSE, asked.cause.kind),
        ]
        try:
            await self._start_reconciliation(asked, attributes)
        except RPCError as error:
            if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                raise
            # A cluster that did not let us register the newest attribute.
            await self._start_reconciliation(asked, attributes[:1])
        if asked.since is not None and asked.plan.moves:
            self._metrics.reconciled((datetime.now(UTC) - asked.since).total_seconds())

    async def planned(self, sha: str) -> int | None:
        handle = self._client.get_workflow_handle(conventions.commit_workflow_id(self._registry, sha))
        try:
            return await handle.query(RegistryCommitWorkflow.planned)
        except (RPCError, WorkflowQueryFailedError):  # never begun, forgotten, or of a release that does not tell
            return None

    async def keep_fleet(self) -> None:
        """Start the fleet where it is not running; its settings it has from the broker that has started last."""
        if await self._is_gone(conventions.fleet_workflow_id(self._registry)):
            with suppress(WorkflowAlreadyStartedError):  # another broker was quicker
                await self._start_fleet(configured=True)

    async def keep_device(self, worker_id: str) -> None:
        """Start the device's workflow where it is not running."""
        if await self._is_gone(conventions.device_workflow_id(worker_id)):
            self._configured.add(worker_id)  # it begins with our intervals
            await self._start_device(worker_id)

    async def first_fleet_run(self) -> str | None:
        """Return the run id with which the fleet's line of runs began; None where the server knows of no fleet."""
        described = await self._described(conventions.fleet_workflow_id(self._registry))
        return described.raw_description.workflow_execution_info.first_run_id if described else None

    async def _is_gone(self, workflow_id: str) -> bool:
        """Return whether nothing runs there. A run that a defect has ended is told (FAULTS 60)."""
        described = await self._described(workflow_id)
        status = described.status if described else None
        if status is WorkflowExecutionStatus.FAILED:
            log.error(
                "workflow_failed", code="WORKFLOW_BUG", workflow_id=workflow_id, remedy=FAILURES["WORKFLOW_BUG"].remedy
            )
        return status is not WorkflowExecutionStatus.RUNNING

    async def _described(self, workflow_id: str) -> WorkflowExecutionDescription | None:
        try:
            return await self._client.get_workflow_handle(workflow_id).describe()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return None

    async def _has_rollout(self, deployment_id: str) -> tuple[str, bool]:
        return deployment_id, not await self._is_gone(conventions.rollout_workflow_id(deployment_id))

    async def _rollout_generation(self, deployment_id: str) -> tuple[str, int | None]:
        handle = self._client.get_workflow_handle(conventions.rollout_workflow_id(deployment_id))
        try:
            return deployment_id, await handle.query(RolloutWorkflow.generation)
        except (RPCError, WorkflowQueryFailedError):  # of a release that does not tell, or just ended
            return deployment_id, None

    async def _record(self, worker_id: str) -> DeviceRecord | None:
        handle = self._client.get_workflow_handle(conventions.device_workflow_id(worker_id))
        try:
            return await handle.query(DeviceWorkflow.record)
        except (RPCError, WorkflowQueryFailedError) as error:
            log.warning("device_not_known", worker_id=worker_id, error=str(error))
            return None

    async def _view(self, worker_id: str) -> DeviceView | None:
        try:
            return await self.device(worker_id)
        except (RPCError, WorkflowQueryFailedError) as error:
            log.warning("device_not_known", worker_id=worker_id, error=str(error))
            return None

    async def _start_reconciliation(
        self, asked: Reconciliation, attributes: Sequence[SearchAttributePair[str]]
    ) -> None:
        alarm = asked.since if not asked.plan.moves and not asked.plan.deployments else None
        workflow_id = (
            conventions.alarm_workflow_id(self._registry, alarm)
            if alarm is not None
            else conventions.reconciliation_workflow_id(self._registry, asked.plan.generation)
        )
        with suppress(WorkflowAlreadyStartedError):  # and has ended since
            await self._client.start_workflow(
                ReconciliationWorkflow.run,
                asked,
                id=workflow_id,
                task_queue=conventions.BROKER_QUEUE,
                task_timeout=conventions.WORKFLOW_TASK_TIMEOUT,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                search_attributes=TypedSearchAttributes(attributes),
                static_summary=asked.cause.words[:200],
            )

    async def _start_fleet(self, *, configured: bool) -> None:
        await self._client.start_workflow(
            FleetWorkflow.run,
            self._fleet_input(),
            id=conventions.fleet_workflow_id(self._registry),
            task_queue=conventions.BROKER_QUEUE,
            task_timeout=conventions.WORKFLOW_TASK_TIMEOUT,
            static_summary=f"what runs where, for the registry {self._registry}",
            start_signal=None if configured else "configure",
            start_signal_args=[self._settings.fleet],
        )

    async def _start_commit(self, sha: str, reuse: WorkflowIDReusePolicy) -> None:
        await self._client.start_workflow(
            RegistryCommitWorkflow.run,
            RegistryCommit(
                registry=self._registry, sha=sha, intervals=self._settings.commands, telling=self._settings.telling
            ),
            id=conventions.commit_workflow_id(self._registry, sha),
            task_queue=conventions.BROKER_QUEUE,
            task_timeout=conventions.WORKFLOW_TASK_TIMEOUT,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=reuse,
            search_attributes=TypedSearchAttributes([SearchAttributePair(conventions.COMMIT, sha)]),
            static_summary=f"registry commit {short(sha)}",
        )

    async def _start_device(self, worker_id: str) -> None:
        await self._client.start_workflow(
            DeviceWorkflow.run,
            DeviceInput(worker_id=worker_id, registry=self._registry, intervals=self._settings.presence),
            id=conventions.device_workflow_id(worker_id),
            task_queue=conventions.BROKER_QUEUE,
            task_timeout=conventions.WORKFLOW_TASK_TIMEOUT,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary=f"whether {worker_id} is there",
            start_signal=None if worker_id in self._configured else "configure",
            start_signal_args=[self._settings.presence],
        )
        self._configured.add(worker_id)

    async def _set_target(self, target: RolloutTarget) -> None:
        await self._client.start_workflow(
            RolloutWorkflow.run,
            id=conventions.rollout_workflow_id(target.plan.deployment_id),
            task_queue=conventions.BROKER_QUEUE,
            task_timeout=conventions.WORKFLOW_TASK_TIMEOUT,
            static_summary=f"{target.plan.deployment_id} as the newest commit wants it",
            start_signal="set_target",
            start_signal_args=[target],
        )

    def _fleet_input(self) -> FleetInput:
        return FleetInput(registry=self._registry, settings=self._settings.fleet)


async def in_windows(call: Callable[[Item], Awaitable[Answer]], items: Sequence[Item]) -> list[Answer]:
    """Call for each item, a window of them at a time (DESIGN §3)."""
    answers: list[Answer] = []
    for first in range(0, len(items), conventions.FAN_OUT_WINDOW):
        answers += await asyncio.gather(*(call(item) for item in items[first : first + conventions.FAN_OUT_WINDOW]))
    return answers
