"""The named steps of a command (PRD §6.2): what logs, progress and timings call them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self

import structlog

from longshore.schemas.commands import BEFORE_TAKE_DOWN, CommandProgress
from longshore.schemas.failures import LongshoreError

log = structlog.get_logger()

# The PRD's twelve. Initialisation and processing set-up both happen while the runner starts; the checksum is
# computed while the artifact arrives, and looked at afterwards.
BRING_UP = (
    "code_checkout",
    "environment_preparation",
    "artifact_download",
    "checksum_validation",
    "model_initialization",
    "model_validation",
)
LOAD = (
    "command_validation",
    "schema_compatibility_check",
    "state_loading",
    *BRING_UP,
    "route_flip",
    "state_ready",
    "capacity_update",
)
RELOAD = (
    "command_validation",
    "schema_compatibility_check",
    "state_reloading",
    *BRING_UP,
    "atomic_swap",
    "old_version_cleanup",
    "state_ready",
)
# A RELOAD that takes the old version down first: what can be brought here beforehand is, so that the gap is short.
RECREATE = (
    *BEFORE_TAKE_DOWN,
    "state_unloading",
    "traffic_draining",
    "in_flight_completion",
    "state_loading",
    "model_initialization",
    "model_validation",
    "route_flip",
    "state_ready",
    "capacity_update",
)
UNLOAD = (
    "state_unloading",
    "traffic_draining",
    "in_flight_completion",
    "resource_cleanup",
    "model_removal",
)


# These run at once.
_FETCHING = ("code_checkout", "environment_preparation", "artifact_download")


def timings(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return `load_seconds` and `fetch_seconds` of a completed command; nothing where it brought no model up."""
    if "model_initialization" not in seconds:
        return {}
    fetching = [seconds[name] for name in _FETCHING if name in seconds]
    fetch = max(fetching, default=0.0)
    whole = sum(seconds.values()) - sum(fetching) + fetch
    return {"load_seconds": round(whole, 3), "fetch_seconds": round(fetch, 3)}


class Steps:
    """Counts the steps of one attempt. Steps may overlap; progress is the share of those that are done."""

    def __init__(self, beat: Callable[[CommandProgress], None]) -> None:
        self.seconds: dict[str, float] = {}
        self.progress = CommandProgress(step="queued", progress=0.0)
        self._names: tuple[str, ...] = ()
        self._beat = beat
        self._done = 0

    def follow(self, names: Sequence[str]) -> Self:
        """Set what is going to happen, once it is known."""
        self._names = tuple(names)
        return self

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Run one step. An error that does not say in which step it arose leaves with this one's name."""
        self._tell(name)
        log.debug("step_started", step=name)
        start = time.perf_counter()
        try:
            yield
        except LongshoreError as error:
            if error.failure.step is not None:
                raise
            failure = error.failure
            raise LongshoreError(failure.code, failure.message, step=name, details=failure.details) from error
        finally:
            self.seconds[name] = round(time.perf_counter() - start, 4)
        self._done += 1
        log.debug("step_completed", step=name, seconds=self.seconds[name])

    def detail(self, name: str, text: str) -> None:
        """Say how far a step is, in words: `12 of 300 MB`."""
        self._tell(name, text)

    def _tell(self, name: str, text: str = "") -> None:
        share = min(self._done / max(len(self._names), 1), 1.0)
        self.progress = CommandProgress(step=name, progress=round(share, 3), detail=text)
        self._beat(self.progress)
