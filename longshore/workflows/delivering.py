"""The rollouts of one plan, for whoever answers for it: they are started in windows, and each answers once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError

from longshore.activities.rollouts import RolloutActivities
from longshore.schemas.base import Message
from longshore.schemas.commands import CommandIntervals
from longshore.schemas.commits import CommitOutcome
from longshore.schemas.failures import Category
from longshore.schemas.plans import Plan
from longshore.schemas.rollouts import RolloutAnswer, RolloutOutcome, RolloutTarget, StartRollouts
from longshore.schemas.wording import counted
from longshore.workflows import conventions, stories
from longshore.workflows.telling import last_failure, reason

Answers = tuple[RolloutAnswer, ...]
Request = TypeVar("Request", bound=Message)


class Delivery:
    def __init__(
        self,
        registry: str,
        sha: str,
        intervals: CommandIntervals,
        *,
        cause: str = "",
        also_to: tuple[str, ...] = (),
    ) -> None:
        """Deliver what the commit `sha` wants. The workflow that runs here gets the answers, and hands them to `keep`.

        `cause` says why, in words, where it is not a new commit. `also_to` are workflows that get the answers as well.
        """
        self._also_to = also_to
        self.answers: dict[str, RolloutAnswer] = {}
        self._registry = registry
        self._sha = sha
        self._intervals = intervals
        self._cause = cause

    def keep(self, answer: RolloutAnswer) -> None:
        """Keep a deployment's answer, whenever it arrives; the first one counts."""
        self.answers.setdefault(answer.deployment_id, answer)

    async def start(self, plan: Plan) -> None:
        for targets in self._windows_of_targets(plan):
            await workflow.execute_activity_method(
                RolloutActivities.start_rollouts,
                StartRollouts(targets=targets),
                start_to_close_timeout=conventions.BROKER_ACTIVITY_TIMEOUT,
                schedule_to_close_timeout=conventions.BROKER_PATIENCE,
                heartbeat_timeout=conventions.BROKER_HEARTBEAT_TIMEOUT,
                retry_policy=conventions.BROKER_RETRY,
                summary=stories.plan_words(plan)[:200],
            )

    async def ended(self, plan: Plan, tell: Callable[[str, Answers], Awaitable[None]]) -> Answers:
        """Return every deployment's answer. A device may be away for days: what is known is told meanwhile.

        A rollout that somebody has terminated answers nobody. So who has not answered for long is asked again: a
        rollout that runs knows its target, a new one finds on the devices what has become of it (FAULTS 70), unless the
        ledger has other plans by then.
        """
        wanted = [deployment.deployment_id for deployment in plan.deployments]
        told, patience = 0, conventions.FIRST_REMINDER
        while True:
            with suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: len(self._known(wanted)) == len(wanted), timeout=conventions.LONGEST_UNRECORDED
                )
                return self._known(wanted)
            known = self._known(wanted)
            if len(known) > told:
                told = len(known)
                await tell(f"under way: {told} of {counted(len(wanted), 'deployment')} have answered", known)
            while not await self._more_known(wanted, known, patience):
                missing = tuple(d for d in plan.deployments if d.deployment_id not in self.answers)
                await self.start(plan.model_copy(update={"deployments": missing}))
                patience = min(2 * patience, conventions.LONGEST_REMINDER)

    async def _more_known(self, wanted: Sequence[str], than: Answers, patience: timedelta) -> bool:
        more = partial(self._knows_more, wanted, than)
        # A workflow that began to wait without it goes on waiting.
        within = patience if workflow.patched(conventions.BRAIN) else None
        with suppress(TimeoutError):
            await workflow.wait_condition(more, timeout=within)
        return more()

    def _knows_more(self, wanted: Sequence[str], than: Answers) -> bool:
        return len(self._known(wanted)) > len(than)

    def _known(self, wanted: Sequence[str]) -> Answers:
        return tuple(self.answers[deployment_id] for deployment_id in wanted if deployment_id in self.answers)

    def _windows_of_targets(self, plan: Plan) -> Iterator[tuple[RolloutTarget, ...]]:
        targets = tuple(
            RolloutTarget(
                registry=self._registry,
                sha=self._sha,
                plan=deployment,
                reply_to=workflow.info().workflow_id,
                intervals=self._intervals,
                cause=self._cause,
                reply_also=self._also_to,
            )
            for deployment in plan.deployments
        )
        for first in range(0, len(targets), conventions.FAN_OUT_WINDOW):
            yield targets[first : first + conventions.FAN_OUT_WINDOW]


def outcome_of(answers: Answers) -> CommitOutcome:
    outcomes = [answer.outcome for answer in answers]
    if RolloutOutcome.FAILED in outcomes or RolloutOutcome.INCOMPLETE in outcomes:
        return CommitOutcome.PARTLY_APPLIED
    if RolloutOutcome.SUPERSEDED in outcomes:
        return CommitOutcome.SUPERSEDED
    return CommitOutcome.APPLIED


def without_results(answers: Answers) -> Answers:
    """Return the answers as they fit where the whole is too large: each rollout's own result still has the rest.

    An oversized argument would repeat the workflow task for ever.
    """
    return tuple(answer.model_copy(update={"results": ()}) for answer in answers)


async def recorded(door: Callable[[Any, Request], Awaitable[None]], request: Request, summary: str) -> str:
    """Have a result written to git by `door`. Return its summary, with why git does not have it, where it has not.

    The result stands without: whoever looks at the workflow learns why.
    """
    try:
        await workflow.execute_activity_method(
            door,
            request,
            start_to_close_timeout=conventions.VALIDATION_TIMEOUT,
            schedule_to_close_timeout=conventions.RECORD_PATIENCE,
            heartbeat_timeout=conventions.BROKER_HEARTBEAT_TIMEOUT,
            retry_policy=conventions.BROKER_RETRY,
            summary=summary[:200],
        )
    except ActivityError as error:
        return f"{summary}; not written to git: {_unwritten(error)}"
    return summary


def _unwritten(error: ActivityError) -> str:
    """Return why git does not have the result: a host that is away is one thing, one that refuses us another."""
    failure = last_failure(error)
    refused = failure is not None and failure.kind.category is not Category.NETWORK
    return reason(error) if refused else f"STATE_PUSH_DEFERRED: {reason(error)}"
