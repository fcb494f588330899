"""What happened to a commit, brought together for git: devices as they are now, failures as error files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import structlog
from temporalio.service import RPCError

from longshore.broker.entities import Entities
from longshore.broker.registry_service import RegistryService
from longshore.broker.settings import ControlSettings
from longshore.registry.errors import error_files
from longshore.registry.git import Git
from longshore.registry.writer import RegistryWriter
from longshore.schemas.commits import CommitOutcome, RecordRequest
from longshore.schemas.devices import DeviceView

log = structlog.get_logger()

# A rejected commit changed nothing that runs: its error file is all that is news.
_LEAVE_THE_STATE_ALONE = frozenset({CommitOutcome.REJECTED, CommitOutcome.HISTORY_REWRITTEN})


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
        self._now = now

    async def record(self, request: RecordRequest) -> None:
        result = request.result
        untouched = result.outcome in _LEAVE_THE_STATE_ALONE
        now = self._now()
        commit = await self._git.commit(self._url, result.sha)
        devices = [] if untouched else await self._devices()
        snapshot = None if untouched else await self._registry.snapshot(result.sha)
        errors = error_files(result, commit, snapshot, {device.worker_id: device for device in devices}, now)
        subject = f"Longshore: {result.outcome} {result.sha[:10]}"
        await self._writer.record(subject, None if untouched else devices, errors, now=now)

    async def _devices(self) -> list[DeviceView]:
        """Ask every device's workflow for what it knows; one that is not running is left out."""
        fleet = await self._entities.fleet()
        views = await asyncio.gather(*(self._device(worker_id) for worker_id in fleet.devices))
        return [view for view in views if view is not None]

    async def _device(self, worker_id: str) -> DeviceView | None:
        try:
            return await self._entities.device(worker_id)
        except RPCError as error:
            log.warning("device_not_known", worker_id=worker_id, error=str(error))
            return None
