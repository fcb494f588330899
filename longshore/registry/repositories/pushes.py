"""A push as git's `pre-receive` hook sees it: its objects in quarantine, its refs not yet moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from longshore.registry.repositories.git_process import git_environment
from longshore.registry.repositories.repository import BROKERS_OWN, Repository
from longshore.schemas.failures import LongshoreError
from longshore.schemas.wording import short

# Where git keeps the pushed objects until the hook has accepted them: for the processes that read them, and no other.
_QUARANTINE = ("GIT_QUARANTINE_PATH", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES")


@dataclass(frozen=True)
class RefUpdate:
    """One ref that a push would move. An id of zeros stands for a ref that is not there."""

    old: str
    new: str
    ref: str

    @property
    def creates(self) -> bool:
        return not self.old.strip("0")

    @property
    def deletes(self) -> bool:
        return not self.new.strip("0")


def read_updates(text: str) -> tuple[RefUpdate, ...]:
    """Read the lines `<old> <new> <ref>` that git gives to the hook."""
    return tuple(RefUpdate(*line.split(" ", 2)) for line in text.splitlines() if line)


def pushed_repository(inherited: Mapping[str, str]) -> Repository:
    """Return the repository of the hook that runs in the environment `inherited`, the pushed objects included."""
    quarantine = {name: inherited[name] for name in _QUARANTINE if name in inherited}
    return Repository(Path(inherited.get("GIT_DIR", ".")).absolute(), {**git_environment(inherited), **quarantine})


async def require_forward(repository: Repository, update: RefUpdate, branch: str) -> None:
    """Raise LongshoreError HISTORY_REWRITTEN where the update of `branch` would take away what is there."""
    if update.deletes:
        raise LongshoreError("HISTORY_REWRITTEN", f"{branch} is what Longshore follows: it cannot be deleted")
    if not update.creates and not await repository.is_ancestor(update.old, update.new):
        message = f"{short(update.new)} does not descend from {short(update.old)}, the head of {branch}"
        raise LongshoreError("HISTORY_REWRITTEN", message)


async def is_brokers_own(repository: Repository, update: RefUpdate) -> bool:
    """Tell whether everything that the push adds touches `transactions/` and `errors/` only.

    Each commit by itself, and the whole: a merge can bring back an old tree with no commit that says so.
    """
    if update.creates:
        return False
    effective = await repository.effective_head(update.new)
    if not await repository.is_ancestor(effective, update.old):
        return False
    return await _desired(repository, update.old) == await _desired(repository, update.new)


async def _desired(repository: Repository, commit: str) -> dict[str, str]:
    there = await repository.top(commit)
    return {name: found for name, found in there.items() if name not in BROKERS_OWN or " tree " not in found}
