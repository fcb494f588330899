"""A model repository as manifests and cards refer to it: a pinned ref, and a file at the commit that it leads to.

It is other people's and may be hostile: one commit is fetched at a time, without the files that would not be read,
under a quota, and nothing of it is ever checked out.
"""

from __future__ import annotations

import asyncio

from longshore.registry.repositories.entries import MAX_FILE_BYTES, Entry, Kind
from longshore.registry.repositories.git_cache import GitCache, RefNotFound
from longshore.registry.repositories.git_process import shown
from longshore.schemas.failures import LongshoreError
from longshore.schemas.wording import short

_FULL_ID = 40  # hexadecimal digits of a SHA-1

FILES_FILTER = f"blob:limit={MAX_FILE_BYTES + 1}"
"""Leaves out the files that are too large to be read."""
HISTORY_FILTER = "tree:0"
"""Leaves out all but commits and tags: enough to expand a short id."""

_ALL = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/seen-tags/*")
_ONE_COMMIT = ("--depth=1",)
_ALL_COMMITS = ("--depth=2147483647", "--prune")  # git's notation for infinite: it completes what was fetched with 1


class PinnedRepository:
    """Methods raise LongshoreError as `GitCache` does, and REPO_TOO_LARGE."""

    def __init__(self, url: str, cache: GitCache, history: GitCache) -> None:
        """Keep single commits in `cache`; `history` knows all commits, and is filled for short ids only."""
        self._shown = shown(url)
        self._cache = cache
        self._history = history
        self.one_at_a_time = asyncio.Lock()

    async def resolve(self, ref: str) -> str:
        """Return the full id of the commit that a tag vX.Y.Z, or 7 to 40 digits of an id, leads to, and fetch it.

        Raises LongshoreError REF_NOT_FOUND, REF_NOT_TAG, REF_NOT_COMMIT, REF_AMBIGUOUS.
        """
        if ref.startswith("v"):
            return await self._tagged(ref)
        commit = ref if len(ref) == _FULL_ID else await self._expanded(ref)
        await self._require(commit)
        return commit

    async def tags(self) -> dict[str, str]:
        """Ask the host where each of its tags v… leads to now."""
        there = await self._cache.references("refs/tags/v*")
        # An annotated tag comes twice: `v1.0.0` is the tag's own id, `v1.0.0^{}`, after it, what it leads to.
        return {name.removeprefix("refs/tags/").removesuffix("^{}"): sha for name, sha in there.items()}

    async def read(self, commit: str, path: str) -> bytes | None:
        """Return the content of the file at `path`; None where there is nothing, or a folder.

        Raises LongshoreError PATH_NOT_REGULAR, FILE_TOO_LARGE.
        """
        await self._require(commit)
        name = f"{commit}:{path}"
        async with self._cache.reading() as repository:
            kind = await repository.kind(commit, path)
            if kind is None:
                return None
            size = await repository.size(name) if kind is Kind.FILE else 0
            entry = Entry(kind, MAX_FILE_BYTES + 1 if size is None else size)  # None: the filter has left it out
            if entry.fault is not None:
                code, reason = entry.fault
                raise LongshoreError(code, f"{path} {reason} in {self._shown} at {short(commit)}")
            return (await repository.blobs([name]))[name]

    async def _tagged(self, tag: str) -> str:
        name, branch = f"refs/tags/{tag}", f"refs/heads/{tag}"
        found = await self._commit_of(name)
        if found is None:
            there = await self._cache.references(name, branch)
            if name not in there:
                if branch in there:
                    raise LongshoreError("REF_NOT_TAG", f"{self._shown} has a branch {tag}, and no tag of that name")
                raise LongshoreError("REF_NOT_FOUND", f"{self._shown} has no tag {tag}")
            # By id: asked for a tag that is not there, git would take a branch with the name `refs/tags/…`.
            await self._cache.fetch(f"+{there[name]}:{name}", options=_ONE_COMMIT)
            found = await self._commit_of(name)
        if found is None:
            raise LongshoreError("REF_NOT_COMMIT", f"the tag {tag} of {self._shown} leads to no commit")
        return found

    async def _commit_of(self, name: str) -> str | None:
        async with self._cache.reading() as repository:
            return await repository.commit_id(name)

    async def _expanded(self, prefix: str) -> str:
        found = await self._with_prefix(prefix)
        if not found:
            await self._history.fetch(*_ALL, options=("--prune",))
            found = await self._with_prefix(prefix)
        if not found:
            raise LongshoreError("REF_NOT_FOUND", f"{self._shown} has no commit {prefix}")
        if len(found) > 1:
            raise LongshoreError("REF_AMBIGUOUS", f"{prefix} is any of {', '.join(sorted(found))} in {self._shown}")
        return found[0]

    async def _with_prefix(self, prefix: str) -> list[str]:
        async with self._history.reading() as repository:
            return await repository.commits_with_prefix(prefix)

    async def _require(self, commit: str) -> None:
        if await self._cache.has(commit):
            return
        try:
            await self._cache.fetch(f"+{commit}:refs/commits/{commit}", options=_ONE_COMMIT)
        except RefNotFound as absent:
            if not absent.withheld:
                raise LongshoreError("REF_NOT_FOUND", f"{self._shown} has no commit {commit}") from absent
            await self._cache.fetch(*_ALL, options=_ALL_COMMITS)
        if await self._cache.has(commit):
            return
        async with self._cache.reading() as repository:
            if await repository.size(commit) is not None:
                raise LongshoreError("REF_NOT_COMMIT", f"{commit} is no commit in {self._shown}")
        raise LongshoreError("REF_NOT_FOUND", f"{self._shown} has no commit {commit}")
