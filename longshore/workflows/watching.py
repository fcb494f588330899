"""The fleet's long activities: each watches something in a broker, and returns only when there is something to say.

A timer in a workflow would cost 14,400 events a day (DESIGN §3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from longshore.activities.fleet import FleetActivities
from longshore.activities.reconciliations import ReconciliationActivities
from longshore.activities.records import RecordActivities
from longshore.schemas.fleet import WatchRequest
from longshore.schemas.reconciliations import DriftWatch, RecordWatch
from longshore.schemas.wording import short
from longshore.workflows import conventions
from longshore.workflows.ledger.machine import Ledger
from longshore.workflows.outcomes import failure_of


class Watches:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._written = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def tasks(self) -> tuple[asyncio.Task[None], ...]:
        return tuple(self._tasks.values())

    def begin(self) -> None:
        """Watch the branch."""
        self._begin("branch", self._watch())

    def begin_the_rest(self) -> None:
        """Watch what there is to watch once the ledger is known to be right."""
        self._begin("drift", self._watch_drift())
        self._begin("records", self._keep_records())

    async def begin_anew(self) -> None:
        """Watch by the settings as they are now."""
        watches = {"branch": self._watch, "drift": self._watch_drift}
        for name in [name for name in watches if name in self._tasks]:
            self._tasks[name].cancel()
            with suppress(asyncio.CancelledError):
                await self._tasks[name]
            self._begin(name, watches[name]())

    def _begin(self, name: str, watch: Coroutine[Any, Any, None]) -> None:
        self._tasks[name] = asyncio.create_task(watch)

    async def _watch(self) -> None:
        async def watch() -> None:
            watched = await workflow.execute_activity_method(
                FleetActivities.watch_registry,
                WatchRequest(
                    registry=self._ledger.state.registry,
                    seen_sha=self._ledger.state.watched_sha,
                    poll_interval=self._ledger.state.settings.poll_interval,
                ),
                start_to_close_timeout=conventions.WATCH_TIMEOUT,
                heartbeat_timeout=conventions.BROKER_HEARTBEAT_TIMEOUT,
                retry_policy=conventions.BROKER_RETRY,
                summary=f"waiting for a commit after {short(self._ledger.state.watched_sha)}",
            )
            self._ledger.watched(watched)

        await self._repeat(watch, "registry_watch_ended")

    async def _watch_drift(self) -> None:
        async def watch() -> None:
            found = await workflow.execute_activity_method(
                ReconciliationActivities.watch_drift,
                DriftWatch(
                    registry=self._ledger.state.registry,
                    interval=self._ledger.state.settings.reconcile_interval,
                ),
                start_to_close_timeout=conventions.WATCH_TIMEOUT,
                heartbeat_timeout=conventions.BROKER_HEARTBEAT_TIMEOUT,
                retry_policy=conventions.BROKER_RETRY,
                summary=f"looking for drift every {self._ledger.state.settings.reconcile_interval}",
            )
            self._ledger.found(found, workflow.now())

        await self._repeat(watch, "drift_watch_ended")

    async def _keep_records(self) -> None:
        async def keep() -> None:
            self._written = await workflow.execute_activity_method(
                RecordActivities.keep_records,
                RecordWatch(registry=self._ledger.state.registry, seen_version=self._written),
                start_to_close_timeout=conventions.WATCH_TIMEOUT,
                heartbeat_timeout=conventions.BROKER_HEARTBEAT_TIMEOUT,
                retry_policy=conventions.BROKER_RETRY,
                summary="writing the state to git when it changes",
            )

        await self._repeat(keep, "records_ended")

    async def _repeat(self, once: Callable[[], Awaitable[None]], failed: str) -> None:
        """Do it again and again; when an activity of it is given up, after a while, with the event `failed`."""
        while True:
            try:
                await once()
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise asyncio.CancelledError from error
                context = {"registry": self._ledger.state.registry, "error": failure_of(error).message}
                workflow.logger.error(failed, extra={"context": context})
                await workflow.sleep(self._ledger.state.settings.poll_interval)
