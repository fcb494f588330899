"""The host's own queue: who may work on which deployment, and in what order (DESIGN §3 "Device workers").

A task is accepted from Temporal at once and waits here. One turn at a time per deployment; a bounded number of
heavy turns (LOAD, RELOAD) at a time on the device; an UNLOAD waits for its deployment only. A newcomer stops every
older turn of its deployment, unless that is past its point of no return.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum

from longshore.schemas.failures import LongshoreError


class Rank(IntEnum):
    """What goes first. Frees before it fills; a running model's new version before a new model."""

    DISABLE = 0
    UNLOAD = 1
    EVICT = 2
    RELOAD = 3
    LOAD = 4

    @property
    def heavy(self) -> bool:
        return self >= Rank.RELOAD


class Turn:
    """One attempt's place in the queue, and the handle by which it is stopped."""

    def __init__(self, deployment_id: str, generation: int, rank: Rank, priority: int = 0) -> None:
        self.deployment_id = deployment_id
        self.generation = generation
        self.rank = rank
        self.priority = priority
        self.task: asyncio.Task[object] | None = None
        """What `stop` cancels; set by whoever runs the attempt."""
        self.verdict: LongshoreError | None = None
        """Why it was stopped."""
        self.stopped = False
        self.committed = False
        self.heavy = rank.heavy
        self.granted = asyncio.Event()

    def stop(self, verdict: LongshoreError | None) -> None:
        """Cancel the attempt, unless it is past its point of no return or was stopped before."""
        if self.committed or self.stopped or self.task is None:
            return
        self.stopped = True
        self.verdict = verdict
        self.task.cancel()


class CommandQueue:
    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._arrivals = itertools.count()
        self._turns: dict[Turn, int] = {}
        """Every turn that has entered and not left, with its number of arrival."""
        self._waiting: set[Turn] = set()
        self._running: dict[str, Turn] = {}

    @property
    def turns(self) -> tuple[Turn, ...]:
        return tuple(self._turns)

    def busy(self, deployment_id: str) -> bool:
        return any(turn.deployment_id == deployment_id for turn in self._turns)

    def enter(self, turn: Turn) -> None:
        """Take a place, and stop the older turns of the same deployment.

        A lower generation has been SUPERSEDED. An equal one is another delivery of the same command: Temporal
        delivers again only when it has given the first one up, whose lease is FENCED by that.
        """
        for other in self.turns:
            if other.deployment_id != turn.deployment_id:
                continue
            if other.generation < turn.generation:
                message = f"generation {turn.generation} of {turn.deployment_id} overtook {other.generation}"
                other.stop(LongshoreError("SUPERSEDED", message))
            else:
                message = f"generation {turn.generation} of {turn.deployment_id} was delivered again"
                other.stop(LongshoreError("FENCED", message))
        self._turns[turn] = next(self._arrivals)

    def leave(self, turn: Turn) -> None:
        self._turns.pop(turn, None)

    @asynccontextmanager
    async def granted(self, turn: Turn) -> AsyncIterator[None]:
        """Hold the deployment (and a heavy place) while the block runs. The turn must have entered.

        A turn may be granted several times, one after the other: each time it waits anew, and can be stopped anew.
        """
        self._waiting.add(turn)
        try:
            self._grant()
            await turn.granted.wait()
            yield
        finally:
            self._waiting.discard(turn)
            if self._running.get(turn.deployment_id) is turn:
                del self._running[turn.deployment_id]
            turn.granted.clear()
            turn.committed = False
            turn.heavy = turn.rank.heavy
            self._grant()

    def commit(self, turn: Turn) -> None:
        """Pass the point of no return: nothing stops this turn any more, and what is left of it is light work."""
        turn.committed = True
        turn.heavy = False
        self._grant()

    def _grant(self) -> None:
        for turn in sorted(self._waiting, key=self._order):
            heavy = sum(running.heavy for running in self._running.values())
            if turn.deployment_id in self._running or (turn.heavy and heavy >= self._concurrency):
                continue
            self._waiting.discard(turn)
            self._running[turn.deployment_id] = turn
            turn.granted.set()

    def _order(self, turn: Turn) -> tuple[int, int, int]:
        return turn.rank, -turn.priority, self._turns[turn]
