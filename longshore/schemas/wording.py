"""How our sentences say how many, which ones and of which commit: the same everywhere. Pure."""

from __future__ import annotations

from collections.abc import Sequence

# Enough of a commit's id to find it by in any registry of ours, and as much as a line has room for.
_SHORT = 10


def counted(number: int, noun: str) -> str:
    """Return `1 device`, `2 devices`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(names: Sequence[str], shown: int | None = None) -> str:
    """Return `a`, `a and b`, `a, b and c`; of more than `shown` names the first ones, and how many more there are."""
    if shown is not None and len(names) > shown:
        names = [*names[:shown], f"{len(names) - shown} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def short(sha: str | None) -> str:
    """Return the first digits of a commit's id; `none` where there is no commit."""
    return sha[:_SHORT] if sha else "none"
