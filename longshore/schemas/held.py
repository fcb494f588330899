"""Commits that change nothing until an operator has accepted them (FAULTS 17 and 20), and how that list moves.

The functions are pure and live here, not in `planning`, for the ledger's reason: the FleetWorkflow applies them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime

from longshore.schemas.base import Message
from longshore.schemas.failures import LongshoreError
from longshore.schemas.wording import short

VERBS = {"HISTORY_REWRITTEN": "accept-history", "MASS_UNLOAD_BLOCKED": "accept-unload"}
"""By the code that holds a commit back: the `longshore` command that accepts it."""

# Git's own least is 4; the rest of an id is typed for safety, not for need.
_COMMIT_ID = re.compile(r"[0-9a-f]{4,64}")

# A person looks through them, and they travel with every plan: a few hundred bytes each.
HELD_KEPT = 20

LONGEST_NAME = 200


class Acceptance(Message):
    """An operator's word: carry this commit out all the same. The fields are loose, so that what is wrong is told."""

    sha: str = ""
    """The full id, or the first digits of it where they mean one waiting commit only."""
    code: str = ""
    """What is accepted: one of `VERBS`."""
    by: str = ""
    """Who says so, for the audit trail: `user@host` from our command line."""


class Accepted(Message):
    sha: str
    code: str
    by: str
    at: datetime

    def __str__(self) -> str:
        which = f"{self.code} of {short(self.sha)}"
        return f"{which} accepted by {self.by} at {self.at:%Y-%m-%d %H:%M:%S} UTC"


class HeldBack(Message):
    """One reason for which one commit waits; a commit may have two, one after the other."""

    sha: str
    code: str
    reason: str
    """A sentence about the commit, without its subject: `would unload 6 of 8 replicas …`."""
    run_id: str
    """The run of the commit's workflow that was told so. The next one starts when it has ended."""
    since: datetime
    accepted: Accepted | None = None
    due: bool = False
    """Whether the commit's workflow is still to be started again."""

    @property
    def command(self) -> str:
        return f"longshore {VERBS[self.code]} {self.sha}"

    @property
    def what_next(self) -> str:
        return f"{self.accepted}; its workflow is started again" if self.accepted else self.command


def hold(held: tuple[HeldBack, ...], new: HeldBack) -> tuple[HeldBack, ...]:
    """Return the list with `new` as its youngest; the oldest gives way.

    What was accepted while that commit was being planned stays accepted, and the commit is to be started again.
    """
    before = _find(held, new)
    if before is not None and before.accepted is not None:
        new = new.model_copy(update={"accepted": before.accepted, "due": True})
    others = tuple(one for one in held if one is not before)
    return (*others, new)[-HELD_KEPT:]


def accept(held: tuple[HeldBack, ...], accepted: Accepted) -> tuple[HeldBack, ...]:
    """Return the list with `accepted` noted, whose commit is to be started again. The first acceptance counts."""
    return tuple(
        one.model_copy(update={"accepted": one.accepted or accepted, "due": True})
        if (one.sha, one.code) == (accepted.sha, accepted.code)
        else one
        for one in held
    )


def started(held: tuple[HeldBack, ...], again: HeldBack) -> tuple[HeldBack, ...]:
    """Return the list once the commit of `again` has been started; held back anew meanwhile, it stays due."""
    return tuple(
        one.model_copy(update={"due": False})
        if (one.sha, one.code, one.run_id) == (again.sha, again.code, again.run_id)
        else one
        for one in held
    )


def after_plan(held: tuple[HeldBack, ...], descendants: Collection[str]) -> tuple[HeldBack, ...]:
    """Return what of the list matters once a commit is planned: only what descends from it, to be looked at again.

    The planned commit and its ancestors are done with. Any other line was left behind, and its acceptances were given
    against something that no longer runs.
    """
    return tuple(one.model_copy(update={"due": True}) for one in held if one.sha in descendants)


def named(held: tuple[HeldBack, ...], acceptance: Acceptance) -> HeldBack:
    """Return the one that is meant. Raises LongshoreError COMMIT_NOT_HELD, REF_AMBIGUOUS."""
    if acceptance.code not in VERBS:
        raise LongshoreError("COMMIT_NOT_HELD", f"{acceptance.code!r} is none of {', '.join(VERBS)}")
    if not _COMMIT_ID.fullmatch(acceptance.sha):
        raise LongshoreError("COMMIT_NOT_HELD", f"{acceptance.sha!r} is no commit id: 4 digits or more of 0-9a-f")
    meant = [one for one in held if one.sha.startswith(acceptance.sha)]
    found = [one for one in meant if one.code == acceptance.code]
    if len(found) > 1:
        shas = ", ".join(one.sha for one in found)
        raise LongshoreError("REF_AMBIGUOUS", f"{acceptance.sha} may be each of {shas}")
    if not found:
        otherwise = "".join(f"; {short(one.sha)} waits for `{one.command}`" for one in meant)
        raise LongshoreError("COMMIT_NOT_HELD", f"{acceptance.code} holds back no commit {acceptance.sha}{otherwise}")
    return found[0]


def check_name(acceptance: Acceptance) -> None:
    """Raise ValueError where the audit trail could not say who accepted."""
    if not acceptance.by.strip() or len(acceptance.by) > LONGEST_NAME or not acceptance.by.isprintable():
        raise ValueError(f"`by` says who accepts: up to {LONGEST_NAME} printable characters, such as olga@example.com")


def _find(held: tuple[HeldBack, ...], like: HeldBack) -> HeldBack | None:
    return next((one for one in held if (one.sha, one.code) == (like.sha, like.code)), None)
