"""git out: the broker's own commits, on top of whatever is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta

import structlog

from longshore.registry.records.errors import ErrorFile
from longshore.registry.records.pins import PINS_FILE, Tag, merge_pins, parse_pins, render_pins
from longshore.registry.records.state import STATE_FILE, FleetState, state_files
from longshore.registry.repositories.git import Git
from longshore.registry.repositories.repository import Author
from longshore.schemas.failures import LongshoreError

log = structlog.get_logger()

AskFleet = Callable[[], Awaitable[FleetState]]

# Each try starts from the newest head, so it fails only where someone pushes within its own 50 ms or so.
# After these the activity is retried.
_TRIES = 8
_PAUSE_SECONDS = 0.05


class RegistryWriter:
    """Writes `transactions/` and `errors/` of one branch, nothing else."""

    def __init__(
        self,
        git: Git,
        url: str,
        branch: str,
        *,
        name: str,
        email: str,
        min_interval: timedelta = timedelta(seconds=1),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Sign the commits as `name <email>`; from one to the next at least `min_interval` passes."""
        self._git = git
        self._url = url
        self._branch = branch
        self._name = name
        self._email = email
        self._min_interval = min_interval.total_seconds()
        self._clock = clock
        self._sleep = sleep
        self._earliest = clock()
        self._one_at_a_time = asyncio.Lock()

    async def record(
        self,
        subject: str,
        fleet: AskFleet | None,
        errors: Sequence[ErrorFile],
        *,
        now: datetime,
        tags: Mapping[Tag, str] = {},
    ) -> str | None:
        """Commit and push the state of `fleet` (None: leave it alone), the error files and `tags`, as one commit.

        The fleet is asked when its state is about to be written, and again with every try: whoever had to wait, for
        others or for a git host that was down for hours, writes what is true by then (FAULTS 50: the latest wins).
        So of many changes within `min_interval` the first and the last are written.

        `tags` are those that an accepted commit uses, with their commits. Returns the new commit's id, or None where
        nothing was news: the state is materially the same, the errors and the tags are there already. So it can be
        repeated. Raises LongshoreError STATE_PUSH_CONFLICT (retriable) when every try met another push, or as
        `Git.fetch_branch`.
        """
        async with self._one_at_a_time:
            for attempt in range(1, _TRIES):
                try:
                    return await self._try(subject, fleet, errors, now, tags)
                except LongshoreError as error:
                    if error.code != "STATE_PUSH_CONFLICT":
                        raise
                    log.info("state_push_conflict", attempt=attempt)
                await self._sleep(_PAUSE_SECONDS * attempt)
            return await self._try(subject, fleet, errors, now, tags)

    async def _try(
        self,
        subject: str,
        fleet: AskFleet | None,
        errors: Sequence[ErrorFile],
        now: datetime,
        tags: Mapping[Tag, str],
    ) -> str | None:
        if (pause := self._earliest - self._clock()) > 0:
            await self._sleep(pause)
        head = await self._git.fetch_branch(self._url, self._branch)
        paths = set(await self._git.tree(self._url, head))
        files = {error.path: error.content for error in errors if not error.is_among(paths)}
        current = await self._git.read(self._url, head, [STATE_FILE, PINS_FILE])
        if fleet is not None:
            # Of thousands of models it takes seconds, which the broker's other work does not wait for.
            files |= await asyncio.to_thread(state_files, await fleet(), now, current.get(STATE_FILE), paths)
        files |= _pins_file(current.get(PINS_FILE), tags, now)
        if not files:
            return None
        author = Author(self._name, self._email, now)
        commit = await self._git.push_commit(self._url, self._branch, head, files, message=subject, author=author)
        self._earliest = self._clock() + self._min_interval
        log.info("state_recorded", commit_sha=commit, files=len(files))
        return commit


def _pins_file(current: bytes | None, tags: Mapping[Tag, str], now: datetime) -> dict[str, bytes]:
    """Return the file of remembered tags where one is new; a file that cannot be trusted is left for people to mend."""
    known = parse_pins(current)
    if known.issue is not None:
        log.error("pins_not_written", reason=str(known.issue))
        return {}
    for tag, commit in tags.items():
        if known.commits.get(tag, commit) != commit:
            log.warning(
                "tag_pinned_otherwise", repository=tag[0], ref=tag[1], resolved=commit, first=known.commits[tag]
            )
    return {} if tags.keys() <= known.by_tag.keys() else {PINS_FILE: render_pins(merge_pins(known.by_tag, tags, now))}
