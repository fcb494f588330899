"""The doors through which people learn of a commit's result: its status on the git host, and notifications."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

import structlog
from temporalio import activity

from longshore.activities.boundary import beating, our_failures_as_temporals
from longshore.schemas.failures import LongshoreError
from longshore.schemas.telling import Delivered, Delivery, NotifyRequest, StatusRequest

log = structlog.get_logger()

# The mark of an attempt that is about to send. As long as it stands, nobody sends again.
_SENDING = "sending"
_NOT_SENT = "not sent"

_CALL_TIMEOUT = timedelta(seconds=5)


class Statuses(Protocol):
    async def show(self, request: StatusRequest) -> None:
        """Show the status on the git host; the same one again changes nothing there."""


class Channels(Protocol):
    async def send(self, request: NotifyRequest) -> Delivery:
        """Send once. A LongshoreError says that certainly nothing was told."""


class Mark(Protocol):
    """An activity attempt at the server, by its task token."""

    async def heartbeat(self, *details: str, rpc_timeout: timedelta) -> None: ...


class TellingActivities:
    def __init__(self, statuses: Statuses, channels: Channels, mark_of: Callable[[bytes], Mark]) -> None:
        self._statuses = statuses
        self._channels = channels
        self._mark_of = mark_of

    @activity.defn
    async def show_status(self, request: StatusRequest) -> None:
        async with beating("showing the status"):
            with our_failures_as_temporals():
                await self._statuses.show(request)

    @activity.defn
    async def notify(self, request: NotifyRequest) -> Delivered:
        """Tell one channel, at most once however often this is tried, also when the broker is killed meanwhile.

        The mark is set before anything is sent, and the server has it before this goes on; only an attempt that
        certainly told nobody takes it back. No other heartbeat may be sent: its details would replace the mark.
        """
        info = activity.info()
        context = {"commit_sha": request.sha, "audience": request.audience, "channel": request.channel}
        if _SENDING in info.heartbeat_details:
            log.warning("notification_uncertain", **context)
            return Delivered(delivery=Delivery.PERHAPS)
        mark = self._mark_of(info.task_token)
        await mark.heartbeat(_SENDING, rpc_timeout=_CALL_TIMEOUT)
        with our_failures_as_temporals():
            try:
                delivery = await self._channels.send(request)
            except LongshoreError as error:
                log.warning("notification_failed", code=error.code, **context)
                await mark.heartbeat(_NOT_SENT, rpc_timeout=_CALL_TIMEOUT)
                raise
        log.info("notification_sent", delivery=delivery, **context)
        return Delivered(delivery=delivery)
