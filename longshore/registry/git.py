"""git in: a bare content cache per repository, filled on demand, asked by any number of tasks at once.

Tags and commit ids are immutable (PRD §1), so what has once been resolved or read is never asked for again: a second
validation of the same references starts no process. A tag therefore keeps the commit with which it was first seen.

Credentials come from where ssh and curl look for them: an agent, `~/.ssh`, `~/.netrc`, or `GIT_ASKPASS`.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import posixpath
import shutil
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import structlog

from longshore.registry.git_process import GitFailed, damaged, git_environment, push_failure, remote_failure, shown
from longshore.registry.repository import Author, CommitInfo, Repository
from longshore.registry.signing import AllowedKeys, signature_issue
from longshore.schemas.failures import LongshoreError
from longshore.schemas.issues import Issue

log = structlog.get_logger()

Key = TypeVar("Key")
Value = TypeVar("Value")

_FULL_ID = 40  # hexadecimal digits of a SHA-1

# Of another process only: tasks of this one wait for each other without polling.
_LOCK_POLL_SECONDS = 0.02

# A resolved reference takes some 200 bytes and a card 3 KB: at most a few MB.
_REMEMBERED = 2000
_REMEMBERED_BYTES = 64 * 1024  # what the broker writes grows, and is another one at each head


class Git:
    """The repositories that this process has to do with, by URL."""

    def __init__(self, root: Path, *, environment: Mapping[str, str] | None = None, fetch_limit: float = 120.0) -> None:
        """Keep the caches under `root`; `environment` (default: this process's) is filtered by `git_environment`.

        `fetch_limit` bounds one fetch or push, in seconds.
        """
        self._root = root
        self._environment = git_environment(os.environ if environment is None else environment)
        self._fetch_limit = fetch_limit
        self._repositories: dict[str, Repository] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._commits: dict[tuple[str, str], str] = {}
        self._present: dict[tuple[str, str], bool] = {}
        self._files: dict[tuple[str, str, str], bytes] = {}

    async def fetch_branch(self, url: str, branch: str) -> str:
        """Fetch the branch and return its head.

        Raises LongshoreError GIT_UNREACHABLE (retriable), REPOSITORY_NOT_FOUND, AUTH_FAILED, or REF_NOT_FOUND.
        """
        name = f"refs/heads/{branch}"
        await self._fetch(url, f"+{name}:{name}")
        head = await self._repository(url).commit_id(name)
        if head is None:
            raise LongshoreError("REF_NOT_FOUND", f"{shown(url)} has no branch {branch}")
        return head

    async def known_head(self, url: str, branch: str) -> str | None:
        """Return the branch's head as it was last fetched; None where it never was."""
        return await self._repository(url).commit_id(f"refs/heads/{branch}")

    async def effective_head(self, url: str, head: str) -> str:
        """Return the newest commit up to `head` that touches more than `transactions/` and `errors/`."""
        await self.require(url, head)
        async with self._reading(url) as repository:
            return await repository.effective_head(head)

    async def require(self, url: str, sha: str) -> None:
        """See to it that the commit with the full id `sha` is in the cache. Raises as `fetch_branch`.

        Every question about a commit does so by itself: it may have been another broker that saw the commit first.
        """
        if (url, sha) in self._present:
            return
        repository = self._repository(url)
        if await repository.commit_id(sha) is None:
            await self._fetch(url, "+refs/heads/*:refs/heads/*")
            if await repository.commit_id(sha) is None:
                await self._fetch(url, sha)
        _remember(self._present, {(url, sha): True})

    async def is_ancestor(self, url: str, older: str, newer: str) -> bool:
        """Tell whether `newer` descends from `older`, or is it; a commit that has vanished is neither."""
        try:
            await self.require(url, newer)
        except LongshoreError as error:
            if error.code == "REF_NOT_FOUND":  # taken away by a forced push: nothing that is there leads to it
                return False
            raise
        async with self._reading(url) as repository:
            return await repository.is_ancestor(older, newer)

    async def commit(self, url: str, sha: str) -> CommitInfo:
        await self.require(url, sha)
        async with self._reading(url) as repository:
            return await repository.commit(sha)

    async def paths(self, url: str, sha: str) -> tuple[str, ...]:
        """Return the paths of all files of a commit, in git's order."""
        await self.require(url, sha)
        async with self._reading(url) as repository:
            return tuple(await repository.tree(sha))

    async def read(self, url: str, sha: str, paths: Collection[str]) -> dict[str, bytes]:
        """Return the content of those of `paths` that are files at commit `sha`."""
        known = {path: data for path in paths if (data := self._files.get((url, sha, path))) is not None}
        missing = {f"{sha}:{path}": path for path in paths if path not in known and _plain(path)}
        if not missing:
            return known
        await self.require(url, sha)
        async with self._reading(url) as repository:
            contents = await repository.blobs(tuple(missing))
        fresh = {missing[name]: data for name, data in contents.items()}
        small = {path: data for path, data in fresh.items() if len(data) <= _REMEMBERED_BYTES}
        _remember(self._files, {(url, sha, path): data for path, data in small.items()})
        return known | fresh

    async def resolve(self, url: str, ref: str) -> str:
        """Return the full commit id of a pinned ref: a tag vX.Y.Z (never a branch of that name) or 7 to 40 digits.

        Raises LongshoreError REF_NOT_FOUND, REF_AMBIGUOUS, or as `fetch_branch`.
        """
        known = self._commits.get((url, ref))
        if known is None:
            resolve = self._resolve_tag if ref.startswith("v") else self._resolve_id
            async with self._reading(url) as repository:
                known = await resolve(url, repository, ref)
            _remember(self._commits, {(url, ref): known})
        return known

    async def tags(self, url: str) -> dict[str, str]:
        """Ask the host where each of its tags v… leads to now. Raises as `fetch_branch`."""
        repository = self._repository(url)
        if not (repository.directory / "HEAD").exists():
            async with self.exclusively(url):
                pass  # git asks from within a repository
        try:
            listing = await repository.git(
                "ls-remote", "--tags", "--end-of-options", url, "v*", limit=self._fetch_limit
            )
        except GitFailed as failed:
            raise remote_failure(url, failed.stderr) from failed
        entries = (line.split("\t", 1) for line in listing.splitlines())
        # An annotated tag comes twice: `v1.0.0` is the tag's own id, `v1.0.0^{}`, after it, what it leads to.
        return {name.removeprefix("refs/tags/").removesuffix("^{}"): found for found, name in entries}

    async def signature_issue(self, url: str, sha: str, keys: AllowedKeys) -> Issue | None:
        """Return why a commit must not be applied as long as only `keys` may sign. Raises as `require_verifiable`."""
        await self.require(url, sha)
        async with self._reading(url) as repository:
            return await signature_issue(repository, sha, keys)

    async def push_commit(
        self, url: str, branch: str, base: str, files: Mapping[str, bytes], *, message: str, author: Author
    ) -> str:
        """Commit `files` on top of `base` and push it to `branch`, provided that the branch still ends at `base`.

        Returns the new commit's id. Raises LongshoreError STATE_PUSH_CONFLICT where the branch has moved, or as
        `fetch_branch`.
        """
        async with self.exclusively(url) as repository:
            # The lease, although this is a fast-forward: a plain push would bring back what a forced push took away.
            options = ("--quiet", f"--force-with-lease=refs/heads/{branch}:{base}")
            try:
                commit = await repository.add_commit(base, files, message, author)
                await repository.git("push", *options, url, f"{commit}:refs/heads/{branch}", limit=self._fetch_limit)
            except GitFailed as failed:
                raise push_failure(url, failed.stderr) from failed
        return commit

    async def _resolve_tag(self, url: str, repository: Repository, tag: str) -> str:
        name = f"refs/tags/{tag}"
        found = await repository.commit_id(name)
        if found is None:
            await self._fetch(url, f"{name}:{name}")
            found = await repository.commit_id(name)
        if found is None:
            raise LongshoreError("REF_NOT_FOUND", f"the tag {tag} of {shown(url)} leads to no commit")
        return found

    async def _resolve_id(self, url: str, repository: Repository, prefix: str) -> str:
        found = await repository.commits_with_prefix(prefix)
        if not found:
            await self._fetch(url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/seen-tags/*")
            found = await repository.commits_with_prefix(prefix)
        if not found and len(prefix) == _FULL_ID:
            await self._fetch(url, prefix)
            found = await repository.commits_with_prefix(prefix)
        if not found:
            raise LongshoreError("REF_NOT_FOUND", f"{shown(url)} has no commit {prefix}")
        if len(found) > 1:
            raise LongshoreError("REF_AMBIGUOUS", f"{prefix} is any of {', '.join(sorted(found))} in {shown(url)}")
        return found[0]

    async def _fetch(self, url: str, *refspecs: str) -> None:
        async with self.exclusively(url) as repository:
            try:
                await self._fetch_into(repository, url, refspecs)
            except GitFailed as failed:
                if not damaged(failed.stderr):
                    raise self._fetch_failure(url, refspecs, failed) from failed
                log.warning("git_cache_rebuilt", repository=shown(url), reason=failed.stderr.strip())
                await self._remove(url, repository)
                await self._create(repository)
                try:
                    await self._fetch_into(repository, url, refspecs)
                except GitFailed as again:
                    raise self._fetch_failure(url, refspecs, again) from again

    async def _fetch_into(self, repository: Repository, url: str, refspecs: tuple[str, ...]) -> None:
        options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
        await repository.git("fetch", *options, "--end-of-options", url, *refspecs, limit=self._fetch_limit)

    @staticmethod
    def _fetch_failure(url: str, refspecs: tuple[str, ...], failed: GitFailed) -> LongshoreError:
        if "couldn't find remote ref" in failed.stderr or "not our ref" in failed.stderr:
            wanted = refspecs[0].split(":")[0].removeprefix("+").removeprefix("refs/")
            return LongshoreError("REF_NOT_FOUND", f"{shown(url)} has no {wanted}")
        return remote_failure(url, failed.stderr)

    def _repository(self, url: str) -> Repository:
        if url not in self._repositories:
            name = hashlib.sha256(url.encode()).hexdigest()[:16]
            self._repositories[url] = Repository(self._root / f"{name}.git", self._environment)
            self._repositories[url].directory.mkdir(parents=True, exist_ok=True)
            self._locks[url] = asyncio.Lock()
        return self._repositories[url]

    @staticmethod
    async def _create(repository: Repository) -> None:
        repository.directory.mkdir(parents=True, exist_ok=True)
        try:
            await repository.git("init", "--quiet", "--bare", "--template=", ".")
        except GitFailed as failed:
            raise LongshoreError("IO_ERROR", f"cannot make a git cache in {repository.directory}: {failed}") from failed

    async def _remove(self, url: str, repository: Repository) -> None:
        await asyncio.to_thread(shutil.rmtree, repository.directory)
        repository.directory.mkdir()
        self._present = {key: True for key in self._present if key[0] != url}

    @asynccontextmanager
    async def exclusively(self, url: str) -> AsyncIterator[Repository]:
        """Hold the repository's cache for changes, against other tasks and other processes; create it if need be."""
        repository = self._repository(url)
        async with self._locks[url]:
            with repository.directory.with_suffix(".lock").open("w") as lock:
                while not _locked(lock.fileno()):  # noqa: ASYNC110 (the event would be another process's)
                    await asyncio.sleep(_LOCK_POLL_SECONDS)
                if not (repository.directory / "HEAD").exists():
                    await self._create(repository)
                yield repository

    @asynccontextmanager
    async def _reading(self, url: str) -> AsyncIterator[Repository]:
        repository = self._repository(url)
        try:
            yield repository
        except GitFailed as failed:
            # The next attempt fetches afresh.
            async with self.exclusively(url):
                await self._remove(url, repository)
            message = f"the cached copy of {shown(url)} could not be read and was removed"
            raise LongshoreError("GIT_UNREACHABLE", message, details=str(failed)) from failed


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _plain(path: str) -> bool:
    """Tell whether git can look `path` up in a tree: it dies of `./x`, and no tree holds `../x` or `/x`."""
    return path == posixpath.normpath(path) and not path.startswith(("/", "..")) and path != "."


def _remember(memory: dict[Key, Value], fresh: Mapping[Key, Value]) -> None:
    """Add `fresh`, and forget what has been there longest."""
    memory.update(fresh)
    while len(memory) > _REMEMBERED:
        del memory[next(iter(memory))]
