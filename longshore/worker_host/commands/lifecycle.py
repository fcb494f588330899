"""The life of one model on one device, as one table (PRD §6.1).

Two pairs differ from the PRD's drawing, for the reasons of DESIGN §5:

- a RELOAD that fails goes back to READY, because the old version still serves; FAILED means "serves nothing";
- a model whose runner dies goes back to LOADING, because it is being brought up again.

LOADING, RELOADING and UNLOADING accept the event that led to them: a repeated delivery starts over from there.
"""

from __future__ import annotations

from enum import StrEnum

from longshore.schemas.failures import LongshoreError
from longshore.schemas.lifecycle import ModelState


class Event(StrEnum):
    LOAD = "load"
    LOADED = "loaded"
    RELOAD = "reload"
    RELOADED = "reloaded"
    KEPT = "kept"
    """A RELOAD failed or was stopped; the old version stays."""
    UNLOAD = "unload"
    UNLOADED = "unloaded"
    STOPPED = "stopped"
    """A LOAD was stopped before it served, and nothing is wrong: superseded, cancelled, host restart."""
    CRASHED = "crashed"
    """The runner died, or was not there after a reboot."""
    FAILED = "failed"


_S, _E = ModelState, Event

TABLE: dict[tuple[ModelState, Event], ModelState] = {
    (_S.IDLE, _E.LOAD): _S.LOADING,
    (_S.IDLE, _E.UNLOAD): _S.UNLOADING,
    (_S.IDLE, _E.FAILED): _S.FAILED,
    (_S.LOADING, _E.LOAD): _S.LOADING,
    (_S.LOADING, _E.LOADED): _S.READY,
    (_S.LOADING, _E.STOPPED): _S.IDLE,
    (_S.LOADING, _E.CRASHED): _S.LOADING,
    (_S.LOADING, _E.UNLOAD): _S.UNLOADING,
    (_S.LOADING, _E.FAILED): _S.FAILED,
    (_S.READY, _E.RELOAD): _S.RELOADING,
    (_S.READY, _E.UNLOAD): _S.UNLOADING,
    (_S.READY, _E.CRASHED): _S.LOADING,
    (_S.RELOADING, _E.RELOAD): _S.RELOADING,
    (_S.RELOADING, _E.RELOADED): _S.READY,
    (_S.RELOADING, _E.KEPT): _S.READY,
    (_S.UNLOADING, _E.UNLOAD): _S.UNLOADING,
    (_S.UNLOADING, _E.UNLOADED): _S.IDLE,
    (_S.UNLOADING, _E.FAILED): _S.FAILED,
    (_S.FAILED, _E.LOAD): _S.LOADING,
    (_S.FAILED, _E.UNLOAD): _S.UNLOADING,
    (_S.FAILED, _E.CRASHED): _S.LOADING,
    (_S.FAILED, _E.FAILED): _S.FAILED,
}


def after(state: ModelState, event: Event) -> ModelState:
    """Return the state that `event` leads to. Raises LongshoreError ILLEGAL_STATE where the table has no such pair."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise LongshoreError("ILLEGAL_STATE", f"a model that is {state} cannot be {event}") from None
