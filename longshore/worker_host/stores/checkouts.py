"""A model's code on disk: the files of one commit below one path, and nothing else (PRD §6.2 step 4)."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path, PurePosixPath

import structlog

from longshore.schemas.failures import LongshoreError
from longshore.worker_host.breakers import Breaker
from longshore.worker_host.processes import in_thread
from longshore.worker_host.stores.mirrors import Mirrors
from longshore.worker_host.stores.shelves import Shelf, disk_errors

log = structlog.get_logger()

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class Checkouts:
    """Content-addressed by commit and path: the same commit of two repositories is the same code."""

    def __init__(self, root: Path, breaker: Breaker) -> None:
        self._shelf = Shelf(root / "checkouts")
        self._mirrors = Mirrors(root, breaker)

    async def materialise(self, repository: str, commit: str, path: str) -> Path:
        """Return the root of a checkout of `commit` (a full id) that holds the regular files below `path`.

        With `path` "src/" the root holds `src/…`; "." is the whole tree. What has been materialised before needs
        neither network nor git.
        Raises LongshoreError CODE_PATH_INVALID, REF_NOT_FOUND, AUTH_FAILED, GIT_UNREACHABLE, CIRCUIT_OPEN, DISK_FULL,
        IO_ERROR, PROGRAM_MISSING.
        """
        subtree = plain_relative(path)
        if not _COMMIT.fullmatch(commit):
            raise LongshoreError("REF_NOT_FOUND", f"{commit!r} is no full commit id")
        if repository.startswith("-"):
            raise LongshoreError("GIT_UNREACHABLE", f"{repository!r} is no address of a repository")
        key = f"{commit}-{hashlib.sha256(subtree.encode()).hexdigest()[:12]}"
        async with self._shelf.lock(key):
            if found := self._shelf.find(key):
                return found
            async with self._shelf.staging() as aside:
                tree = aside / "tree"
                tree.mkdir()
                await self._mirrors.materialise(repository, commit, subtree, tree)
                with disk_errors():
                    dropped = await in_thread(_drop_irregular, tree)
                if dropped:
                    log.warning("checkout_links_skipped", commit=commit, names=dropped[:10], count=len(dropped))
                return await self._shelf.put(tree, key)


def plain_relative(path: str) -> str:
    """Return `path` as git writes it ("" for the whole tree). Raises CODE_PATH_INVALID (FAULTS 37)."""
    parts = PurePosixPath(path).parts
    forbidden = (
        not path
        or path.startswith(("/", "-"))
        or "\\" in path
        or any(ord(character) < ord(" ") for character in path)
        or any(part == ".." or part.lower() == ".git" for part in parts)
    )
    if forbidden:
        raise LongshoreError("CODE_PATH_INVALID", f"{path!r} is no plain relative folder")
    return "/".join(parts)


def _drop_irregular(tree: Path) -> list[str]:
    """Remove the links, which may point anywhere, and the empty folders that submodules leave (FAULTS 38, 39)."""
    dropped = []
    for folder, folders, files in os.walk(tree, topdown=False):
        here = Path(folder)
        for name in (*folders, *files):
            entry = here / name
            if entry.is_symlink():
                entry.unlink()
                dropped.append(str(entry.relative_to(tree)))
            elif name in folders and not any(entry.iterdir()):
                entry.rmdir()
    return dropped
