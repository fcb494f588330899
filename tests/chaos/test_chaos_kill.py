"""kill -9 of each part in the middle of a LOAD, while another model is under load (PRD §11.3).

Always the same claims: the rollout still ends READY, nothing is loaded twice, no runner is orphaned, and the other
model loses no request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest
from system import System, eventually

from longshore.cli.demo.load import Load
from longshore.schemas.commits import CommitOutcome
from longshore.schemas.lifecycle import ModelState

pytestmark = pytest.mark.chaos

WORKER = "worker-a"


@pytest.fixture
async def serving(system: System) -> System:
    """One device that serves `steady`; a commit that brings the slow `late` is ready to be pushed."""
    system.start_worker(WORKER)
    system.model.release("1.0.0", factor=10)
    system.model.release("2.0.0", factor=20, load_seconds=6)
    system.registry.deployment("steady", system.model, "1.0.0")
    result = await system.outcome(system.registry.push("Deploy steady"))
    assert result.outcome is CommitOutcome.APPLIED, result.summary
    system.registry.deployment("late", system.model, "2.0.0")
    return system


@asynccontextmanager
async def steady_load(system: System) -> AsyncIterator[Load]:
    url = f"http://127.0.0.1:{system.data_ports[WORKER]}/infer/steady"
    async with Load(url, {"x": 1}, connections=4) as load:
        yield load


async def load_begins(system: System) -> str:
    """Push the commit and wait until the LOAD of `late` has started its runner."""
    sha = system.registry.push("Deploy late")
    before = len(system.runners())

    async def starting() -> bool:
        return len(system.runners()) > before

    await eventually(starting, "the runner of late starts")
    return sha


async def ends_ready(system: System, sha: str) -> None:
    result = await system.outcome(sha, timeout=180)
    assert result.outcome is CommitOutcome.APPLIED, result.summary
    await system.reaches(WORKER, "late", ModelState.READY)
    await system.reaches(WORKER, "steady", ModelState.READY)
    assert len(system.runners()) == 2, "one runner for each model, none twice, none orphaned"


def lost(load: Load) -> dict[str, int]:
    """Everything that was not a 200."""
    return {outcome: count for outcome, count in load.outcomes.items() if outcome != "200"}


async def test_the_broker(serving: System) -> None:
    """Another broker process takes over where the killed one was."""
    async with steady_load(serving) as load:
        sha = await load_begins(serving)
        serving.processes["broker"].kill()
        serving.restart("broker")
        await ends_ready(serving, sha)
    assert not lost(load)


async def test_the_temporal_server(serving: System) -> None:
    """The embedded server comes back with its database file, and the rollout goes on."""
    async with steady_load(serving) as load:
        sha = await load_begins(serving)
        serving.processes["temporal"].kill()
        serving.restart("temporal")
        await ends_ready(serving, sha)
    assert not lost(load)


async def test_the_worker_host(serving: System) -> None:
    """A worker host that is killed and started again adopts its runners; Envoy serves all the while."""
    before = {process.pid for process in serving.runners()}
    async with steady_load(serving) as load:
        sha = await load_begins(serving)
        serving.processes[WORKER].kill()
        serving.restart(WORKER)
        await ends_ready(serving, sha)
    assert not lost(load)
    assert before <= {process.pid for process in serving.runners()}, "steady's runner was adopted, not started again"


async def test_envoy(serving: System) -> None:
    """Envoy is restarted with the last good configuration; only its own restart costs requests."""
    (envoy,) = [process for process in serving.descendants() if "envoy" in process.info["cmdline"][0]]
    async with steady_load(serving) as load:
        sha = await load_begins(serving)
        psutil.Process(envoy.pid).kill()
        await ends_ready(serving, sha)
        await load.settle()
        after = load.mark()
        await load.more(500)
    assert not {outcome for outcome in load.since(after) if outcome != "200"}
    assert not {outcome for outcome in lost(load) if outcome.isdigit()}, "refused connections, but no wrong answer"


async def test_the_runner_that_is_being_loaded(serving: System) -> None:
    """The LOAD is tried again after its backoff; the other model notices nothing."""
    before = {process.pid for process in serving.runners()}
    async with steady_load(serving) as load:
        sha = await load_begins(serving)
        for process in serving.runners():
            if process.pid not in before:
                process.kill()
        await ends_ready(serving, sha)
    assert not lost(load)


async def test_a_runner_that_serves(serving: System) -> None:
    """A READY model whose runner dies is brought back without a command."""
    (runner,) = serving.runners()
    runner.kill()

    async def another() -> bool:
        return any(process.pid != runner.pid for process in serving.runners())

    await eventually(another, "another runner is started")
    await serving.reaches(WORKER, "steady", ModelState.READY)
    async with steady_load(serving) as load:
        await load.more(200)
    assert not lost(load)
