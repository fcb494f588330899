"""The states of one model on one device (PRD §6.1). What leads from one to the next is the device's table."""

from __future__ import annotations

from enum import StrEnum


class ModelState(StrEnum):
    IDLE = "idle"
    LOADING = "loading"
    READY = "ready"
    RELOADING = "reloading"
    UNLOADING = "unloading"
    FAILED = "failed"
    """Serves nothing. A failed RELOAD is not this: the old version stays READY (DESIGN §5)."""


COMING = frozenset({ModelState.LOADING, ModelState.RELOADING})
"""A version is on its way there."""

IN_FLIGHT = COMING | {ModelState.UNLOADING}
"""A command is under way: the device has not answered yet."""

SERVING = frozenset({ModelState.READY, ModelState.RELOADING})
"""Some version answers requests."""
