"""A circuit breaker per dependency: after five failures running, leave the service alone for a minute (PRD §8.3)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import structlog

from longshore.schemas.devices import BreakerReport, BreakerState
from longshore.schemas.failures import LongshoreError

log = structlog.get_logger()


class Breaker:
    """Counts the consecutive retriable failures of one service.

    Any other answer (a missing object, refused credentials) shows that the service is there, and resets the count.
    What says nothing about it (a cancellation, a defect of ours) changes nothing. Used from one event loop.
    """

    def __init__(
        self,
        name: str,
        *,
        threshold: int = 5,
        reset_after: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Both defaults are PRD §8.3's; `reset_after` and `clock` are in seconds, and the clock never goes back."""
        self.name = name
        self._threshold = threshold
        self._reset_after = reset_after
        self._clock = clock
        self._failures = 0
        self._opened_at: float | None = None
        self._probing = False

    @property
    def state(self) -> BreakerState:
        if self._opened_at is None:
            return BreakerState.CLOSED
        if self._clock() - self._opened_at < self._reset_after:
            return BreakerState.OPEN
        return BreakerState.HALF_OPEN

    @asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        """Let one operation through and learn from how it ends. Raises LongshoreError CIRCUIT_OPEN."""
        probe = self._admit()
        try:
            yield
        except LongshoreError as error:
            if error.failure.kind.retriable:
                self._failed(probe=probe)
            else:
                self._succeeded()
            raise
        else:
            self._succeeded()
        finally:
            if probe:
                self._probing = False

    def report(self, now: datetime | None = None) -> BreakerReport:
        """Return the state as the device reports it, its times by the wall clock `now`."""
        opened_at = None
        if self._opened_at is not None:
            opened_at = (now or datetime.now(UTC)) - timedelta(seconds=self._clock() - self._opened_at)
        return BreakerReport(
            name=self.name,
            state=self.state,
            failures=self._failures,
            opened_at=opened_at,
            next_try=opened_at and opened_at + timedelta(seconds=self._reset_after),
        )

    def _admit(self) -> bool:
        """Return whether the operation is the one probe of a half-open breaker; refuse it where none may pass."""
        state = self.state
        if state is BreakerState.CLOSED:
            return False
        if state is BreakerState.OPEN or self._probing:
            raise LongshoreError(
                "CIRCUIT_OPEN",
                f"{self.name} failed {self._failures} times running; it is left alone for {self._reset_after:g} s",
            )
        self._probing = True
        return True

    def _failed(self, *, probe: bool) -> None:
        self._failures += 1
        # An operation that was let through before the breaker opened must not prolong the pause when it fails late.
        if probe or (self._opened_at is None and self._failures >= self._threshold):
            self._opened_at = self._clock()
            log.warning("circuit_opened", breaker=self.name, failures=self._failures)

    def _succeeded(self) -> None:
        if self._opened_at is not None:
            log.info("circuit_closed", breaker=self.name)
        self._failures = 0
        self._opened_at = None
