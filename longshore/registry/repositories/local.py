"""A registry or model repository on this disk: a folder, a work tree, or any revision of it."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from longshore.registry.repositories.entries import Entry, Kind, Tree
from longshore.registry.repositories.git_process import GitFailed, git_environment, run_git
from longshore.registry.repositories.repository import Repository


class UnusablePath(Exception):
    """There is nothing at the path, or not the revision, that could be checked."""


@dataclass(frozen=True)
class LocalFiles:
    tree: Tree
    files: dict[str, bytes]
    """The content of those paths that were wanted."""
    commit: str | None
    """None where files were read as they lie in the folder."""
    prefix: str = ""
    """Where the folder lies in its repository: `ops/`, or empty for the root."""


@dataclass(frozen=True)
class Found:
    """The repository that a folder lies in."""

    repository: Repository
    bare: bool
    prefix: str
    """As in LocalFiles."""


Wanted = Callable[[Tree], Collection[str]]


async def read_local(folder: Path, rev: str | None, wanted: Wanted, inherited: Mapping[str, str]) -> LocalFiles:
    """Read a folder as it would be committed now or, with `rev`, as it is at that revision.

    In a work tree only what git would take counts: no ignored file, and no empty folder. Elsewhere every file counts.
    A bare repository is read at HEAD. Raises UnusablePath.
    """
    found = await find_repository(folder, inherited)
    if found is None:
        if rev is not None:
            raise UnusablePath(f"{folder} is in no git repository, so it has no revision {rev}")
        return await asyncio.to_thread(_read_folder, folder, _walk(folder), wanted)
    if rev is None and found.bare:
        rev = "HEAD"
    if rev is not None:
        return await read_revision(found.repository, rev, wanted, found.prefix)
    listing = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed = await run_git(folder, listing, environment=found.repository.environment, discover=True)
    names = (os.fsdecode(name) for name in listed.stdout.split(b"\0") if name)
    return await asyncio.to_thread(_read_folder, folder, names, wanted, found.prefix)


async def find_repository(folder: Path, inherited: Mapping[str, str]) -> Found | None:
    """Return the repository that `folder` is, or lies in; None where there is none. Raises UnusablePath."""
    if not await asyncio.to_thread(folder.is_dir):
        raise UnusablePath(f"{folder} is no folder")
    environment = git_environment(inherited)
    try:
        found = await run_git(
            folder,
            ("rev-parse", "--is-bare-repository", "--absolute-git-dir", "--show-prefix"),
            environment=environment,
            discover=True,
        )
    except GitFailed:
        return None
    bare, git_dir, prefix = (*found.text.split("\n"), "")[:3]
    return Found(Repository(Path(git_dir), environment), bare == "true", prefix)


async def has_changes(folder: Path, inherited: Mapping[str, str]) -> bool:
    """Tell whether a work tree differs from its HEAD below `folder`. Raises GitFailed where it is none."""
    listing = ("status", "--porcelain", "--untracked-files=normal", "--", ".")
    return bool((await run_git(folder, listing, environment=git_environment(inherited), discover=True)).text)


async def read_revision(repository: Repository, rev: str, wanted: Wanted, prefix: str = "") -> LocalFiles:
    """Read what is under `prefix` at a revision. Raises UnusablePath."""
    commit = await repository.commit_id(rev)
    if commit is None:
        raise UnusablePath(f"there is no revision {rev}")
    try:
        tree = await repository.tree(f"{commit}:{prefix}")
    except GitFailed as failed:
        raise UnusablePath(f"the folder {prefix} is not in {rev}") from failed
    names = {path: f"{commit}:{prefix}{path}" for path in wanted(tree)}
    blobs = await repository.blobs(names.values())
    return LocalFiles(tree, {path: blobs[name] for path, name in names.items()}, commit, prefix)


def _walk(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or path.is_file()]


def _read_folder(folder: Path, names: Iterable[str], wanted: Wanted, prefix: str = "") -> LocalFiles:
    """Read what is there of `names`; git lists a repository within a work tree, a submodule, as a folder."""
    there = {name: _entry(folder / name) for name in sorted({name.rstrip("/") for name in names})}
    tree = {name: entry for name, entry in there.items() if entry is not None}
    return LocalFiles(tree, {path: (folder / path).read_bytes() for path in wanted(tree)}, None, prefix)


def _entry(path: Path) -> Entry | None:
    try:
        status = path.lstat()
    except OSError:  # deleted, and git has not been told
        return None
    if stat.S_ISLNK(status.st_mode):
        return Entry(Kind.LINK)
    if stat.S_ISDIR(status.st_mode):
        return Entry(Kind.SUBMODULE)
    return Entry(Kind.FILE, status.st_size) if stat.S_ISREG(status.st_mode) else None
