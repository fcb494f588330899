"""The door between a device's task queue and its worker host."""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from longshore.schemas.commands import CommandProgress, CommandResult, LoadCommand, ReloadCommand, UnloadCommand
from longshore.schemas.devices import DeviceReport, PresenceRequest
from longshore.schemas.failures import LongshoreError


class CommandFailed(LongshoreError):
    """A command failed, and the device has counted it: `retry_in` is None when no attempt is left."""

    def __init__(self, error: LongshoreError, retry_in: timedelta | None) -> None:
        failure = error.failure
        super().__init__(failure.code, failure.message, step=failure.step, details=failure.details)
        self.retry_in = retry_in


class Lease(Protocol):
    """One attempt's right to act (DESIGN §3 Generations)."""

    def beat(self, progress: CommandProgress) -> None:
        """Say how far the command is; cheap, may be throttled."""

    async def confirm(self) -> None:
        """Ask the server, synchronously, whether this attempt still holds. Raises LongshoreError FENCED if not."""


class Host(Protocol):
    """What a worker host offers to Temporal."""

    async def execute(self, command: LoadCommand | ReloadCommand | UnloadCommand, lease: Lease) -> CommandResult:
        """Carry out one command, in the host's own order. Raises CommandFailed; honours task cancellation."""

    async def hold_presence(self, request: PresenceRequest, task_token: bytes) -> None:
        """Keep the token, and complete it with a report when there is something to say."""


class DeviceActivities:
    """The four activities of the queue `device:<worker_id>`."""

    def __init__(self, host: Host, lease_of_current_task: LeaseFactory) -> None:
        self._host = host
        self._lease = lease_of_current_task

    @activity.defn
    async def load_model(self, command: LoadCommand) -> CommandResult:
        return await self._execute(command)

    @activity.defn
    async def reload_model(self, command: ReloadCommand) -> CommandResult:
        return await self._execute(command)

    @activity.defn
    async def unload_model(self, command: UnloadCommand) -> CommandResult:
        return await self._execute(command)

    @activity.defn
    async def report_presence(self, request: PresenceRequest) -> DeviceReport:
        await self._host.hold_presence(request, activity.info().task_token)
        activity.raise_complete_async()

    async def _execute(self, command: LoadCommand | ReloadCommand | UnloadCommand) -> CommandResult:
        try:
            return await self._host.execute(command, self._lease())
        except CommandFailed as failed:
            raise ApplicationError(
                str(failed),
                failed.failure.model_dump(mode="json"),
                type=failed.code,
                non_retryable=failed.retry_in is None,
                next_retry_delay=failed.retry_in,
                # The device has told it with an event of its own; a benign failure has no traceback in the log.
                category=ApplicationErrorCategory.BENIGN,
            ) from failed


class LeaseFactory(Protocol):
    def __call__(self) -> Lease:
        """Return the lease of the activity task that is running here."""
