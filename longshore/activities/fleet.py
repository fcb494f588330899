"""The doors of the fleet: planning one commit, and watching the branch for the next one."""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog
from temporalio import activity

from longshore.activities.boundary import beating, fitting, our_failures_as_temporals
from longshore.activities.planner import Desired, Planner
from longshore.planning.guard import held_back
from longshore.schemas.failures import LongshoreError
from longshore.schemas.fleet import PlanAnswer, PlanningInput, PlanOutcome, RequestKind, WatchRequest
from longshore.schemas.held import HeldBack
from longshore.schemas.wording import short

log = structlog.get_logger()


class Branch(Protocol):
    async def look(self) -> str:
        """Return the newest commit of the watched branch that is not merely the broker's own bookkeeping."""


class Commits(Protocol):
    async def start_commit(self, sha: str) -> None:
        """Start the commit's workflow; one that runs or has succeeded is left alone."""

    async def start_commit_again(self, sha: str, after_run: str) -> None:
        """Start the commit's workflow once its run `after_run` has ended; one that runs by then is left alone."""


class FleetActivities:
    def __init__(self, desired: Desired, branch: Branch, commits: Commits, planner: Planner) -> None:
        self._desired = desired
        self._planner = planner
        self._branch = branch
        self._commits = commits

    @activity.defn
    async def plan_commit(self, asked: PlanningInput) -> PlanAnswer:
        """Place the commit in the history of what was applied, and plan it where it is the newest.

        The applied commit is planned anew, to reconcile, without being asked where it stands.
        """
        async with beating("planning"):
            with our_failures_as_temporals():
                reconcile = asked.request.kind is RequestKind.RECONCILE
                answer = await (self._reconcile(asked) if reconcile else self._answer(asked))
                _tell(answer)
                return fitting(answer)

    @activity.defn
    async def start_commit_again(self, held: HeldBack) -> None:
        """Carry out a commit that was held back: somebody has accepted it, or what it descends from."""
        async with beating(held.sha):
            with our_failures_as_temporals():
                await self._commits.start_commit_again(held.sha, held.run_id)
        by = held.accepted.by if held.accepted else None
        log.info("commit_started_again", commit_sha=held.sha, code=held.code, accepted_by=by)

    @activity.defn
    async def watch_registry(self, request: WatchRequest) -> str:
        """Poll the branch until its head differs from `seen_sha`; start that commit's workflow and return its id.

        A host that cannot be reached, or has no such branch any more, is asked again at the next interval: the watch
        itself does not fail over it, and what runs is left alone (FAULTS 18). It is told once, and when it is over.
        """
        trouble: str | None = None
        async with beating(request.seen_sha) as say:
            while True:
                try:
                    head = await self._branch.look()
                    if head != request.seen_sha:
                        await self._commits.start_commit(head)
                        return head
                    if trouble is not None:
                        log.info("registry_readable", head=head)
                        say(head)
                    trouble = None
                except LongshoreError as error:
                    if error.code != trouble:
                        log.warning("registry_unreadable", code=error.code, error=error.failure.message)
                        say(request.seen_sha, str(error))
                    trouble = error.code
                await asyncio.sleep(request.poll_interval.total_seconds())

    async def _reconcile(self, asked: PlanningInput) -> PlanAnswer:
        plan, left_undone = await self._planner.reconcile(asked)
        return PlanAnswer(
            request_id=asked.request.request_id,
            sha=asked.request.sha,
            outcome=PlanOutcome.PLANNED,
            applied_sha=asked.applied_sha,
            plan=plan,
            reason=left_undone,
        )

    async def _answer(self, asked: PlanningInput) -> PlanAnswer:
        sha, applied = asked.request.sha, asked.applied_sha
        outcome = await self._planner.outcome(sha, applied)
        accepted = [one for one in asked.held if one.accepted is not None and one.sha == sha]
        if outcome is PlanOutcome.OUTDATED:
            return _unplanned(asked, outcome, f"is older than {short(applied)}, which is applied")
        if outcome is PlanOutcome.HISTORY_REWRITTEN:
            line = await self._planner.accepted_line(asked)
            if line is None:
                return _unplanned(asked, outcome, f"does not descend from {short(applied)}, which runs")
            if line not in accepted:
                accepted.append(line)
        plan = await self._planner.plan(asked)
        if too_much := held_back(asked, plan):
            return _unplanned(asked, PlanOutcome.MASS_UNLOAD_BLOCKED, too_much)
        waiting = dict.fromkeys(one.sha for one in asked.held if one.sha != sha)
        return PlanAnswer(
            request_id=asked.request.request_id,
            sha=sha,
            outcome=PlanOutcome.PLANNED,
            applied_sha=sha,
            plan=plan,
            accepted=tuple(one.accepted for one in accepted if one.accepted is not None),
            held_descendants=tuple([one for one in waiting if await self._desired.is_ancestor(sha, one)]),
        )


def _unplanned(asked: PlanningInput, outcome: PlanOutcome, reason: str) -> PlanAnswer:
    return PlanAnswer(
        request_id=asked.request.request_id,
        sha=asked.request.sha,
        outcome=outcome,
        applied_sha=asked.applied_sha,
        reason=reason,
    )


def _tell(answer: PlanAnswer) -> None:
    if answer.plan is None:
        if answer.outcome is not PlanOutcome.OUTDATED:
            log.warning("commit_held_back", commit_sha=answer.sha, code=answer.outcome.code, reason=answer.reason)
        return
    for change in (change for deployment in answer.plan.deployments for change in deployment.changes):
        log.info(
            "state_drift_detected",
            drift_type=change.type,
            deployment_id=change.deployment_id,
            details=change.reason,
        )
