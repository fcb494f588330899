"""The parts of a worker host, put together, and what they offer to Temporal (`activities.devices.Host`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from longshore.activities.devices import Lease
from longshore.schemas.commands import CommandResult
from longshore.schemas.devices import BreakerReport, PresenceRequest
from longshore.schemas.workers import WorkerConfig
from longshore.worker_host.commands.bringing_up import BringingUp, Stores
from longshore.worker_host.commands.command_queue import CommandQueue
from longshore.worker_host.commands.execution import AnyCommand, Commands
from longshore.worker_host.commands.loading import Loading
from longshore.worker_host.commands.models import Models
from longshore.worker_host.commands.parts import Routes, Runners
from longshore.worker_host.commands.recovery import Recovery
from longshore.worker_host.commands.unloading import Unloading
from longshore.worker_host.journal import Journal
from longshore.worker_host.presence import Presence
from longshore.worker_host.reports import Reporter
from longshore.worker_host.request_counts import Counters, RequestCounts
from longshore.worker_host.runners.instances import RunPaths
from longshore.worker_host.settings import WorkerHostSettings


@dataclass(frozen=True)
class Outside:
    """What a host acts on: real in the daemon, fake in the tests of commands."""

    paths: RunPaths
    stores: Stores
    runners: Runners
    traffic: Routes
    stats: Callable[[], Awaitable[Mapping[str, Counters]]]
    """Instance id → Envoy's counters."""
    pythons: Callable[[], tuple[str, ...]]
    breakers: Callable[[], tuple[BreakerReport, ...]]
    cached: Callable[[], Awaitable[tuple[str, ...]]]
    """What a report says of the artifacts on the disk."""


class WorkerHost:
    def __init__(self, settings: WorkerHostSettings, worker: WorkerConfig, journal: Journal, outside: Outside) -> None:
        self._changed = changed = asyncio.Event()
        runners, traffic = outside.runners, outside.traffic
        counts = RequestCounts(journal, runners, outside.stats, _now)
        bringing_up = BringingUp(worker, outside.stores, runners)
        queue = CommandQueue(settings.concurrency)
        self.models = Models(journal, changed.set)
        loading = Loading(
            worker=worker,
            models=self.models,
            bringing_up=bringing_up,
            runners=runners,
            traffic=traffic,
            paths=outside.paths,
            count_requests=counts.update,
            clock=_now,
        )
        self.recovery = Recovery(
            models=self.models,
            queue=queue,
            loading=loading,
            runners=runners,
            traffic=traffic,
            backoff=settings.restart_backoff,
            window=settings.restart_window,
        )
        self.commands = Commands(
            worker_id=worker.worker_id,
            models=self.models,
            queue=queue,
            loading=loading,
            unloading=Unloading(self.models, runners, traffic, count_requests=counts.update),
            recovery=self.recovery,
            backoff=settings.backoff,
            interval=settings.command_interval,
            clock=_now,
        )
        self.reporter = Reporter(
            worker,
            journal,
            runners,
            bringing_up,
            count_requests=counts.update,
            progress=self.commands.progress,
            pythons=outside.pythons,
            breakers=outside.breakers,
            cached=outside.cached,
            data_address=settings.listen,
            clock=_now,
        )
        self.presence = Presence(journal, self.reporter.report, interval=settings.presence_interval, changed=changed)

    async def execute(self, command: AnyCommand, lease: Lease) -> CommandResult:
        return await self.commands.execute(command, lease)

    def drain(self) -> None:
        """Tell the broker, at once and from now on, that the models are to be moved elsewhere."""
        self.reporter.drain()
        self._changed.set()

    async def hold_presence(self, request: PresenceRequest, task_token: bytes) -> None:
        await self.presence.hold(request, task_token)


def _now() -> datetime:
    return datetime.now(UTC)
