"""The long-lived workflows, as the broker's activities and its webhook reach them: through a Temporal client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from temporalio.client import Client, WithStartWorkflowOperation, WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from longshore.broker.settings import ControlSettings
from longshore.schemas.commits import RegistryCommit
from longshore.schemas.devices import DeviceInput, DeviceView
from longshore.schemas.fleet import FleetInput, FleetView, PlanAnswer, PlanRequest
from longshore.schemas.rollouts import RolloutTarget
from longshore.workflows import conventions
from longshore.workflows.commits import RegistryCommitWorkflow
from longshore.workflows.devices import DeviceWorkflow
from longshore.workflows.fleet import FleetWorkflow
from longshore.workflows.rollouts import RolloutWorkflow

Item = TypeVar("Item")


class Entities:
    """The workflows of one registry. Every method may be repeated; what runs already is left running."""

    def __init__(self, client: Client, settings: ControlSettings) -> None:
        self._client = client
        self._settings = settings
        self._registry = settings.name
        self._configured: set[str] = set()
        """Devices that have our intervals: they cannot change before this process ends."""

    async def start_fleet(self) -> None:
        """Start the fleet where it is not running, and give it our settings in either case."""
        await self._client.start_workflow(
            FleetWorkflow.run,
            self._fleet_input(),
            id=conventions.fleet_workflow_id(self._registry),
            task_queue=conventions.BROKER_QUEUE,
            task_timeout=conventions.WORKFLOW_TASK_TIMEOUT,
            static_summary=f"what runs where, for the registry {self._registry}",
            start_signal="configure",
            start_signal_args=[self._settings.fleet],
        )

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
        await _in_windows(self._start_device, workers)

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
            if isinstance(error.cause, ApplicationError):
                raise error.cause from error  # the code and whether to try again stand in it
            raise

    async def set_targets(self, targets: tuple[RolloutTarget, ...]) -> None:
        await _in_windows(self._set_target, targets)

    async def fleet(self) -> FleetView:
        handle = self._client.get_workflow_handle(conventions.fleet_workflow_id(self._registry))
        return await handle.query(FleetWorkflow.fleet)

    async def version(self) -> int:
        """Return the ledger's version: a smaller question than `fleet`, asked every second."""
        handle = self._client.get_workflow_handle(conventions.fleet_workflow_id(self._registry))
        version: int = await handle.query("version", result_type=int)
        return version

    async def device(self, worker_id: str) -> DeviceView:
        handle = self._client.get_workflow_handle(conventions.device_workflow_id(worker_id))
        return await handle.query(DeviceWorkflow.device)

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
            static_summary=f"registry commit {sha[:10]}",
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


async def _in_windows(call: Callable[[Item], Awaitable[None]], items: Sequence[Item]) -> None:
    """Call for each item, a window of them at a time (DESIGN §3)."""
    for first in range(0, len(items), conventions.FAN_OUT_WINDOW):
        await asyncio.gather(*(call(item) for item in items[first : first + conventions.FAN_OUT_WINDOW]))
