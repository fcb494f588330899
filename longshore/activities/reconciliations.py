"""The doors through which the fleet finds out what is not as it should be, and has it mended."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from itertools import count
from typing import Protocol

import structlog
from temporalio import activity

from longshore.activities.boundary import beating, fitting, our_failures_as_temporals, server_time
from longshore.activities.planner import Planner, upon
from longshore.schemas.devices import DeviceRecord, Health
from longshore.schemas.failures import LongshoreError
from longshore.schemas.fleet import FleetView, PlanningInput, PlanRequest, RequestKind
from longshore.schemas.lifecycle import IN_FLIGHT
from longshore.schemas.plans import Cause, CauseKind
from longshore.schemas.reconciliations import (
    DriftFound,
    DriftWatch,
    Heard,
    HearDevices,
    LastApplied,
    LastAppliedRequest,
    Reconciliation,
)
from longshore.schemas.wording import listed, short

log = structlog.get_logger()

# The sentence stands in summaries: enough names to know what it is about.
_NAMED = 5


class Entities(Protocol):
    """The long-lived workflows, as whoever looks after them needs them."""

    async def fleet(self) -> FleetView: ...

    async def hear(self, workers: tuple[str, ...]) -> tuple[DeviceRecord, ...]:
        """Return what each DeviceWorkflow knows, starting those that are not running."""

    async def running_rollouts(self, deployments: tuple[str, ...]) -> dict[str, int | None]:
        """Return which of these deployments have a rollout that is running, and the newest generation that it knows.

        None: it does not tell.
        """

    async def start_reconciliation(self, asked: Reconciliation) -> None:
        """Start the reconciliation of one plan; one that has been started is left alone."""

    async def planned(self, sha: str) -> int | None:
        """Return the generation of this commit's plan, by its own workflow; None where none knows of one."""


class History(Protocol):
    async def last_applied(self, commits: Entities) -> LastApplied:
        """Return which commit was applied last, by the recorded state and by the workflows that are still known."""


class ReconciliationActivities:
    def __init__(self, planner: Planner, history: History, entities: Entities) -> None:
        self._planner = planner
        self._history = history
        self._entities = entities

    @activity.defn
    async def start_reconciliation(self, asked: Reconciliation) -> None:
        async with beating("starting"):
            with our_failures_as_temporals():
                await self._entities.start_reconciliation(asked)
        log.info("reconciliation_started", cause=asked.cause.words, generation=asked.plan.generation)

    @activity.defn
    async def hear_devices(self, request: HearDevices) -> Heard:
        async with beating("asking the devices"):
            with our_failures_as_temporals():
                return fitting(Heard(records=await self._entities.hear(request.workers)))

    @activity.defn
    async def last_applied(self, request: LastAppliedRequest) -> LastApplied:
        async with beating("looking for the applied commit"):
            with our_failures_as_temporals():
                found = await self._history.last_applied(self._entities)
        if found.sha is not None:
            log.warning("ledger_new", registry=request.registry, commit_sha=found.sha, generation=found.generation)
        return found

    @activity.defn
    async def watch_drift(self, watch: DriftWatch) -> DriftFound:
        """Look at the fleet every `interval`, and return when there is something to do (FAULTS 64)."""
        trouble: str | None = None
        now = server_time()
        idle: dict[str, int] = {}
        async with beating("nothing is to be done") as say:
            cycles = count(1)
            while True:
                await asyncio.sleep(watch.interval.total_seconds())
                log.debug("reconciliation_cycle_started", cycle_number=next(cycles))
                try:
                    view = await self._entities.fleet()
                    idle, before = await self._idle(view), idle
                    # Twice in a row: what has just been planned is started within this time.
                    orphaned = tuple(name for name, generation in idle.items() if before.get(name) == generation)
                    if found := await self._drift(view, orphaned, now()):
                        return found
                    trouble = None
                except LongshoreError as error:
                    if error.code != trouble:
                        log.warning("drift_unknown", code=error.code, error=error.failure.message)
                        say(str(error))
                    trouble = error.code

    async def _idle(self, view: FleetView) -> dict[str, int]:
        """Return the deployments with something under way that no rollout sees to, and the newest generation of it."""
        under_way = {
            slot.deployment_id: slot.generation
            for slot in sorted(view.slots, key=lambda slot: slot.generation)
            if slot.state in IN_FLIGHT and not slot.replaced and not _is_failed(view, slot.worker_id)
        }
        running = await self._entities.running_rollouts(tuple(sorted(under_way)))
        return {name: generation for name, generation in under_way.items() if _is_idle(name, generation, running)}

    async def _drift(self, view: FleetView, orphaned: tuple[str, ...], now: datetime) -> DriftFound | None:
        if view.applied_sha is None:
            return None
        if orphaned:
            words = f"no rollout sees to what is under way of {listed(orphaned, _NAMED)}"
            return DriftFound(cause=_cause(words, orphaned), orphaned=orphaned)
        plan, _ = await self._planner.reconcile(_asked(view, view.applied_sha, now))
        if not plan.moves:
            return None
        # What cannot be done, as before, is no drift.
        moved = tuple(d.deployment_id for d in plan.deployments if d.moves)
        deployments = moved or tuple(s.deployment_id for s in plan.adopted)
        return DriftFound(
            cause=_cause(f"not as {short(view.applied_sha)} wants it: {listed(deployments, _NAMED)}", deployments)
        )


def _asked(view: FleetView, sha: str, now: datetime) -> PlanningInput:
    request = PlanRequest(
        request_id="", registry=view.registry, sha=sha, kind=RequestKind.RECONCILE, cause=_cause("a look", ())
    )
    return upon(view, request, now)


def _is_idle(name: str, generation: int, running: Mapping[str, int | None]) -> bool:
    """Tell whether nobody brings a deployment to `generation`: no rollout, or one that never heard of it."""
    known = running.get(name)
    return name not in running or (known is not None and known < generation)


def _is_failed(view: FleetView, worker_id: str) -> bool:
    record = view.devices.get(worker_id)
    return record is not None and record.health is Health.FAILED


def _cause(words: str, deployments: tuple[str, ...]) -> Cause:
    return Cause(kind=CauseKind.DRIFT, words=words, deployments=deployments)
