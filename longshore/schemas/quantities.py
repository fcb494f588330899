"""Amounts of memory as people write them (`4Gi`, `512Mi`: PRD §3.1, §3.3) and as we reckon with them (bytes)."""

from __future__ import annotations

import re

_UNITS = {"Mi": 1024**2, "Gi": 1024**3}
_MEMORY = re.compile(r"([0-9]+)(Mi|Gi)")


def parse_memory(text: str) -> int:
    """Return the bytes that `text` (`512Mi`, `16Gi`) stands for. Raises ValueError for anything else."""
    match = _MEMORY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an amount of memory such as 512Mi or 16Gi")
    return int(match[1]) * _UNITS[match[2]]


def format_memory(amount: int) -> str:
    """Return `amount` bytes as `4Gi` where that is exact, else rounded up to whole `Mi`."""
    gibibytes, rest = divmod(amount, _UNITS["Gi"])
    if not rest:
        return f"{gibibytes}Gi"
    return f"{-(-amount // _UNITS['Mi'])}Mi"
