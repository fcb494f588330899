"""How a workflow tells people of its result: a step that can neither hold it up for long nor fail it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from longshore.activities.telling import TellingActivities
from longshore.schemas.commits import CommitResult, Telling
from longshore.schemas.failures import FAILURES, Failure
from longshore.schemas.issues import Audience
from longshore.schemas.telling import (
    Delivery,
    Notice,
    NotifyRequest,
    StatusRequest,
    audiences,
    begun,
    ended,
    notice,
)
from longshore.workflows import conventions

_LONGEST_REASON = 300


class Messenger:
    def __init__(self, registry: str, telling: Telling) -> None:
        self._registry = registry
        self._telling = telling
        self._begun: Awaitable[None] | None = None

    def tell_begun(self, sha: str) -> None:
        """Show that the commit is being worked on; the work does not wait for it."""
        if self._telling.status_host:
            self._begun = self._show(begun(self._registry, sha), conventions.BROKER_ACTIVITY_TIMEOUT)

    async def tell_ended(self, result: CommitResult) -> tuple[str, ...]:
        """Tell everyone whom the result concerns, all at once. Return what could not be told, and why."""
        untold: list[Awaitable[str | None]] = []
        if self._telling.status_host:
            untold.append(self._show_ended(result))
        for audience in audiences(result):
            channels = range(self._telling.channels.get(audience, 0))
            told = notice(self._registry, result, audience)
            untold += [self._notify(result.sha, told, audience, channel) for channel in channels]
        return tuple(filter(None, await asyncio.gather(*untold)))

    async def tell(self, sha: str, notices: Mapping[Audience, Notice | None]) -> tuple[str, ...]:
        """Send to each audience its notice, if there is one, by all its channels. Return what could not be told."""
        sent = [
            self._notify(sha, told, audience, channel)
            for audience, told in notices.items()
            if told is not None
            for channel in range(self._telling.channels.get(audience, 0))
        ]
        return tuple(filter(None, await asyncio.gather(*sent)))

    async def _show_ended(self, result: CommitResult) -> str | None:
        if self._begun is not None:
            with suppress(ActivityError):  # what keeps the last status from being shown is said, once
                await self._begun
        try:
            await self._show(ended(self._registry, result), conventions.STATUS_PATIENCE)
        except ActivityError as error:
            return f"the status on {self._telling.status_host}: {reason(error)}"
        return None

    def _show(self, request: StatusRequest, patience: timedelta) -> Awaitable[None]:
        return workflow.start_activity_method(
            TellingActivities.show_status,
            request,
            start_to_close_timeout=conventions.BROKER_ACTIVITY_TIMEOUT,
            schedule_to_close_timeout=patience,
            heartbeat_timeout=conventions.BROKER_HEARTBEAT_TIMEOUT,
            retry_policy=conventions.BROKER_RETRY,
            summary=f"{request.state} on {self._telling.status_host}: {request.description}"[:200],
        )

    async def _notify(self, sha: str, told: Notice, audience: Audience, channel: int) -> str | None:
        name = f"{audience} by channel {channel + 1}"
        try:
            delivered = await workflow.execute_activity_method(
                TellingActivities.notify,
                NotifyRequest(registry=self._registry, sha=sha, audience=audience, channel=channel, notice=told),
                start_to_close_timeout=conventions.BROKER_ACTIVITY_TIMEOUT,
                schedule_to_close_timeout=conventions.NOTIFY_PATIENCE,
                heartbeat_timeout=conventions.NOTIFY_HEARTBEAT_TIMEOUT,
                retry_policy=conventions.BROKER_RETRY,
                summary=f"tell {name}: {told.title}"[:200],
            )
        except ActivityError as error:
            return f"{name}: {reason(error)}"
        return f"{name}: perhaps" if delivered.delivery is Delivery.PERHAPS else None


def reason(error: ActivityError) -> str:
    """Return why the activity was given up: its last failure, or that there was none before its time was up."""
    failure = last_failure(error)
    said = f"{failure.code}: {failure.message}" if failure else f"no answer ({error.cause})"
    return said[:_LONGEST_REASON]


def last_failure(error: ActivityError) -> Failure | None:
    """Return the last failure of ours, also where the time for another try ran out after it."""
    cause: BaseException | None = error.cause
    while cause is not None:
        if isinstance(cause, ApplicationError) and cause.type in FAILURES and cause.details:
            return Failure.model_validate(cause.details[0])
        cause = cause.__cause__
    return None
