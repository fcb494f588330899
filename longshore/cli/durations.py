"""Durations as people write them: `30s`, `5m`, `1h30m`, `250ms`, or a number of seconds."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = r"([0-9]+(?:\.[0-9]+)?)(ms|d|h|m|s)"
_DURATION = re.compile(rf"(?:{_PART})+")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def parse_duration(text: str) -> timedelta:
    """Return what `text` stands for. Raises ValueError for anything else."""
    if _NUMBER.fullmatch(text):
        return timedelta(seconds=float(text))
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is no duration such as 30s, 5m or 1h")
    return timedelta(seconds=sum(float(amount) * _UNITS[unit] for amount, unit in re.findall(_PART, text)))


def format_duration(duration: timedelta) -> str:
    """Return the shortest text that `parse_duration` reads as `duration`, to the millisecond."""
    milliseconds = round(duration.total_seconds() * 1000)
    parts = []
    for unit, seconds in _UNITS.items():
        amount, milliseconds = divmod(milliseconds, round(seconds * 1000))
        if amount:
            parts.append(f"{amount}{unit}")
    return "".join(parts) or "0s"
