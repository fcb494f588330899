"""Presence (DESIGN §3): one activity that the device answers when it has something to say.

Its task token is kept in the journal and completed from here, at once or on the next material change. Until then it is
the way for the heartbeats. A daemon that starts finds the token of its predecessor and answers it: a restart is heard
within a second. A token that the server no longer knows is forgotten; there will be another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Protocol

import structlog
from pydantic import ConfigDict, TypeAdapter
from temporalio.client import AsyncActivityCancelledError
from temporalio.service import RPCError, RPCStatusCode

from longshore.schemas.base import Message
from longshore.schemas.devices import DeviceReport, PresenceRequest
from longshore.schemas.failures import LongshoreError
from longshore.worker_host.journal import Journal

log = structlog.get_logger()

_NOTE = "presence"

# Answers by which the server says that the token is of no use any more.
_GONE = {RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.FAILED_PRECONDITION}

# A call that is not answered by then is repeated later; the server's own limit is about as long.
_CALL_TIMEOUT = timedelta(seconds=10)


class Handle(Protocol):
    """`temporalio.client.AsyncActivityHandle`."""

    async def complete(self, result: DeviceReport, *, rpc_timeout: timedelta) -> None: ...
    async def heartbeat(self, *details: DeviceReport, rpc_timeout: timedelta) -> None: ...


class Held(Message):
    """One unanswered presence."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    token: bytes
    request: PresenceRequest


_HELD = TypeAdapter(list[Held])


class Presence:
    def __init__(
        self,
        journal: Journal,
        report: Callable[[], Awaitable[DeviceReport]],
        *,
        interval: timedelta,
        changed: asyncio.Event,
    ) -> None:
        """`interval`: time between two heartbeats through a held token; `changed`: there may be news."""
        self._journal = journal
        self._report = report
        self._interval = interval.total_seconds()
        self._held = _HELD.validate_json(journal.note(_NOTE) or "[]")
        self._changed = changed

    async def hold(self, request: PresenceRequest, task_token: bytes) -> None:
        """Keep a token. Where an older one is held, it is answered with the next report: nobody waits in vain."""
        self._keep([*self._held, Held(token=task_token, request=request)])
        self._changed.set()

    async def run(self, handle_of: Callable[[bytes], Handle]) -> None:
        """Answer and heartbeat, for as long as there is a connection to Temporal."""
        while True:
            self._changed.clear()
            try:
                if self._held:
                    await self._look(handle_of, await self._report())
            except LongshoreError as error:  # the journal is on a full disk, say: a device that serves stays heard
                log.warning("presence_not_noted", **error.failure.model_dump())
            # Not `wait_for`: until Python 3.12 it loses a cancellation that arrives together with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._changed.wait()

    async def say_goodbye(self, handle_of: Callable[[bytes], Handle]) -> None:
        """Answer all that is held, with the status that the report now has."""
        report = await self._report()
        for held in self._held:
            await self._complete(handle_of, held, report)

    async def _look(self, handle_of: Callable[[bytes], Handle], report: DeviceReport) -> None:
        *overtaken, latest = self._held
        for held in overtaken:
            await self._complete(handle_of, held, report)
        if latest.request.hold and latest.request.seen_digest == report.digest:
            await self._heartbeat(handle_of, latest, report)
        else:
            await self._complete(handle_of, latest, report)

    async def _complete(self, handle_of: Callable[[bytes], Handle], held: Held, report: DeviceReport) -> None:
        try:
            await handle_of(held.token).complete(report, rpc_timeout=_CALL_TIMEOUT)
        except RPCError as error:
            if not self._is_gone(error, held):
                return
        else:
            log.debug("heartbeat_sent", worker_id=report.worker_id, models_count=len(report.models), answered=True)
        self._forget(held)

    async def _heartbeat(self, handle_of: Callable[[bytes], Handle], held: Held, report: DeviceReport) -> None:
        try:
            await handle_of(held.token).heartbeat(report, rpc_timeout=_CALL_TIMEOUT)
        except AsyncActivityCancelledError:
            await self._complete(handle_of, held, report)
        except RPCError as error:
            if self._is_gone(error, held):
                self._forget(held)
        else:
            log.debug("heartbeat_sent", worker_id=report.worker_id, models_count=len(report.models), answered=False)

    @staticmethod
    def _is_gone(error: RPCError, held: Held) -> bool:
        """Log a failed call, and return whether its token is of no use any more."""
        gone = error.status in _GONE
        log.warning("heartbeat_failed", worker_id=held.request.worker_id, error=str(error), token_gone=gone)
        return gone

    def _forget(self, held: Held) -> None:
        self._keep([other for other in self._held if other is not held])

    def _keep(self, held: list[Held]) -> None:
        self._held = held
        self._journal.write_note(_NOTE, _HELD.dump_json(held).decode())
