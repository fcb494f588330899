"""What a device has said last, its heartbeats included: they reach no workflow until its presence ends (DESIGN §3)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, timedelta
from typing import Any

import structlog
from temporalio.client import Client, WorkflowHandle, WorkflowQueryFailedError
from temporalio.service import RPCError

from longshore.schemas.devices import DeviceFacts, DeviceReport, DeviceView
from longshore.schemas.evidence import judge

log = structlog.get_logger()

# Devices asked at once: a fleet of hundreds is asked in a second, without a burst.
AT_ONCE = 50

# A query is answered by a broker within milliseconds; longer than this, and there is none.
_ANSWER_TIMEOUT = timedelta(seconds=10)


async def facts_of(client: Client, workflow_ids: Mapping[str, str]) -> dict[str, DeviceFacts]:
    """Return what the newest reports know; `workflow_ids` holds the DeviceWorkflow's id by worker id.

    A device that cannot be asked is left out: a plan goes without its facts rather than not at all.
    """
    turn = asyncio.Semaphore(AT_ONCE)
    asked = (_facts(client, worker_id, workflow_id, turn) for worker_id, workflow_id in workflow_ids.items())
    found = zip(workflow_ids, await asyncio.gather(*asked), strict=True)
    return {worker_id: facts for worker_id, facts in found if facts is not None}


async def with_heartbeat(client: Client, handle: WorkflowHandle[Any, Any], view: DeviceView) -> DeviceView:
    """Add to a device's view what its held presence has said since. Raises RPCError."""
    described = (await handle.describe(rpc_timeout=_ANSWER_TIMEOUT)).raw_description
    for pending in described.pending_activities:
        if pending.activity_type.name != "report_presence" or not pending.HasField("last_heartbeat_time"):
            continue
        heard = pending.last_heartbeat_time.ToDatetime(UTC)
        if view.last_evidence is not None and heard <= view.last_evidence:
            continue
        try:
            details = await client.data_converter.decode(pending.heartbeat_details.payloads, [DeviceReport])
        except (ValueError, RuntimeError) as error:  # another release's, say: its next reply is judged
            log.warning("heartbeat_unreadable", worker_id=view.worker_id, error=str(error))
            continue
        report = judge(view.report, details[0], view.worker_id, heard).report if details else view.report
        if report is not None:
            view = view.model_copy(update={"last_evidence": heard, "report": report})
    return view


async def _facts(client: Client, worker_id: str, workflow_id: str, turn: asyncio.Semaphore) -> DeviceFacts | None:
    handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(workflow_id)
    async with turn:
        try:
            view = await handle.query("device", result_type=DeviceView, rpc_timeout=_ANSWER_TIMEOUT)
            view = await with_heartbeat(client, handle, view)
        except (RPCError, WorkflowQueryFailedError) as error:
            log.warning("device_facts_missing", worker_id=worker_id, error=str(error))
            return None
    return facts_in(view)


def facts_in(view: DeviceView) -> DeviceFacts:
    """Return what a device's newest report knows."""
    if view.report is None:
        return DeviceFacts()
    models = {model.deployment_id: model for model in view.report.models}
    return DeviceFacts(
        last_inference={name: m.last_inference for name, m in models.items() if m.last_inference is not None},
        load_seconds={name: m.load_seconds for name, m in models.items() if m.load_seconds is not None},
        fetch_seconds={name: m.fetch_seconds for name, m in models.items() if m.fetch_seconds is not None},
        cached=view.report.cached,
    )
