"""A bare repository on this disk that holds what was fetched of one URL, shared by tasks and processes.

It is only a cache: whatever is wrong with it, the remedy is to delete it and to fetch again (FAULTS 52).
"""

from __future__ import annotations

import asyncio
import fcntl
import shutil
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from longshore.registry.repositories.git_process import (
    FILE_SIZE_BLOCK,
    GitFailed,
    damaged,
    filter_refused,
    remote_failure,
    run_git,
    shown,
)
from longshore.registry.repositories.repository import Repository
from longshore.schemas.failures import LongshoreError

log = structlog.get_logger()

# Of another process only: tasks of this one wait for each other without polling.
_LOCK_POLL_SECONDS = 0.02

# The name by which git knows the URL, so that the URL never stands where an option could.
_REMOTE = "upstream"

_FETCH = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")


@dataclass(frozen=True)
class FetchLimits:
    """How long one exchange with a git host may take (FAULTS 41)."""

    seconds: float = 120.0
    low_speed_bytes: int = 1000
    """Per second: a host that sends less for `low_speed_seconds` is as good as gone."""
    low_speed_seconds: int = 30


@dataclass(frozen=True)
class Quota:
    """What is fetched at once of a repository that others own (FAULTS 40)."""

    max_bytes: int
    filter: str
    """As `git fetch --filter` takes it. A host that knows no filter sends everything, up to `max_bytes`."""


class RefNotFound(LongshoreError):
    """The host has not what was asked for."""

    def __init__(self, message: str, *, withheld: bool) -> None:
        super().__init__("REF_NOT_FOUND", message)
        self.withheld = withheld
        """It may have it, but hands out no commit by its id alone."""


class GitCache:
    """Methods that ask the host raise LongshoreError GIT_UNREACHABLE or GIT_TIMEOUT (retriable), REPOSITORY_NOT_FOUND,
    AUTH_FAILED; all raise IO_ERROR where this disk does not let them.
    """

    def __init__(
        self,
        directory: Path,
        url: str,
        environment: Mapping[str, str],
        *,
        protocols: Collection[str],
        limits: FetchLimits,
        quota: Quota | None = None,
        follow_redirects: bool = True,
    ) -> None:
        """Fetch by `protocols` alone. What is fetched under a `quota` has gaps: the registry's cache takes none."""
        self.directory = directory
        # Reading never fetches: not what a filter left out, either.
        self._repository = Repository(directory, {**environment, "GIT_ALLOW_PROTOCOL": ""})
        self._url = url
        self._limits = limits
        self._quota = quota
        self._lock = asyncio.Lock()
        self._present: set[str] = set()
        config = {f"remote.{_REMOTE}.url": url}
        if quota is not None:
            # For the fetch alone: gaps are no damage then, and reading never fills them. Written down, they would be.
            config |= {f"remote.{_REMOTE}.promisor": "true", f"remote.{_REMOTE}.partialCloneFilter": quota.filter}
            config["fetch.unpackLimit"] = "1"  # one pack, never loose objects: one file to measure
            config["gc.auto"] = "0"  # _make_room is the collector
        if not follow_redirects:
            config["http.followRedirects"] = "false"
        self._environment = {
            **environment,
            **_as_variables(config),
            "GIT_ALLOW_PROTOCOL": ":".join(protocols),
            "GIT_HTTP_LOW_SPEED_LIMIT": str(limits.low_speed_bytes),
            "GIT_HTTP_LOW_SPEED_TIME": str(limits.low_speed_seconds),
        }

    @asynccontextmanager
    async def exclusively(self) -> AsyncIterator[Repository]:
        """Hold the cache for changes, against other tasks and other processes; create it if need be."""
        self.directory.mkdir(parents=True, exist_ok=True)
        async with self._lock:
            with self.directory.with_suffix(".lock").open("w") as lock:
                while not _locked(lock.fileno()):  # noqa: ASYNC110 (the event would be another process's)
                    await asyncio.sleep(_LOCK_POLL_SECONDS)
                if not (self.directory / "HEAD").exists():
                    await self._create()
                yield self._repository

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Repository]:
        """Ask what is here. What turns out to be unreadable is removed, and the next attempt fetches it afresh."""
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            yield self._repository
        except GitFailed as failed:
            async with self.exclusively():
                await self._remove_damaged(failed)
            message = f"the cached copy of {shown(self._url)} could not be read and was removed"
            raise LongshoreError("GIT_UNREACHABLE", message, details=str(failed)) from failed

    async def has(self, sha: str) -> bool:
        """Tell whether the commit with the full id `sha` is here."""
        if sha not in self._present:
            async with self.reading() as repository:
                if await repository.commit_id(sha) != sha:
                    return False
            self._present.add(sha)
        return True

    async def references(self, *patterns: str) -> dict[str, str]:
        """Ask the host for its branches and tags whose names end as in `patterns`: full name → object id.

        What an annotated tag leads to has its name with `^{}`.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            listing = await self._remotely("ls-remote", "--heads", "--tags", "--end-of-options", _REMOTE, *patterns)
        except GitFailed as failed:
            raise remote_failure(self._url, failed.stderr) from failed
        return {name: sha for sha, name in (line.split("\t", 1) for line in listing.splitlines())}

    async def fetch(self, *refspecs: str, options: Collection[str] = ()) -> None:
        """Fetch `refspecs`. A damaged cache is built again. Raises RefNotFound, LongshoreError REPO_TOO_LARGE."""
        async with self.exclusively():
            await self._make_room()
            try:
                await self._attempt(refspecs, options)
            except GitFailed as failed:
                if not damaged(failed.stderr):
                    raise self._failure(refspecs, failed) from failed
                await self._remove_damaged(failed)
                await self._create()
                try:
                    await self._attempt(refspecs, options)
                except GitFailed as again:
                    raise self._failure(refspecs, again) from again

    async def push(self, commit: str, branch: str, base: str) -> None:
        """Push to `branch` provided that it still ends at `base`. To be called exclusively. Raises GitFailed."""
        # The lease, although this is a fast-forward: a plain push would bring back what a forced push took away.
        lease = f"--force-with-lease=refs/heads/{branch}:{base}"
        await self._remotely("push", "--quiet", lease, "--end-of-options", _REMOTE, f"{commit}:refs/heads/{branch}")

    async def _attempt(self, refspecs: Collection[str], options: Collection[str]) -> None:
        filters = () if self._quota is None else (f"--filter={self._quota.filter}",)
        rest = (*options, "--end-of-options", _REMOTE, *refspecs)
        try:
            try:
                await self._remotely(*_FETCH, *filters, *rest)
            except GitFailed as failed:
                if not filters or not filter_refused(failed.stderr):
                    raise
                await self._remotely(*_FETCH, "--no-filter", *rest)
        except GitFailed as failed:
            if self._quota is not None and any(map(self._is_full, self._unfinished())):
                message = f"{shown(self._url)} sends more than {self._quota.max_bytes:,} bytes"
                raise LongshoreError("REPO_TOO_LARGE", message) from failed
            raise
        finally:
            for file in self._unfinished():
                file.unlink(missing_ok=True)

    def _unfinished(self) -> list[Path]:
        """Return the files that a git which was killed has left behind."""
        return list((self.directory / "objects/pack").glob("tmp_*"))

    def _is_full(self, file: Path) -> bool:
        return self._quota is not None and file.stat().st_size > self._quota.max_bytes - FILE_SIZE_BLOCK

    async def _make_room(self) -> None:
        """Start anew where earlier fetches have filled the quota: what they brought is remembered, or asked again."""
        packs = (self.directory / "objects/pack").glob("*.pack")
        if self._quota is not None and sum(pack.stat().st_size for pack in packs) > self._quota.max_bytes:
            await self._remove()
            await self._create()

    async def _remotely(self, *args: str) -> str:
        ended = await run_git(
            self.directory,
            args,
            environment=self._environment,
            limit=self._limits.seconds,
            max_file_bytes=self._quota.max_bytes if self._quota else None,
        )
        return ended.text

    def _failure(self, refspecs: Collection[str], failed: GitFailed) -> LongshoreError:
        withheld = "unadvertised object" in failed.stderr
        if withheld or "couldn't find remote ref" in failed.stderr or "not our ref" in failed.stderr:
            wanted = next(iter(refspecs)).split(":")[0].removeprefix("+").removeprefix("refs/")
            return RefNotFound(f"{shown(self._url)} has no {wanted}", withheld=withheld)
        return remote_failure(self._url, failed.stderr)

    async def _create(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            await self._repository.git("init", "--quiet", "--bare", "--template=", ".")
        except GitFailed as failed:
            raise LongshoreError("IO_ERROR", f"cannot make a git cache in {self.directory}: {failed}") from failed

    async def _remove_damaged(self, failed: GitFailed) -> None:
        reason = shown(failed.stderr.strip())
        log.warning("git_cache_rebuilt", code="GIT_CACHE_REBUILT", repository=shown(self._url), reason=reason)
        await self._remove()

    async def _remove(self) -> None:
        self._present.clear()
        await asyncio.to_thread(shutil.rmtree, self.directory)
        self.directory.mkdir()


def _as_variables(config: Mapping[str, str]) -> dict[str, str]:
    """Return configuration as git reads it from its environment, where `ps` shows it to nobody else."""
    numbered = list(enumerate(config.items()))
    return {
        "GIT_CONFIG_COUNT": str(len(numbered)),
        **{f"GIT_CONFIG_KEY_{number}": key for number, (key, _) in numbered},
        **{f"GIT_CONFIG_VALUE_{number}": value for number, (_, value) in numbered},
    }


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
