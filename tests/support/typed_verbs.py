"""Verbs typed as an operator types them, against a real Temporal server with one fleet that answers."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from longshore.workflows.conventions import BROKER_QUEUE, fleet_workflow_id


@asynccontextmanager
async def server_with_fleet(*start: Any) -> AsyncIterator[Client]:
    """Yield a client of a server of its own, on which the fleet of `ops` is started with `start`; no broker yet."""
    environment = await WorkflowEnvironment.start_local(
        data_converter=pydantic_data_converter,
        dev_server_existing_path=shutil.which("temporal"),
        dev_server_log_level="error",
    )
    try:
        await environment.client.start_workflow(
            "FleetWorkflow", args=start, id=fleet_workflow_id("ops"), task_queue=BROKER_QUEUE
        )
        yield environment.client
    finally:
        await environment.shutdown()


def broker(client: Client, fleet: type) -> Worker:
    """Return what serves the fleet, as the workflow class `fleet`, while it runs."""
    return Worker(client, task_queue=BROKER_QUEUE, workflows=[fleet], workflow_runner=UnsandboxedWorkflowRunner())


async def typed(client: Client, *arguments: str) -> tuple[int | None, str, str]:
    """Run the command line; return its exit code, stdout and stderr."""
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "longshore", *arguments, "--temporal", client.service_client.config.target_host,
        "--registry-name", "ops", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await run.communicate()
    return run.returncode, out.decode(), err.decode()
