"""Virtual time: one heap of (time, number, what happens then), and what is written down of it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random

_BEGIN = datetime(2026, 11, 1, tzinfo=UTC)

# The part of all messages that take their time.
_LATE = 0.12


class Broken(AssertionError):
    """An invariant does not hold."""


class Clock:
    def __init__(self, chance: Random) -> None:
        """`chance` decides how long everything takes."""
        self.seconds = 0.0
        self.chance = chance
        self.trace: list[tuple[float, str, str]] = []
        """Seconds, who, what."""
        self._heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._numbers = itertools.count()

    @property
    def now(self) -> datetime:
        return _BEGIN + timedelta(seconds=self.seconds)

    def seconds_at(self, moment: datetime) -> float:
        return (moment - _BEGIN).total_seconds()

    def after(self, seconds: float, happens: Callable[..., None], *args: object) -> None:
        entry = (self.seconds + max(0.0, seconds), next(self._numbers), happens, args)
        heapq.heappush(self._heap, entry)

    def soon(self, happens: Callable[..., None], *args: object, latest: float = 40.0) -> None:
        """Let it happen after as long as a message takes: mostly at once, sometimes late."""
        late = self.chance.random() < _LATE
        self.after(self.chance.uniform(1, latest) if late else self.chance.uniform(0.01, 0.4), happens, *args)

    def step(self) -> bool:
        """Let the next thing happen; return whether there was one."""
        if not self._heap:
            return False
        self.seconds, _, happens, args = heapq.heappop(self._heap)
        happens(*args)
        return True

    @property
    def next_at(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def tell(self, who: str, what: str) -> None:
        self.trace.append((self.seconds, who, what))

    def broken(self, what: str) -> None:
        self.tell("BROKEN", what)
        raise Broken(f"at {self.seconds:.2f} s: {what}")
