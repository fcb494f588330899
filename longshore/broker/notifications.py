"""Notifications by apprise: mail, chat, pagers, about a hundred services behind one kind of URL.

apprise is an optional part and takes its time to import: both happen when there is something to say.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import structlog
from pydantic import SecretStr

from longshore.broker.commit_status import WebUI
from longshore.schemas.failures import LongshoreError
from longshore.schemas.issues import Audience
from longshore.schemas.telling import Delivery, NotifyRequest

log = structlog.get_logger()

# For the whole of one call; shorter than the activity's heartbeat time-out, within which the mark is the only beat.
SEND_SECONDS = 20.0

# Longer than apprise takes to find out that nobody answers a connection (4 s): see `_send`.
READ_SECONDS = 10.0


class Notifications:
    def __init__(self, channels: Mapping[Audience, Sequence[SecretStr]], web_ui: WebUI) -> None:
        self._channels = channels
        self._web_ui = web_ui

    def check(self) -> None:
        """Log each channel that can tell nobody, so that it is known before there is something to say."""
        for audience, urls in self._channels.items():
            for channel in range(len(urls)):
                try:
                    self._service(audience, channel)
                except LongshoreError as error:
                    log.warning("notification_channel_unusable", code=error.code, error=error.failure.message)

    async def send(self, request: NotifyRequest) -> Delivery:
        """Send once. Raises LongshoreError CHANNEL_FAILED or CHANNEL_UNUSABLE where certainly nothing was told."""
        sender, service = self._service(request.audience, request.channel)
        body = request.notice.body
        if request.sha and (link := self._web_ui.commit(request.registry, request.sha)):
            body = f"{body}\n\n{link}"
        begun = time.monotonic()
        result = await sender.async_notify(
            body=body, title=request.notice.title, notify_type="failure", body_format="text", timeout=SEND_SECONDS
        )
        if result:
            return Delivery.TOLD
        # apprise says no more than "failed". One that was refused has failed at once; whoever took the time of an
        # answer that never came may have told, and so may one of several targets have.
        if time.monotonic() - begun >= service.socket_read_timeout or len(service) > 1:
            return Delivery.PERHAPS
        name = _name(request.audience, request.channel)
        raise LongshoreError("CHANNEL_FAILED", f"{name} ({service.service_name}) did not take the notification")

    def _service(self, audience: Audience, channel: int) -> tuple[Any, Any]:
        """Return an apprise with this one channel, and the channel."""
        apprise = _apprise()
        urls = self._channels.get(audience, ())
        if channel >= len(urls):
            raise LongshoreError("CHANNEL_UNUSABLE", f"{_name(audience, channel)} is no longer set")
        sender = apprise.Apprise()
        if not sender.add(urls[channel].get_secret_value()) or len(sender) != 1:
            raise LongshoreError("CHANNEL_UNUSABLE", f"{_name(audience, channel)} is no URL of apprise's")
        service = sender[0]
        service.socket_read_timeout = max(service.socket_read_timeout, READ_SECONDS)
        return sender, service


def _apprise() -> ModuleType:
    try:
        import apprise  # noqa: PLC0415 (optional, and 0.3 s)
    except ImportError as error:
        raise LongshoreError("CHANNEL_UNUSABLE", "apprise is not installed: it comes with longshore[notify]") from error
    return apprise


def _name(audience: Audience, channel: int) -> str:
    return f"notify_{audience}, URL {channel + 1}"
