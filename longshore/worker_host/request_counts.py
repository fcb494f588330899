"""Envoy's counters → the totals in the journal (DESIGN §5 "Stats")."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Protocol

import httpx2
import structlog

from longshore.schemas.failures import LongshoreError
from longshore.worker_host.commands.parts import Runners
from longshore.worker_host.journal import Journal

log = structlog.get_logger()


class Counters(Protocol):
    """What Envoy has counted of one instance since it knows it (`stats.ClusterStats`)."""

    @property
    def requests(self) -> int: ...


class RequestCounts:
    def __init__(
        self,
        journal: Journal,
        runners: Runners,
        stats: Callable[[], Awaitable[Mapping[str, Counters]]],
        clock: Callable[[], datetime],
    ) -> None:
        """`stats` answers instance id → counters. It raises httpx2.HTTPError while Envoy is away."""
        self._journal = journal
        self._runners = runners
        self._stats = stats
        self._clock = clock

    async def update(self) -> None:
        """Add what is new to the totals. Where Envoy does not answer or the disk is full, the next time does it."""
        try:
            stats = await self._stats()
        except httpx2.HTTPError as error:
            log.warning("envoy_stats_unavailable", error=repr(error))
            return
        running = {instance.instance_id: instance.deployment_id for instance in self._runners.running()}
        readings = {name: (running[name], stats[name].requests) for name in stats.keys() & running.keys()}
        try:
            self._journal.count(readings, self._clock())
        except LongshoreError as error:
            log.warning("request_counts_unwritten", error=str(error))
