"""What happened to a commit, brought together for git: devices as they are now, failures as error files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import structlog
from temporalio.service import RPCError

from longshore.broker.entities import Entities
from longshore.broker.registry_service import RegistryService
from longshore.broker.settings import ControlSettings
from longshore.registry.records.errors import error_files
from longshore.registry.records.pins import pins_of
from longshore.registry.records.writer import RegistryWriter
from longshore.registry.repositories.git import Git
from longshore.schemas.commands import Action
from longshore.schemas.commits import CommitOutcome, CommitResult, RecordRequest
from longshore.schemas.devices import DeviceView
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.rollouts import RolloutAnswer, SlotResult
from longshore.schemas.telling import intentions

log = structlog.get_logger()

# A report follows its command within milliseconds; a device that has just gone away is not waited for.
REPORT_GRACE_SECONDS = 5.0
REPORT_PAUSE_SECONDS = 0.2

_ON_THE_WAY = frozenset({ModelState.LOADING, ModelState.RELOADING, ModelState.UNLOADING})

# A commit that was rejected or held back changed nothing that runs: its error file is all that is news.
_LEAVE_THE_STATE_ALONE = frozenset(
    {CommitOutcome.REJECTED, CommitOutcome.HISTORY_REWRITTEN, CommitOutcome.MASS_UNLOAD_BLOCKED}
)


class RegistryRecorder:
    """Writes `transactions/` and `errors/` for one commit; may be repeated."""

    def __init__(
        self,
        git: Git,
        entities: Entities,
        registry: RegistryService,
        settings: ControlSettings,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._git = git
        self._url = settings.registry
        self._entities = entities
        self._registry = registry
        self._writer = RegistryWriter(
            git, settings.registry, settings.branch, name=settings.git_name, email=settings.git_email
        )
        self._telling = settings.telling
        self._now = now

    async def record(self, request: RecordRequest) -> None:
        result = request.result
        untouched = result.outcome in _LEAVE_THE_STATE_ALONE
        await self._git.require(self._url, result.sha)
        commit = await self._git.commit(self._url, result.sha)
        devices = {} if untouched else await self._devices_after(result)
        snapshot = None if untouched else await self._registry.snapshot(result.sha)
        now = self._now()
        next_steps = tuple(intentions(result, self._telling))
        errors = error_files(result, commit, snapshot, devices, now, next_steps=next_steps)
        subject = f"Longshore: {result.outcome} {result.sha[:10]}"
        tags = pins_of(snapshot) if snapshot is not None else {}
        await self._writer.record(subject, None if untouched else self._views, errors, now=now, tags=tags)

    async def _devices_after(self, result: CommitResult) -> dict[str, DeviceView]:
        """Return what the devices report once they have told of this commit's commands, or after a while."""
        deadline = asyncio.get_running_loop().time() + REPORT_GRACE_SECONDS
        while True:
            devices = await self._devices()
            if has_been_reported(result, devices) or asyncio.get_running_loop().time() > deadline:
                return devices
            await asyncio.sleep(REPORT_PAUSE_SECONDS)

    async def _views(self) -> list[DeviceView]:
        return list((await self._devices()).values())

    async def _devices(self) -> dict[str, DeviceView]:
        """Ask every device's workflow for what it knows; one that is not running is left out."""
        fleet = await self._entities.fleet()
        views = await asyncio.gather(*(self._device(worker_id) for worker_id in fleet.devices))
        return {view.worker_id: view for view in views if view is not None}

    async def _device(self, worker_id: str) -> DeviceView | None:
        try:
            return await self._entities.device(worker_id)
        except RPCError as error:
            log.warning("device_not_known", worker_id=worker_id, error=str(error))
            return None


def has_been_reported(result: CommitResult, devices: Mapping[str, DeviceView]) -> bool:
    """Tell whether every device has reported the end of each command of this commit, carried out or failed.

    A command's result and the report of the same change are two messages; the report may be the later one.
    """
    return all(
        _knows(devices.get(slot.worker_id), answer, slot) for answer in result.answers for slot in answer.results
    )


def _knows(device: DeviceView | None, answer: RolloutAnswer, slot: SlotResult) -> bool:
    reported = device.report.models if device is not None and device.report is not None else ()
    model = next((model for model in reported if model.deployment_id == answer.deployment_id), None)
    if model is None:
        # Gone, as it should be; or a device that the command has not reached.
        return slot.action is Action.UNLOAD or slot.failure is not None
    if model.generation > answer.generation:
        return True
    if slot.failure is not None:
        return model.state not in _ON_THE_WAY
    if slot.action is Action.UNLOAD:
        return model.state is ModelState.IDLE
    return model.generation == answer.generation and model.state not in _ON_THE_WAY
