"""A device loses its power while requests go on: its replicas move; it comes back, and what is too many goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from longshore.cli.demo import rollout
from longshore.cli.demo.asking import AROUND, CONNECTIONS, DIGITS, FIVE, OK, OLD, PAUSE, REVIEW, SENTIMENT, ask, expect
from longshore.cli.demo.load import Load
from longshore.cli.demo.processes import DemoFailed
from longshore.cli.demo.report import Step, load_facts
from longshore.cli.demo.stage import Stage
from longshore.cli.demo.watching import Look
from longshore.schemas.commits import CommitOutcome
from longshore.schemas.devices import Health
from longshore.schemas.lifecycle import ModelState

MOVE_TIMEOUT = 120.0  # seconds from the loss until the replica is READY elsewhere; packages are fetched meanwhile
RETURN_TIMEOUT = 120.0  # seconds from switching it on until nothing is too many
THERE = {Health.HEALTHY, Health.RECOVERING}

_Value = TypeVar("_Value")


async def lose(stage: Stage) -> None:
    """Lose a device of the deployment that runs on two of three; its replica must move, and nobody lose a request."""
    screen = stage.screen
    screen.act("Lose a device under load: what ran there moves, the others notice nothing")
    victim, survivor = await rollout.holders(stage, DIGITS)
    others = [worker_id for worker_id in await rollout.holders(stage, SENTIMENT) if worker_id != victim]
    asked = [(worker_id, SENTIMENT, REVIEW) for worker_id in others] + [(survivor, DIGITS, FIVE)]
    async with AsyncExitStack() as stack:
        loads = [
            await stack.enter_async_context(
                Load(f"{stage.data_url(worker_id)}/infer/{deployment}", document, CONNECTIONS, pause=PAUSE)
            )
            for worker_id, deployment, document in asked
        ]
        for load in loads:
            await load.more(AROUND)
        screen.say(f"load: {len(loads) * CONNECTIONS} connections to the devices that will stay, all answer")
        lookout = await Lookout.begin(stage, loads)
        with stage.report.step("device lost → its replica READY elsewhere") as step:
            await _move(stage, lookout, victim, survivor, step)
        with stage.report.step("device back → what is too many is gone") as step:
            await _return(stage, lookout, victim, step)
            for load in loads:
                await load.more(AROUND)
            step.facts["survivors"] = load_facts(*loads)
    _tell_load(stage, step.facts["survivors"])


class Lookout:
    """Tells what changes in the fleet, device by device, until something has come true."""

    def __init__(self, stage: Stage, loads: list[Load], look: Look, generation: int) -> None:
        self._stage = stage
        self._loads = loads
        self._health = look.health
        self._seen = rollout.states(look.models)
        self._generation = generation
        self.causes: dict[int, str] = {}
        """What the fleet has begun unasked, by generation, and why."""

    @classmethod
    async def begin(cls, stage: Stage, loads: list[Load]) -> Lookout:
        fleet = await stage.watcher.fleet()
        return cls(stage, loads, await stage.watcher.look(), fleet.generation if fleet else 0)

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
        self._health = look.health
        fleet = await self._stage.watcher.fleet()
        for generation in range(self._generation + 1, fleet.generation + 1 if fleet else 0):
            if generation in self.causes:
                continue
            asked = await self._stage.watcher.reconciliation(generation)
            if asked is None:  # planned already, its workflow begins a moment later
                continue
            self.causes[generation] = asked.cause.words
            screen.say(f"the fleet acts unasked: {asked.cause.words}")
            rollout.tell_plan(self._stage, asked.plan)
        self._seen = rollout.tell_changes(self._stage, self._seen, look.models)


async def _move(stage: Stage, lookout: Lookout, victim: str, survivor: str, step: Step) -> None:
    began = time.monotonic()

    def note(event: str) -> None:
        step.facts[event] = round(time.monotonic() - began, 3)

    killed = await stage.cut_power(victim)
    stage.screen.say(f"✗ {victim} has lost its power: {killed} processes killed (worker host, runners, Envoy)")

    async def failed(look: Look) -> bool:
        return look.health[victim] is Health.FAILED

    async def moved(look: Look) -> str | None:
        return next((worker_id for worker_id in _serving(look) if worker_id not in (victim, survivor)), None)

    await lookout.until(f"{victim} counts as failed", failed, MOVE_TIMEOUT)
    note("failed")
    heir = await lookout.until(f"{DIGITS} is READY on another device", moved, MOVE_TIMEOUT)
    note("ready_elsewhere")
    answer = await ask(stage.data_url(heir), DIGITS, FIVE)
    expect(answer, OK, OLD)
    stage.screen.good(f"{heir} {DIGITS} {answer.headers['x-model-version']}: {answer.text}")
    step.facts |= {"from": victim, "to": heir, "reconciliation": min(lookout.causes)}
    result = await asyncio.wait_for(stage.watcher.mended(min(lookout.causes)), MOVE_TIMEOUT)
    note("recorded")
    stage.screen.good(f"reconciliation {result.generation}: {result.summary}")
    for said in result.answers:
        stage.screen.say(f"      {said.deployment_id}: {said.outcome}: {said.message}")
    if result.outcome not in (CommitOutcome.APPLIED, CommitOutcome.PARTLY_APPLIED):
        raise DemoFailed(f"reconciliation {result.generation} ended otherwise: {result.summary}")
    stage.screen.good(f"written to git: errors/{stage.registry.errors()[-1]}")


async def _return(stage: Stage, lookout: Lookout, victim: str, step: Step) -> None:
    began = time.monotonic()
    await stage.switch_on(victim)
    most = 0

    async def is_as_before(look: Look) -> bool:
        nonlocal most
        ready = _serving(look)
        most = max(most, len(ready))
        if len(ready) < 2:  # noqa: PLR2004 (what its manifest wants)
            raise DemoFailed(f"{DIGITS} should never serve on less than two devices: it serves on {ready}")
        whole = set(look.health.values()) == {Health.HEALTHY}
        return whole and len(ready) == 2 and await rollout.is_agreed(stage)  # noqa: PLR2004 (as above)

    await lookout.until("all devices are there, and no replica is too many", is_as_before, RETURN_TIMEOUT)
    step.facts |= {"as_wanted": round(time.monotonic() - began, 3), "most_replicas": most}
    holders = await rollout.holders(stage, DIGITS)
    stage.screen.good(f"{DIGITS} serves on {' and '.join(holders)}, and was never on less than two devices")


def _serving(look: Look) -> list[str]:
    """Return the devices on which the deployment is READY, without those of which nothing is heard."""
    return sorted(
        worker_id
        for (worker_id, deployment), model in look.models.items()
        if deployment == DIGITS and model.state is ModelState.READY and look.health[worker_id] in THERE
    )


def _tell_load(stage: Stage, facts: dict[str, Any]) -> None:
    if facts["failed"] or set(facts["versions"]) != {OLD}:
        raise DemoFailed(f"requests to devices that stayed have failed: {facts['outcomes']}")
    latency = f"p50 {facts['p50_ms']:g} ms, p99 {facts['p99_ms']:g} ms"
    stage.screen.good(f"{facts['requests']} requests to the devices that stayed, {facts['failed']} failed; {latency}")
