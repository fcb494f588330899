"""Asks the workflows what `longshore status` tells."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TypeVar

from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowQueryFailedError,
)
from temporalio.service import RPCError, RPCStatusCode

from longshore.activities.device_facts import AT_ONCE, with_heartbeat
from longshore.cli.status.facts import CommitStatus, Status, status_of
from longshore.schemas.commits import CommitResult
from longshore.schemas.devices import DeviceView
from longshore.schemas.failures import LongshoreError
from longshore.schemas.fleet import FleetView
from longshore.workflows.conventions import commit_workflow_id, device_workflow_id, fleet_workflow_id

# A query is answered by a broker within milliseconds; longer than this, and there is none.
ANSWER_TIMEOUT = timedelta(seconds=10)

# An operator wants the commit just pushed, and what was before it.
COMMITS_SHOWN = 3
ISSUES_SHOWN = 10

Answer = TypeVar("Answer")


async def gather(client: Client, registry: str | None) -> Status:
    """Return the state of one registry's fleet. Raises REGISTRY_UNKNOWN, BROKER_UNREACHABLE."""
    registry = registry or await only_registry(client)
    fleet, devices = await observe(client, registry)
    return status_of(fleet, devices, await _commits(client, registry))


async def observe(client: Client, registry: str) -> tuple[FleetView, dict[str, DeviceView]]:
    """Return the ledger, and what is known of each of its devices, by id. Raises as `gather`."""
    fleet = await fleet_view(client, registry)
    workers = sorted({*fleet.devices, *(fleet.plan.workers if fleet.plan else ())})
    turn = asyncio.Semaphore(AT_ONCE)
    views = await asyncio.gather(*(_device(client, worker_id, turn) for worker_id in workers))
    return fleet, {view.worker_id: view for view in views if view is not None}


async def fleet_view(client: Client, registry: str) -> FleetView:
    """Return the ledger. Raises as `gather`."""
    handle = client.get_workflow_handle(fleet_workflow_id(registry))
    fleet: FleetView | None = await _answered(
        lambda: handle.query("fleet", result_type=FleetView, rpc_timeout=ANSWER_TIMEOUT)
    )
    if fleet is None:
        raise LongshoreError("REGISTRY_UNKNOWN", f"Nobody serves a registry named {registry!r} on this server")
    return fleet


async def only_registry(client: Client) -> str:
    """Return the name of the one registry that is served. Raises REGISTRY_UNKNOWN."""
    prefix = fleet_workflow_id("")
    query = "WorkflowType = 'FleetWorkflow' AND ExecutionStatus = 'Running'"
    names = sorted({found.id.removeprefix(prefix) async for found in client.list_workflows(query)})
    if len(names) == 1:
        return names[0]
    if not names:
        raise LongshoreError("REGISTRY_UNKNOWN", "No registry is served on this Temporal server")
    raise LongshoreError("REGISTRY_UNKNOWN", f"Several registries are served: {', '.join(names)}")


async def _device(client: Client, worker_id: str, turn: asyncio.Semaphore) -> DeviceView | None:
    """Return what is known of a device; None where its workflow does not exist (yet)."""
    handle = client.get_workflow_handle(device_workflow_id(worker_id))
    async with turn:
        view = await _answered(lambda: handle.query("device", result_type=DeviceView, rpc_timeout=ANSWER_TIMEOUT))
        return view and await with_heartbeat(client, handle, view)


async def _commits(client: Client, registry: str) -> list[CommitStatus]:
    prefix = commit_workflow_id(registry, "")
    query = f"WorkflowType = 'RegistryCommitWorkflow' AND WorkflowId STARTS_WITH '{prefix}'"
    found = [execution async for execution in client.list_workflows(query, limit=COMMITS_SHOWN)]
    found.sort(key=lambda execution: execution.start_time, reverse=True)
    return [await _commit(client, execution, execution.id.removeprefix(prefix)) for execution in found]


async def _commit(client: Client, execution: WorkflowExecution, sha: str) -> CommitStatus:
    started: datetime = execution.start_time
    if execution.status is WorkflowExecutionStatus.RUNNING:
        return CommitStatus(sha=sha, started=started, outcome=None, summary="under way")
    handle = client.get_workflow_handle(execution.id, run_id=execution.run_id, result_type=CommitResult)
    try:
        result = await handle.result(follow_runs=False)
    except WorkflowFailureError as error:
        return CommitStatus(sha=sha, started=started, outcome=None, summary=f"its workflow failed: {error.cause}")
    return CommitStatus(
        sha=sha,
        started=started,
        outcome=result.outcome,
        summary=result.summary,
        issues=result.issues[:ISSUES_SHOWN],
        issues_left_out=max(0, len(result.issues) - ISSUES_SHOWN),
    )


async def _answered(question: Callable[[], Awaitable[Answer]]) -> Answer | None:
    """Return a workflow's answer, or None where there is no such workflow. Raises BROKER_UNREACHABLE."""
    try:
        return await question()
    except WorkflowQueryFailedError as error:
        raise LongshoreError("INTERNAL_ERROR", f"A query was refused: {error}") from error
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        if error.status in {RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED, RPCStatusCode.UNAVAILABLE}:
            raise LongshoreError(
                "BROKER_UNREACHABLE", f"No broker answered within {ANSWER_TIMEOUT.seconds} s"
            ) from error
        raise
