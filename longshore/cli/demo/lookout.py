"""What goes on in the fleet while the demo waits for something: told device by device, as it is seen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from longshore.cli.demo import rollout
from longshore.cli.demo.load import Load
from longshore.cli.demo.processes import DemoFailed
from longshore.cli.demo.stage import Stage
from longshore.cli.demo.watching import Look
from longshore.schemas.plans import CauseKind
from longshore.schemas.reconciliations import Reconciliation

_Value = TypeVar("_Value")


class Lookout:
    """Tells what changes in the fleet, device by device, until something has come true."""

    def __init__(self, stage: Stage, loads: list[Load], look: Look, generation: int) -> None:
        self._stage = stage
        self._loads = loads
        self._health = look.health
        self._seen = rollout.states(look.models)
        self._generation = generation
        self._begun: dict[int, Reconciliation] = {}
        """What the fleet has begun unasked, by generation."""

    @classmethod
    async def begin(cls, stage: Stage, loads: list[Load]) -> Lookout:
        fleet = await stage.watcher.fleet()
        return cls(stage, loads, await stage.watcher.look(), fleet.generation if fleet else 0)

    def mending(self, worker_id: str) -> int:
        """Return the generation of the reconciliation that followed from the failure of a device."""
        for generation, begun in sorted(self._begun.items()):
            if begun.cause.kind is CauseKind.WORKER_FAILED and worker_id in begun.cause.workers:
                return generation
        raise DemoFailed(f"no reconciliation followed from the failure of {worker_id}")

    async def until(self, what: str, true: Callable[[Look], Awaitable[_Value | None]], limit: float) -> _Value:
        """Return the first true value of `true`. Raises DemoFailed after `limit` seconds."""
        deadline = time.monotonic() + limit
        with self._stage.screen.bars():
            while True:
                self._stage.processes.check()
                look = await self._stage.watcher.look()
                await self._tell(look)
                if value := await true(look):
                    return value
                if time.monotonic() > deadline:
                    raise DemoFailed(f"did not happen within {limit:g} s: {what}")
                await asyncio.sleep(rollout.LOOK)

    async def _tell(self, look: Look) -> None:
        screen = self._stage.screen
        requests, failed = sum(load.total for load in self._loads), sum(load.failed for load in self._loads)
        screen.bar("load", None, f"{requests} requests, {failed} failed")
        for worker_id, health in sorted(look.health.items()):
            if health is not self._health.get(worker_id):
                screen.say(f"{worker_id}  {health.upper()}")
        self._health = {**self._health, **look.health}
        fleet = await self._stage.watcher.fleet()
        for generation in range(self._generation + 1, fleet.generation + 1 if fleet else 0):
            if generation in self._begun:
                continue
            asked = await self._stage.watcher.reconciliation(generation)
            if asked is None:  # planned already, its workflow begins a moment later
                continue
            self._begun[generation] = asked
            screen.say(f"the fleet acts unasked: {asked.cause.words}")
            rollout.tell_plan(self._stage, asked.plan)
        self._seen = rollout.tell_changes(self._stage, self._seen, look.models)
