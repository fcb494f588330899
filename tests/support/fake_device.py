"""A worker host in memory: it obeys at once, and answers for its presence through a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from temporalio.client import AsyncActivityCancelledError, Client
from temporalio.service import RPCError

from longshore.activities.devices import CommandFailed, DeviceActivities
from longshore.schemas.commands import CommandResult, UnloadCommand
from longshore.schemas.devices import DeviceCapacity, DeviceReport, DeviceStatus, ModelReport, PresenceRequest
from longshore.schemas.failures import Failure, LongshoreError
from longshore.schemas.lifecycle import ModelState


class NoLease:
    def beat(self, progress: Any) -> None: ...

    async def confirm(self) -> None: ...


class FakeDevice:
    """A worker host that obeys at once, fails what it is told to fail, and answers for its presence."""

    def __init__(self, client: Client, worker_id: str) -> None:
        self.worker_id = worker_id
        self.commands: list[Any] = []
        self.failures: dict[str, Failure] = {}
        """By version (or `UNLOAD`): what fails, and as what."""
        self.before: Callable[[Any], Awaitable[None]] | None = None
        self.boot_id = "boot-1"
        self.status = DeviceStatus.HEALTHY
        self.models: dict[str, ModelReport] = {}
        self.silent = False
        self.highest_generation = 0
        self.beat_seconds: float | None = None
        """None: it beats once for each presence."""
        self._client = client
        self._sequence = 0
        self._held: bytes | None = None

    def moved_to(self, client: Client) -> FakeDevice:
        """Return the same device, with what it runs, as it serves another server."""
        moved = FakeDevice(client, self.worker_id)
        moved.models, moved.highest_generation = self.models, self.highest_generation
        return moved

    def door(self) -> DeviceActivities:
        return DeviceActivities(self, NoLease)

    async def execute(self, command: Any, _: Any) -> CommandResult:
        self.commands.append(command)
        self.highest_generation = max(self.highest_generation, command.generation)
        if self.before is not None:
            await self.before(command)
        unload = isinstance(command, UnloadCommand)
        failure = self.failures.get("UNLOAD" if unload else command.spec.version)
        if failure is not None:
            raise CommandFailed(LongshoreError(failure.code, failure.message, details=failure.details), None)
        state = ModelState.IDLE if unload else ModelState.READY
        version, digest = (None, None) if unload else (command.spec.version, command.spec.digest)
        self.models[command.deployment_id] = ModelReport(
            deployment_id=command.deployment_id,
            state=state,
            generation=command.generation,
            version=version,
            digest=digest,
        )
        await self.say_something()
        return CommandResult(
            deployment_id=command.deployment_id,
            worker_id=self.worker_id,
            generation=command.generation,
            state=state,
            version=version,
            digest=digest,
        )

    async def hold_presence(self, request: PresenceRequest, task_token: bytes) -> None:
        if self.silent:
            return
        self._held = task_token
        if not request.hold or request.seen_digest != self.report().digest:
            await self.say_something()
        else:
            await self.beat()
            if self.beat_seconds is not None:
                self._beating = asyncio.create_task(self._beat_on(task_token, self.beat_seconds))

    async def _beat_on(self, token: bytes, seconds: float) -> None:
        with suppress(RPCError, AsyncActivityCancelledError):  # the server has given the presence up
            while self._held == token and not self.silent:
                await asyncio.sleep(seconds)
                await self.beat()

    async def say_something(self) -> None:
        """Complete the presence that is held, if one is."""
        token, self._held = self._held, None
        if token is not None:
            await self._client.get_async_activity_handle(task_token=token).complete(self.report())

    async def beat(self) -> None:
        if self._held is not None:
            await self._client.get_async_activity_handle(task_token=self._held).heartbeat(self.report())

    def report(self) -> DeviceReport:
        self._sequence += 1
        return DeviceReport(
            worker_id=self.worker_id,
            boot_id=self.boot_id,
            sequence=self._sequence,
            status=self.status,
            timestamp=datetime.now(UTC),
            capacity=DeviceCapacity(
                max_models=5, max_memory=2**34, used_memory=0, max_cpu=8, used_cpu=0, max_gpu=0, used_gpu=0,
                loaded_models=len(self.models),
            ),
            models=tuple(self.models.values()),
            highest_generation=self.highest_generation,
        )  # fmt: skip
