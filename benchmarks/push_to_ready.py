"""From `git push` of a cached version to all three replicas answering with it.

Prints p50 and max over the pushes, beside the floor measured in the same run: the same number of no-op activities
through the same Temporal server, plus one start of a runner process.

    python3 dev.py bench push_to_ready [--pushes 20] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
import uuid
from pathlib import Path

import httpx2
from floor import FloorWorkflow, no_op
from system import System
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from longshore.worker_host.journal import Journal
from longshore.worker_host.runners.instances import Instance, RunPaths, new_instance_id
from longshore.worker_host.runners.supervisor import Supervisor
from longshore.worker_host.runners.support import Support
from longshore.worker_host.state_dir import StateDir
from longshore.workflows import conventions

RUNNER_STARTS = 5
ASK_AGAIN = 0.02  # seconds; asking takes the CPU that the system under test needs
WORKERS = ("worker-a", "worker-b", "worker-c")


async def activities_of(system: System, sha: str) -> int:
    """Count the activities that a commit and its rollout scheduled (from their histories)."""
    client = await system.client()
    scheduled = 0
    for workflow_id in (
        conventions.commit_workflow_id("registry", sha),
        conventions.rollout_workflow_id("ten"),
    ):
        history = await client.get_workflow_handle(workflow_id).fetch_history()
        scheduled += sum(event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED for event in history.events)
    return scheduled + 1  # the fleet's planning activity


async def floor(client: Client, in_a_row: int, runs: int) -> list[float]:
    """Seconds of `runs` workflows of no-op activities."""
    queue = f"floor-{uuid.uuid4().hex}"
    seconds = []
    async with Worker(
        client,
        task_queue=queue,
        workflows=[FloorWorkflow],
        activities=[no_op],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        for _ in range(runs):
            start = time.perf_counter()
            await client.execute_workflow(
                FloorWorkflow.run, args=[in_a_row, len(WORKERS)], id=f"floor-{uuid.uuid4().hex}", task_queue=queue
            )
            seconds.append(time.perf_counter() - start)
    return seconds


async def runner_start(supervisor: Supervisor, template: Instance) -> float:
    """Return the seconds from spawn to "loaded and answering" of a runner like those that serve."""
    instance = template.model_copy(update={"instance_id": new_instance_id()})
    start = time.perf_counter()
    await supervisor.start(instance)
    seconds = time.perf_counter() - start
    await supervisor.stop(instance.instance_id)
    return seconds


async def runner_starts(system: System, times: int) -> list[float]:
    """Start a runner a few times, from what worker-a has in its caches, one after the other."""
    state = StateDir(system.root / "worker-a")
    template = Journal(state.journal).all()[0]
    paths = RunPaths(system.root / "floor")
    paths.create()
    store = Journal(system.root / "floor.sqlite")
    supervisor = Supervisor(
        paths, store, start_timeout=60, drain_timeout=5, on_exit=print, support=Support(state.cache / "support")
    )
    return [await runner_start(supervisor, template) for _ in range(times)]


async def answers_with(system: System, version: str) -> None:
    """Return once every device answers with `version`."""

    async def one(worker_id: str) -> None:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{system.data_ports[worker_id]}") as client:
            while True:
                answer = await client.post("/infer/ten", json={"x": 1})
                if answer.status_code == httpx2.codes.OK and answer.headers["x-model-version"] == version:
                    return
                await asyncio.sleep(ASK_AGAIN)

    await asyncio.gather(*(one(worker_id) for worker_id in WORKERS))


async def measure(pushes: int) -> dict[str, object]:
    """Run the whole benchmark on a system of its own."""
    system = System()
    try:
        system.start_temporal()
        system.start_broker()
        for worker_id in WORKERS:
            system.start_worker(worker_id)
        versions = ("1.0.0", "1.1.0")
        for version in versions:
            system.model.release(version, factor=1)
            system.registry.deployment("ten", system.model, version, replicas=3)
            await system.outcome(system.registry.push(f"Warm {version}"))
        seconds = []
        sha = ""
        for number in range(pushes):
            version = versions[number % 2]
            system.registry.deployment("ten", system.model, version, replicas=3)
            start = time.perf_counter()
            sha = system.registry.push(f"To {version}")
            await system.webhook()
            await answers_with(system, version)
            seconds.append(time.perf_counter() - start)
            await system.outcome(sha)
        activities = await activities_of(system, sha)
        bare = await floor(await system.client(), activities - len(WORKERS), pushes)
        started = await runner_starts(system, RUNNER_STARTS)
    finally:
        system.stop()
    lowest = statistics.median(bare) + statistics.median(started)
    return {
        "pushes": pushes,
        "push_to_ready_p50_seconds": round(statistics.median(seconds), 3),
        "push_to_ready_max_seconds": round(max(seconds), 3),
        "activities": activities,
        "floor_activities_p50_seconds": round(statistics.median(bare), 3),
        "floor_runner_start_p50_seconds": round(statistics.median(started), 3),
        "ratio_to_floor": round(statistics.median(seconds) / lowest, 2),
    }


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pushes", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = asyncio.run(measure(arguments.pushes))
    text = json.dumps(figures, indent=2)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
