"""What each broker looks after every `keep_interval`: that the long-lived workflows are there (FAULTS 55, 57, 60, 70).

No Schedule of Temporal's does this: it would cost 1,440 workflows a day, and without a broker neither works.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import structlog
from temporalio.client import WorkflowQueryFailedError
from temporalio.service import RPCError

from longshore.broker.entities import in_windows
from longshore.schemas.failures import FAILURES
from longshore.schemas.fleet import FleetView

log = structlog.get_logger()

_NOTE = "first-fleet-run"


class Entities(Protocol):
    async def fleet(self) -> FleetView: ...

    async def first_fleet_run(self) -> str | None:
        """Return the run id with which the fleet's line of runs began; None where the server knows of no fleet."""

    async def keep_fleet(self) -> None:
        """Start the fleet where it is not running."""

    async def keep_device(self, worker_id: str) -> None:
        """Start the device's workflow where it is not running."""


class Keeper:
    def __init__(self, entities: Entities, state_dir: Path, interval: timedelta = timedelta(minutes=1)) -> None:
        self._entities = entities
        self._note = state_dir / _NOTE
        self._interval = interval

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._interval.total_seconds())
            try:
                await self.look()
            except (RPCError, WorkflowQueryFailedError) as error:
                log.warning("temporal_unreachable", error=str(error))

    async def look(self) -> None:
        """Start again what an operator has terminated, a defect has ended, or the server has lost."""
        await self.check_durable()
        await self._entities.keep_fleet()
        plan = (await self._entities.fleet()).plan
        await in_windows(self._entities.keep_device, plan.workers if plan else ())
        await self.remember()

    async def check_durable(self) -> None:
        """Tell it where the server has forgotten the fleet that it once had: what runs is found out anew."""
        known = await asyncio.to_thread(_read, self._note)
        if known is not None and await self._entities.first_fleet_run() is None:
            log.error("server_not_durable", code="SERVER_NOT_DURABLE", remedy=FAILURES["SERVER_NOT_DURABLE"].remedy)
            await asyncio.to_thread(self._note.unlink, missing_ok=True)

    async def remember(self) -> None:
        """Note that the server has a fleet of ours."""
        run_id = await self._entities.first_fleet_run()
        if run_id is not None and run_id != await asyncio.to_thread(_read, self._note):
            await asyncio.to_thread(_write, self._note, run_id)


def _read(note: Path) -> str | None:
    try:
        return note.read_text().strip() or None
    except FileNotFoundError:
        return None


def _write(note: Path, text: str) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(text)
