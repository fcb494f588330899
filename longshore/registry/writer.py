"""git out: the broker's own commits, on top of whatever is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

import structlog

from longshore.registry.errors import ErrorFile
from longshore.registry.git import Git
from longshore.registry.repository import Author
from longshore.registry.state import STATE_FILE, state_files
from longshore.schemas.devices import DeviceView
from longshore.schemas.failures import LongshoreError

log = structlog.get_logger()

Devices = Callable[[], Awaitable[Sequence[DeviceView]]]

# Each try starts from the newest head, so it fails only where someone pushes within its own 50 ms or so.
# After these the activity is retried.
_TRIES = 8
_PAUSE_SECONDS = 0.05


class RegistryWriter:
    """Writes `transactions/` and `errors/` of one branch, nothing else."""

    def __init__(self, git: Git, url: str, branch: str, *, name: str, email: str) -> None:
        """Sign the commits as `name <email>`."""
        self._git = git
        self._url = url
        self._branch = branch
        self._name = name
        self._email = email
        self._one_at_a_time = asyncio.Lock()

    async def record(
        self, subject: str, devices: Devices | None, errors: Sequence[ErrorFile], *, now: datetime
    ) -> str | None:
        """Commit and push the state of `devices` (None: leave it alone) and the error files, as one commit.

        Devices are asked when their state is about to be written, and again with every try: whoever had to wait, for
        others or for a git host that was down for hours, writes what is true by then (FAULTS 50: the latest wins).

        Returns the commit's id, or None where nothing was news: the state is materially the same, and the errors are
        there already. So it can be repeated. Raises LongshoreError STATE_PUSH_CONFLICT (retriable) when every try met
        another push, or as `Git.fetch_branch`.
        """
        async with self._one_at_a_time:
            for attempt in range(1, _TRIES):
                try:
                    return await self._try(subject, devices, errors, now)
                except LongshoreError as error:
                    if error.code != "STATE_PUSH_CONFLICT":
                        raise
                    log.info("state_push_conflict", attempt=attempt)
                await asyncio.sleep(_PAUSE_SECONDS * attempt)
            return await self._try(subject, devices, errors, now)

    async def _try(
        self, subject: str, devices: Devices | None, errors: Sequence[ErrorFile], now: datetime
    ) -> str | None:
        head = await self._git.fetch_branch(self._url, self._branch)
        paths = set(await self._git.paths(self._url, head))
        files = {error.path: error.content for error in errors if not error.is_among(paths)}
        if devices is not None:
            current = (await self._git.read(self._url, head, [STATE_FILE])).get(STATE_FILE)
            files |= state_files(await devices(), now, current, paths)
        if not files:
            return None
        author = Author(self._name, self._email, now)
        commit = await self._git.push_commit(self._url, self._branch, head, files, message=subject, author=author)
        log.info("state_recorded", commit_sha=commit, files=len(files))
        return commit
