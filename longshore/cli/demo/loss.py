"""A device loses its power while requests go on: its replicas move; it comes back, and what is too many goes."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

from longshore.cli.demo import rollout
from longshore.cli.demo.asking import AROUND, CONNECTIONS, DIGITS, FIVE, OK, OLD, PAUSE, REVIEW, SENTIMENT, ask, expect
from longshore.cli.demo.load import Load
from longshore.cli.demo.lookout import Lookout
from longshore.cli.demo.processes import DemoFailed
from longshore.cli.demo.report import Step, load_facts
from longshore.cli.demo.stage import Stage
from longshore.cli.demo.watching import Look
from longshore.schemas.commits import CommitOutcome
from longshore.schemas.devices import Health
from longshore.schemas.lifecycle import ModelState

MOVE_TIMEOUT = 120.0  # seconds from the loss until the replica is READY elsewhere; packages are fetched meanwhile
RETURN_TIMEOUT = 120.0  # seconds from switching it on until nothing is too many
WANTED = 2  # replicas, by its manifest


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
            await stack.aclose()
            step.facts["survivors"] = load_facts(*loads)
            _tell_load(stage, step.facts["survivors"])


async def _move(stage: Stage, lookout: Lookout, victim: str, survivor: str, step: Step) -> None:
    began = time.monotonic()

    def note(event: str) -> None:
        step.facts[event] = round(time.monotonic() - began, 3)

    killed = await stage.cut_power(victim)
    stage.screen.say(f"✗ {victim} has lost its power: {killed} processes killed (worker host, runners, Envoy)")

    async def failed(look: Look) -> bool:
        return look.health.get(victim) is Health.FAILED

    async def moved(look: Look) -> str | None:
        return next((worker_id for worker_id in _serving(look) if worker_id not in (victim, survivor)), None)

    await lookout.until(f"{victim} counts as failed", failed, MOVE_TIMEOUT)
    note("failed")
    heir = await lookout.until(f"{DIGITS} is READY on another device", moved, MOVE_TIMEOUT)
    note("ready_elsewhere")
    answer = await ask(stage.data_url(heir), DIGITS, FIVE)
    expect(answer, OK, OLD)
    stage.screen.good(f"{heir} {DIGITS} {answer.headers['x-model-version']}: {answer.text}")
    step.facts |= {"from": victim, "to": heir, "reconciliation": lookout.mending(victim)}
    result = await asyncio.wait_for(stage.watcher.mended(lookout.mending(victim)), MOVE_TIMEOUT)
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
        whole = len(look.health) == len(stage.watcher.workers)  # else one did not answer in time
        if whole and len(ready) < WANTED:
            raise DemoFailed(f"{DIGITS} should always serve on {WANTED} devices: it serves on {ready}")
        healthy = set(look.health.values()) == {Health.HEALTHY}
        return whole and healthy and len(ready) == WANTED and await rollout.is_agreed(stage)

    await lookout.until("all devices are there, and no replica is too many", is_as_before, RETURN_TIMEOUT)
    step.facts |= {"as_wanted": round(time.monotonic() - began, 3), "most_replicas": most}
    holders = await rollout.holders(stage, DIGITS)
    stage.screen.good(f"{DIGITS} serves on {' and '.join(holders)}, and was never on fewer devices than {WANTED}")


def _serving(look: Look) -> list[str]:
    """Return the devices on which the deployment is READY, without one that counts as failed."""
    return sorted(
        worker_id
        for (worker_id, deployment), model in look.models.items()
        if deployment == DIGITS and model.state is ModelState.READY and look.health[worker_id] is not Health.FAILED
    )


def _tell_load(stage: Stage, facts: dict[str, Any]) -> None:
    if facts["failed"] or set(facts["versions"]) != {OLD}:
        raise DemoFailed(f"requests to devices that stayed have failed: {facts['outcomes']}")
    latency = f"p50 {facts['p50_ms']:g} ms, p99 {facts['p99_ms']:g} ms"
    stage.screen.good(f"{facts['requests']} requests to the devices that stayed, {facts['failed']} failed; {latency}")
