"""Commits and reconciliations that a defect of ours has ended: each such run is told to ops, once (FAULTS 60).

It has no workflow any more that could tell of itself. What lives for ever is started anew by the keeper, which says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import structlog
from temporalio.client import Client, WorkflowExecution, WorkflowFailureError
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from longshore.broker.settings import ControlSettings
from longshore.schemas.failures import FAILURES
from longshore.schemas.issues import Audience
from longshore.schemas.redaction import beginning
from longshore.schemas.telling import Alarm, defect
from longshore.workflows import conventions
from longshore.workflows.alarms import AlarmWorkflow

log = structlog.get_logger()

# Only brokers end runs, and they look every minute. What is older than that was told, or was before this release.
_LOOKED_BACK = timedelta(days=1)

# Characters of what a run has failed with.
_LONGEST_ERROR = 500


class Alarms:
    def __init__(self, client: Client, settings: ControlSettings) -> None:
        self._client = client
        self._registry = settings.name
        self._telling = settings.telling
        self._interval = settings.keep_interval
        self._told: set[str] = set()
        """Run ids; another broker, or one before this, may have told of them as well: the server knows."""

    async def run(self) -> None:
        while True:
            try:
                await self.look()
            except RPCError as error:
                log.warning("temporal_unreachable", error=str(error))
            await asyncio.sleep(self._interval.total_seconds())

    async def look(self) -> None:
        """Tell of every run that has failed since the last look."""
        async for failed in self._failed():
            if failed.run_id not in self._told:
                await self._tell(failed)
                self._told.add(failed.run_id)

    async def _failed(self) -> AsyncIterator[WorkflowExecution]:
        since = datetime.now(UTC) - _LOOKED_BACK
        prefixes = (
            conventions.commit_workflow_id(self._registry, ""),
            conventions.reconciliation_workflow_prefix(self._registry),
        )
        ids = " OR ".join(f"WorkflowId STARTS_WITH '{prefix}'" for prefix in prefixes)
        query = f"ExecutionStatus = 'Failed' AND CloseTime > '{since:%Y-%m-%dT%H:%M:%SZ}' AND ({ids})"
        async for failed in self._client.list_workflows(query):
            yield failed

    async def _tell(self, failed: WorkflowExecution) -> None:
        error = await self._error(failed)
        log.error(
            "workflow_failed",
            code="WORKFLOW_BUG",
            workflow_id=failed.id,
            error=error,
            remedy=FAILURES["WORKFLOW_BUG"].remedy,
        )
        if not self._telling.channels.get(Audience.OPS):
            return
        prefix = conventions.commit_workflow_id(self._registry, "")
        alarm = Alarm(
            registry=self._registry,
            notice=defect(self._registry, failed.id, failed.run_id, error),
            sha=failed.id.removeprefix(prefix) if failed.id.startswith(prefix) else "",
            telling=self._telling,
        )
        with suppress(WorkflowAlreadyStartedError):  # told before, perhaps by another broker
            await self._client.start_workflow(
                AlarmWorkflow.run,
                alarm,
                id=conventions.defect_alarm_workflow_id(self._registry, failed.run_id),
                task_queue=conventions.BROKER_QUEUE,
                task_timeout=conventions.WORKFLOW_TASK_TIMEOUT,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                static_summary=f"{failed.id} has failed",
            )

    async def _error(self, failed: WorkflowExecution) -> str:
        try:
            await self._client.get_workflow_handle(failed.id, run_id=failed.run_id).result(follow_runs=False)
        except WorkflowFailureError as error:
            return beginning(str(error.cause), _LONGEST_ERROR)
        return ""
