"""Look at the branch now, beside the work: what a webhook and the start of a broker ask for."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Protocol

import structlog
from temporalio.service import RPCError

from longshore.activities.fleet import Branch, Commits
from longshore.schemas.failures import LongshoreError

log = structlog.get_logger()

# A webhook may come before its commit can be fetched, or while Temporal restarts; past this the poll is as quick.
ATTEMPTS = 5
PAUSE_SECONDS = 1.0

# Whoever is that far behind is found by the poll.
AWAITED = 8


class HintedBranch(Branch, Protocol):
    async def has(self, sha: str) -> bool:
        """Return whether the branch, as it was last looked at, contains the commit."""


class LookNow:
    """However many hints arrive during one look, one more look follows it (FAULTS 10)."""

    def __init__(self, branch: HintedBranch, commits: Commits, *, pause_seconds: float = PAUSE_SECONDS) -> None:
        self._branch = branch
        self._commits = commits
        self._pause = pause_seconds
        self._hinted = asyncio.Event()
        self._awaited: dict[str, None] = {}
        self._trouble: str | None = None

    def __call__(self, sha: str | None = None) -> None:
        """Ask for a look, which is repeated until the branch has the commit `sha` (FAULTS 8)."""
        if sha is not None:
            self._awaited[sha] = None
            if len(self._awaited) > AWAITED:
                del self._awaited[next(iter(self._awaited))]
        self._hinted.set()

    async def run(self) -> None:
        while True:
            await self._hinted.wait()
            self._hinted.clear()
            await self._look_until_seen()

    async def _look_until_seen(self) -> None:
        """Look until every awaited commit has been seen, another hint begins a new look, or the attempts run out."""
        for attempt in range(ATTEMPTS):
            if await self._look(attempt + 1) or await self._is_hinted_within(self._pause * 2**attempt):
                return
        self._awaited.clear()

    async def _look(self, attempt: int) -> bool:
        """Look once, and return whether nothing is left to wait for."""
        try:
            # The head, never the hint: deliveries come in any order (FAULTS 9).
            await self._commits.start_commit(await self._branch.look())
            for sha in tuple(self._awaited):
                if await self._branch.has(sha):
                    self._awaited.pop(sha, None)
        except (LongshoreError, RPCError) as error:
            if str(error) != self._trouble:
                log.warning("registry_unreadable", attempt=attempt, error=str(error))
            self._trouble = str(error)
            return False
        self._trouble = None
        return not self._awaited

    async def _is_hinted_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hinted.wait()
        return self._hinted.is_set()
