"""The Temporal side of the device: a worker on `device:<worker_id>` that connects when it can (DESIGN §3).

The device serves without Temporal for as long as it has to. This is the only part that knows of a connection.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import structlog
from temporalio import activity
from temporalio.client import AsyncActivityCancelledError, Client
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import PollerBehaviorSimpleMaximum, Worker

from longshore.activities.connection import build_id, connect
from longshore.activities.devices import DeviceActivities, Host
from longshore.schemas.commands import CommandProgress
from longshore.schemas.failures import LongshoreError
from longshore.worker_host.presence import Handle, Presence
from longshore.worker_host.settings import WorkerHostSettings
from longshore.workflows.conventions import device_queue

log = structlog.get_logger()

# Tasks accepted at once: they wait in our own queue, whose order is ours (DESIGN §3 "Device workers").
_SLOTS = 200

# One call to the server; beats and confirmations are repeated by whoever needs them.
_CALL_TIMEOUT = timedelta(seconds=5)

# Pause between two tries to confirm a lease while the server does not answer.
_CONFIRM_PAUSE_SECONDS = 0.5

# DESIGN §3 "Device workers", for a command that says nothing of it.
_HEARTBEAT_TIMEOUT = timedelta(seconds=30)

# First pause before another try to connect; doubled up to the setting `reconnect_cap`, and jittered, so that a
# thousand devices do not come back in the same instant (FAULTS 83).
_RECONNECT_SECONDS = 0.5

# A server that does not answer must not keep a device from stopping; it finds out by the age of the last evidence.
_GOODBYE_SECONDS = 3.0
_SHUTDOWN_SECONDS = 10.0

# Answers that are a verdict on the lease; anything else is a server that cannot be asked just now.
_LOST = {RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.FAILED_PRECONDITION}


class TaskLease:
    """The lease of one activity task: it holds as long as the server takes heartbeats for its token."""

    def __init__(self, client: Client, task_token: bytes, *, heartbeat_timeout: timedelta) -> None:
        self._handle = client.get_async_activity_handle(task_token=task_token)
        self._patience = heartbeat_timeout.total_seconds()
        self._progress = CommandProgress(step="queued", progress=0.0)

    def beat(self, progress: CommandProgress) -> None:
        self._progress = progress
        activity.heartbeat(progress)

    async def confirm(self) -> None:
        """Ask until the server answers, and raise FENCED where it says no.

        A server that cannot be reached is no answer: it may come back before it has given up this attempt. After the
        heartbeat time-out it has given it up, or will as soon as it is back; whoever waits here holds up other models.
        """
        deadline = time.monotonic() + self._patience
        while True:
            try:
                await self._handle.heartbeat(self._progress, rpc_timeout=_CALL_TIMEOUT)
            except AsyncActivityCancelledError as error:
                raise LongshoreError("FENCED", "the command was cancelled, paused or reset") from error
            except RPCError as error:
                if error.status in _LOST:
                    raise LongshoreError("FENCED", f"this attempt has lost its lease: {error}") from error
                if time.monotonic() > deadline:
                    raise LongshoreError("FENCED", f"no server has confirmed this attempt: {error}") from error
                log.warning("lease_unconfirmed", error=str(error))
                await asyncio.sleep(_CONFIRM_PAUSE_SECONDS)
            else:
                return


class Agent:
    def __init__(self, settings: WorkerHostSettings, worker_id: str, host: Host, presence: Presence) -> None:
        self._settings = settings
        self._worker_id = worker_id
        self._host = host
        self._presence = presence
        self._client: Client | None = None
        self._worker: Worker | None = None
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Work for Temporal until `stop`; connect again, for ever, where that fails."""
        pause = _RECONNECT_SECONDS
        cap = self._settings.reconnect_cap.total_seconds()
        while not self._stopped.is_set():
            try:
                self._client = await connect(self._settings)
                log.info("temporal_connected", namespace=self._client.namespace)
                pause = _RECONNECT_SECONDS
                await self._serve(self._client)
            except (LongshoreError, RuntimeError, RPCError) as error:  # a server that is not (yet) there, or has gone
                log.warning("temporal_unreachable", error=str(error), retry_in_seconds=pause)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 (jitter, no secret)
                pause = min(pause * 2, cap)

    async def stop(self, finish_commands: Callable[[], Any]) -> None:
        """Take no more tasks, say goodbye, and wait until `finish_commands` has answered what is under way."""
        self._stopped.set()
        client, worker = self._client, self._worker
        if client is None or worker is None:
            await finish_commands()
            return
        # The poll ends first, so that what the goodbye sets off waits for the next daemon instead of this one.
        ending = asyncio.create_task(worker.shutdown(), name="temporal-worker-shutdown")
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self._presence.say_goodbye(lambda token: _handle(client, token))
        except (TimeoutError, LongshoreError) as error:
            log.warning("goodbye_unheard", error=repr(error))
        await finish_commands()
        await asyncio.wait({ending}, timeout=_SHUTDOWN_SECONDS)

    async def _serve(self, client: Client) -> None:
        doors = DeviceActivities(self._host, lambda: _lease(client))
        interval = self._settings.command_interval
        worker = Worker(
            client,
            task_queue=device_queue(self._worker_id),
            build_id=build_id(),
            activities=[doors.load_model, doors.reload_model, doors.unload_model, doors.report_presence],
            max_concurrent_activities=_SLOTS,
            activity_task_poller_behavior=PollerBehaviorSimpleMaximum(maximum=1),
            max_heartbeat_throttle_interval=interval,
            default_heartbeat_throttle_interval=interval,
            # Longer than any command needs once it has been told to stop: those past their flip drain first.
            graceful_shutdown_timeout=self._settings.drain_timeout + 2 * self._settings.ack_timeout,
        )
        presence = asyncio.create_task(self._presence.run(lambda token: _handle(client, token)), name="presence")
        self._worker = worker
        serving = asyncio.create_task(worker.run(), name="temporal-worker")
        try:
            await asyncio.wait({serving, presence}, return_when=asyncio.FIRST_COMPLETED)
            if presence.done():
                presence.result()  # a defect: presence ends with its connection only
            await serving
        finally:
            self._worker = None
            for task in (presence, serving):
                task.cancel()
            await asyncio.gather(presence, serving, return_exceptions=True)


def _lease(client: Client) -> TaskLease:
    task = activity.info()
    return TaskLease(client, task.task_token, heartbeat_timeout=task.heartbeat_timeout or _HEARTBEAT_TIMEOUT)


def _handle(client: Client, token: bytes) -> Handle:
    return client.get_async_activity_handle(task_token=token)
