"""Look at the branch now, beside the work: what a webhook and the start of a broker ask for."""

from __future__ import annotations

import asyncio

import structlog
from temporalio.service import RPCError

from longshore.activities.fleet import Branch, Commits
from longshore.schemas.failures import LongshoreError

log = structlog.get_logger()

# A webhook may come before its commit can be fetched, or while Temporal restarts; past this the poll is as quick.
ATTEMPTS = 5
PAUSE_SECONDS = 1.0


class LookNow:
    """However many hints arrive during one look, one more look follows it (FAULTS 10)."""

    def __init__(self, branch: Branch, commits: Commits, *, pause_seconds: float = PAUSE_SECONDS) -> None:
        self._branch = branch
        self._commits = commits
        self._pause = pause_seconds
        self._hinted = asyncio.Event()

    def __call__(self) -> None:
        self._hinted.set()

    async def run(self) -> None:
        while True:
            await self._hinted.wait()
            self._hinted.clear()
            await self._look()

    async def _look(self) -> None:
        for attempt in range(ATTEMPTS):
            try:
                await self._commits.start_commit(await self._branch.look())
            except (LongshoreError, RPCError) as error:
                log.warning("registry_unreadable", attempt=attempt + 1, error=str(error))
                await asyncio.sleep(self._pause * 2**attempt)
            else:
                return
