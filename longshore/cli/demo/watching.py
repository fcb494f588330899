"""What is going on, as Temporal tells it: the queries that `longshore status` asks, and the heartbeats of commands."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from pydantic import ValidationError
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError, RPCStatusCode

from longshore.schemas.commands import CommandProgress
from longshore.schemas.commits import CommitResult
from longshore.schemas.devices import DeviceView, Health, ModelReport
from longshore.schemas.fleet import FleetView
from longshore.schemas.plans import Plan
from longshore.schemas.reconciliations import Reconciliation, ReconciliationResult
from longshore.workflows import conventions

QUERY_TIMEOUT = timedelta(seconds=5)

_NOT_YET = {RPCStatusCode.NOT_FOUND, RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED}
_NOT_YET |= {RPCStatusCode.FAILED_PRECONDITION}  # the workflow is there, no broker has answered for it yet


@dataclass(frozen=True)
class Look:
    """What all devices were at one moment, by their own reports."""

    health: dict[str, Health]
    models: dict[tuple[str, str], ModelReport]
    """By device and deployment. Of a device that has failed, what it said last."""


class Watcher:
    def __init__(self, client: Client, registry: str, workers: Sequence[str]) -> None:
        self._client = client
        self._registry = registry
        self.workers = tuple(workers)

    @classmethod
    async def connect(cls, address: str, registry: str, workers: Sequence[str]) -> Watcher:
        """Raises RuntimeError while the server does not answer."""
        client = await Client.connect(address, data_converter=pydantic_data_converter)
        return cls(client, registry, workers)

    async def fleet(self) -> FleetView | None:
        """Return the ledger, or None before it can be asked."""
        try:
            handle = self._client.get_workflow_handle(conventions.fleet_workflow_id(self._registry))
            view: FleetView = await handle.query("fleet", result_type=FleetView, rpc_timeout=QUERY_TIMEOUT)
        except RPCError as error:
            _raise_unless_not_yet(error)
            return None
        return view

    async def device(self, worker_id: str) -> DeviceView | None:
        try:
            handle = self._client.get_workflow_handle(conventions.device_workflow_id(worker_id))
            view: DeviceView = await handle.query("device", result_type=DeviceView, rpc_timeout=QUERY_TIMEOUT)
        except RPCError as error:
            _raise_unless_not_yet(error)
            return None
        return view

    async def all_heard(self) -> bool:
        """Tell whether every device has reported."""
        views = await asyncio.gather(*map(self.device, self.workers))
        return all(view is not None and view.report is not None for view in views)

    async def look(self) -> Look:
        views = [view for view in await asyncio.gather(*map(self.device, self.workers)) if view is not None]
        reports = [view.report for view in views if view.report is not None]
        return Look(
            health={view.worker_id: view.health for view in views},
            models={(report.worker_id, model.deployment_id): model for report in reports for model in report.models},
        )

    async def models(self) -> dict[tuple[str, str], ModelReport]:
        """Return what every device says of its models, by device and deployment."""
        return (await self.look()).models

    async def plan(self, sha: str) -> Plan | None:
        """Return the plan of `sha` once the ledger has applied it."""
        fleet = await self.fleet()
        return fleet.plan if fleet is not None and fleet.plan is not None and fleet.plan.sha == sha else None

    async def result(self, sha: str) -> CommitResult:
        """Wait until the workflow of a commit has ended."""
        workflow_id = conventions.commit_workflow_id(self._registry, sha)
        handle = self._client.get_workflow_handle(workflow_id, result_type=CommitResult)
        result: CommitResult = await handle.result()
        return result

    async def reconciliation(self, generation: int) -> Reconciliation | None:
        """Return what the fleet does unasked by the plan of `generation`, or None where that is a commit's."""
        workflow_id = conventions.reconciliation_workflow_id(self._registry, generation)
        try:
            async for event in self._client.get_workflow_handle(workflow_id).fetch_history_events(page_size=1):
                started = event.workflow_execution_started_event_attributes
                decoded = await self._client.data_converter.decode(started.input.payloads, [Reconciliation])
                asked: Reconciliation = decoded[0]
                return asked
        except RPCError as error:
            _raise_unless_not_yet(error)
        return None

    async def mended(self, generation: int) -> ReconciliationResult:
        """Wait until a reconciliation has ended."""
        workflow_id = conventions.reconciliation_workflow_id(self._registry, generation)
        handle = self._client.get_workflow_handle(workflow_id, result_type=ReconciliationResult)
        result: ReconciliationResult = await handle.result()
        return result

    async def has_begun(self, sha: str) -> bool:
        """Tell whether a broker has started the workflow of a commit."""
        try:
            await self._client.get_workflow_handle(conventions.commit_workflow_id(self._registry, sha)).describe()
        except RPCError as error:
            _raise_unless_not_yet(error)
            return False
        return True

    async def progress(self, deployment_id: str) -> dict[str, CommandProgress]:
        """Return, by device, how far the commands of a rollout are: their last heartbeats."""
        try:
            rollout = await self._client.get_workflow_handle(conventions.rollout_workflow_id(deployment_id)).describe()
        except RPCError as error:
            _raise_unless_not_yet(error)
            return {}
        told = {}
        for activity in rollout.raw_description.pending_activities:
            queue = activity.activity_options.task_queue.name
            worker_id = next((w for w in self.workers if conventions.device_queue(w) == queue), None)
            if worker_id is not None and activity.heartbeat_details.payloads:
                try:
                    told[worker_id] = CommandProgress.model_validate_json(activity.heartbeat_details.payloads[0].data)
                except ValidationError:
                    continue  # some other heartbeat
        return told


def _raise_unless_not_yet(error: RPCError) -> None:
    if error.status not in _NOT_YET:
        raise error
