"""The doors of the fleet: planning one commit, and watching the branch for the next one."""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog
from temporalio import activity

from longshore.activities.boundary import beating, fitting, our_failures_as_temporals
from longshore.planning.plan import make_plan
from longshore.schemas.failures import LongshoreError
from longshore.schemas.fleet import PlanAnswer, PlanningInput, PlanOutcome, WatchRequest
from longshore.schemas.registries import RegistrySnapshot

log = structlog.get_logger()


class Desired(Protocol):
    """What git says should run, and in which order it came to say so."""

    async def snapshot(self, sha: str) -> RegistrySnapshot: ...

    async def is_ancestor(self, older: str, newer: str) -> bool:
        """Return whether `newer` descends from `older`; a commit is its own ancestor."""


class Branch(Protocol):
    async def look(self) -> str:
        """Return the newest commit of the watched branch that is not merely the broker's own bookkeeping."""


class Commits(Protocol):
    async def start_commit(self, sha: str) -> None:
        """Start the commit's workflow; one that runs or has succeeded is left alone."""


class FleetActivities:
    def __init__(self, desired: Desired, branch: Branch, commits: Commits) -> None:
        self._desired = desired
        self._branch = branch
        self._commits = commits

    @activity.defn
    async def plan_commit(self, asked: PlanningInput) -> PlanAnswer:
        """Place the commit in the history of what was applied, and plan it where it is the newest."""
        async with beating("planning"):
            with our_failures_as_temporals():
                outcome = await self._outcome(asked.request.sha, asked.applied_sha)
                plan = None
                if outcome is PlanOutcome.PLANNED:
                    plan = make_plan(asked, await self._desired.snapshot(asked.request.sha))
                    for change in (change for deployment in plan.deployments for change in deployment.changes):
                        log.info(
                            "state_drift_detected",
                            drift_type=change.type,
                            deployment_id=change.deployment_id,
                            details=change.reason,
                        )
                return fitting(
                    PlanAnswer(
                        request_id=asked.request.request_id,
                        sha=asked.request.sha,
                        outcome=outcome,
                        applied_sha=asked.request.sha if plan else asked.applied_sha,
                        plan=plan,
                    )
                )

    @activity.defn
    async def watch_registry(self, request: WatchRequest) -> str:
        """Poll the branch until its head differs from `seen_sha`; start that commit's workflow and return its id.

        A host that cannot be reached is asked again at the next interval: the watch itself does not fail over it.
        """
        async with beating(request.seen_sha):
            while True:
                try:
                    head = await self._branch.look()
                    if head != request.seen_sha:
                        await self._commits.start_commit(head)
                        return head
                except LongshoreError as error:
                    log.warning("registry_unreadable", code=error.code, error=error.failure.message)
                await asyncio.sleep(request.poll_interval.total_seconds())

    async def _outcome(self, sha: str, applied: str | None) -> PlanOutcome:
        if applied is None or sha == applied:
            return PlanOutcome.PLANNED
        if await self._desired.is_ancestor(sha, applied):
            return PlanOutcome.OUTDATED
        if await self._desired.is_ancestor(applied, sha):
            return PlanOutcome.PLANNED
        return PlanOutcome.HISTORY_REWRITTEN
