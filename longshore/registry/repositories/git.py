"""git in, and git out: the registry of this process, and the model repositories that it refers to.

Two roles, and a cache for each. The registry is the operator's own, named by the settings, and kept with its whole
history. Model repositories are named by outside text: a policy says which are allowed, and `pinned` how they are read.

Tags and commit ids are immutable (PRD §1), so what has once been resolved or read of a model repository is never asked
for again: a second validation of the same references starts no process. A tag therefore keeps the commit with which it
was first seen.

Credentials come from where ssh and curl look for them: an agent, `~/.ssh`, `~/.netrc`, or `GIT_ASKPASS`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeVar

from longshore.registry.repositories.entries import Tree
from longshore.registry.repositories.git_cache import FetchLimits, GitCache, Quota, RefNotFound
from longshore.registry.repositories.git_process import GitFailed, git_environment, push_failure, shown
from longshore.registry.repositories.pinned import FILES_FILTER, HISTORY_FILTER, PinnedRepository
from longshore.registry.repositories.references import path_fault, repository_url_fault, transport
from longshore.registry.repositories.repository import Author, CommitInfo
from longshore.registry.repositories.signing import AllowedKeys, signature_issue
from longshore.schemas.failures import LongshoreError
from longshore.schemas.issues import Issue
from longshore.schemas.patterns import GIT_REF
from longshore.schemas.policies import RepositoryPolicy

Key = TypeVar("Key")
Value = TypeVar("Value")

# A resolved reference takes some 200 bytes and a card 3 KB, at most 32: some MB, at worst 64.
_REMEMBERED = 2000
_REMEMBERED_BYTES = 32 * 1024

_ALL_BRANCHES = "+refs/heads/*:refs/heads/*"


class Git:
    """The repositories that this process has to do with, by URL."""

    def __init__(
        self,
        root: Path,
        policy: RepositoryPolicy | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        limits: FetchLimits | None = None,
    ) -> None:
        """Keep the caches under `root`. `policy` (default: its defaults) is for model repositories only.

        `environment` (default: this process's) is filtered by `git_environment`; `limits` hold for each fetch or push.
        """
        self._root = root
        self.policy = policy or RepositoryPolicy()
        self._environment = git_environment(os.environ if environment is None else environment)
        self._limits = limits or FetchLimits()
        self._registries: dict[str, GitCache] = {}
        self._models: dict[str, PinnedRepository] = {}
        self._commits: dict[tuple[str, str], str] = {}
        self._files: dict[tuple[str, str, str], bytes] = {}

    async def fetch_branch(self, url: str, branch: str) -> str:
        """Fetch the registry's branch and return its head.

        Raises LongshoreError GIT_UNREACHABLE or GIT_TIMEOUT (retriable), REPOSITORY_NOT_FOUND, AUTH_FAILED, or
        REGISTRY_UNREADABLE where the repository is empty or has no such branch.
        """
        name = f"refs/heads/{branch}"
        cache = self._registry(url)
        try:
            await cache.fetch(f"+{name}:{name}")
        except RefNotFound as absent:
            raise LongshoreError("REGISTRY_UNREADABLE", f"{shown(url)} has no branch {branch}") from absent
        async with cache.reading() as repository:
            head = await repository.commit_id(name)
        if head is None:
            raise LongshoreError("REGISTRY_UNREADABLE", f"the branch {branch} of {shown(url)} leads to no commit")
        return head

    async def known_head(self, url: str, branch: str) -> str | None:
        """Return the branch's head as it was last fetched; None where it never was."""
        async with self._registry(url).reading() as repository:
            return await repository.commit_id(f"refs/heads/{branch}")

    async def effective_head(self, url: str, head: str) -> str:
        """Return the newest commit up to `head` that touches more than `transactions/` and `errors/`."""
        await self.require(url, head)
        async with self._registry(url).reading() as repository:
            return await repository.effective_head(head)

    async def line(self, url: str, head: str, limit: int) -> list[str]:
        """Return up to `limit` commits from `head` along first parents, newest first, without the broker's own."""
        await self.require(url, head)
        async with self._registry(url).reading() as repository:
            return await repository.line(head, limit)

    async def require(self, url: str, sha: str) -> None:
        """See to it that the registry's commit with the full id `sha` is in the cache.

        Every question about a commit does so by itself: it may have been another broker that saw the commit first.
        Raises LongshoreError REF_NOT_FOUND, or as `fetch_branch`.
        """
        cache = self._registry(url)
        if not await cache.has(sha):
            await cache.fetch(_ALL_BRANCHES)
            if not await cache.has(sha):
                await cache.fetch(sha)

    async def is_ancestor(self, url: str, older: str, newer: str) -> bool:
        """Tell whether `newer` descends from `older`, or is it; a commit that has vanished is neither."""
        try:
            await self.require(url, newer)
        except RefNotFound:  # taken away by a forced push: nothing that is there leads to it
            return False
        async with self._registry(url).reading() as repository:
            return await repository.is_ancestor(older, newer)

    async def commit(self, url: str, sha: str) -> CommitInfo:
        await self.require(url, sha)
        async with self._registry(url).reading() as repository:
            return await repository.commit(sha)

    async def tree(self, url: str, sha: str) -> Tree:
        """Return what lies at each path of a commit of the registry, in git's order."""
        await self.require(url, sha)
        async with self._registry(url).reading() as repository:
            return await repository.tree(sha)

    async def read(self, url: str, sha: str, paths: Collection[str]) -> dict[str, bytes]:
        """Return the content of those of `paths` that are files of the registry at commit `sha`.

        The paths are the registry's own: they come from its `tree`, where their sizes stand too.
        """
        await self.require(url, sha)
        names = {f"{sha}:{path}": path for path in paths}
        async with self._registry(url).reading() as repository:
            contents = await repository.blobs(tuple(names))
        return {names[name]: data for name, data in contents.items()}

    async def signature_issue(self, url: str, sha: str, keys: AllowedKeys) -> Issue | None:
        """Return why a commit must not be applied as long as only `keys` may sign. Raises as `require_verifiable`."""
        await self.require(url, sha)
        async with self._registry(url).reading() as repository:
            return await signature_issue(repository, sha, keys)

    async def push_commit(
        self, url: str, branch: str, base: str, files: Mapping[str, bytes], *, message: str, author: Author
    ) -> str:
        """Commit `files` on top of `base` and push it to the registry's `branch`, which must still end at `base`.

        Returns the new commit's id. Raises LongshoreError STATE_PUSH_CONFLICT where the branch has moved, or as
        `fetch_branch`.
        """
        cache = self._registry(url)
        async with cache.exclusively() as repository:
            try:
                commit = await repository.add_commit(base, files, message, author)
                await cache.push(commit, branch, base)
            except GitFailed as failed:
                raise push_failure(url, failed.stderr) from failed
        return commit

    async def resolve(self, url: str, ref: str) -> str:
        """Return the full commit id of a pinned ref: a tag vX.Y.Z (never a branch of that name) or 7 to 40 digits.

        Raises LongshoreError REPO_URL_FORBIDDEN, REF_UNPINNED, REF_NOT_FOUND, REF_NOT_TAG, REF_NOT_COMMIT,
        REF_AMBIGUOUS, REPO_TOO_LARGE, or as `fetch_branch`.
        """
        if re.fullmatch(GIT_REF, ref) is None:
            raise LongshoreError("REF_UNPINNED", f"{ref!r} is neither a tag vX.Y.Z nor a commit id")
        repository = self._model(url)
        if (url, ref) not in self._commits:
            async with repository.one_at_a_time:
                if (url, ref) not in self._commits:
                    _remember(self._commits, (url, ref), await repository.resolve(ref))
        return self._commits[url, ref]

    async def tags(self, url: str) -> dict[str, str]:
        """Ask the host of a model repository where each of its tags v… leads to now. Raises as `resolve`."""
        return await self._model(url).tags()

    async def read_file(self, url: str, commit: str, path: str) -> bytes | None:
        """Return a file of a model repository at a full commit id; None where there is none.

        Raises LongshoreError REPO_URL_FORBIDDEN, PATH_FORBIDDEN, PATH_NOT_REGULAR, FILE_TOO_LARGE, or as `resolve`.
        """
        if fault := path_fault(path):
            raise LongshoreError("PATH_FORBIDDEN", fault)
        repository = self._model(url)
        known = self._files.get((url, commit, path))
        if known is None:
            async with repository.one_at_a_time:
                known = await repository.read(commit, path)
            if known is not None and len(known) <= _REMEMBERED_BYTES:
                _remember(self._files, (url, commit, path), known)
        return known

    def _registry(self, url: str) -> GitCache:
        if url not in self._registries:
            protocol = transport(url)
            protocols = ("http", "https") if protocol == "http" else (protocol,)  # redirects go to the safer one
            self._registries[url] = self._cache("registry", url, protocols)
        return self._registries[url]

    def _model(self, url: str) -> PinnedRepository:
        if fault := repository_url_fault(url, self.policy):
            raise LongshoreError("REPO_URL_FORBIDDEN", fault)
        if url not in self._models:
            cache, history = (
                self._cache(role, url, self.policy.repository_schemes, Quota(self.policy.max_bytes, left_out))
                for role, left_out in (("model", FILES_FILTER), ("history", HISTORY_FILTER))
            )
            self._models[url] = PinnedRepository(url, cache, history)
        return self._models[url]

    def _cache(self, role: str, url: str, protocols: Collection[str], quota: Quota | None = None) -> GitCache:
        directory = self._root / f"{role}-{hashlib.sha256(url.encode()).hexdigest()[:16]}.git"
        # An allowed host must not send us on to another one.
        redirects = quota is None or not self.policy.repository_hosts
        return GitCache(
            directory,
            url,
            self._environment,
            protocols=protocols,
            limits=self._limits,
            quota=quota,
            follow_redirects=redirects,
        )


def _remember(memory: dict[Key, Value], key: Key, value: Value) -> None:
    """Add an entry, and forget what has been there longest."""
    memory[key] = value
    if len(memory) > _REMEMBERED:
        del memory[next(iter(memory))]
