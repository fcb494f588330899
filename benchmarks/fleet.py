"""One commit that brings a whole fleet from empty to READY.

Real: git, the broker, the Temporal server, and of each worker host its commands, queue, journal, presence and Temporal
worker. Simulated: runners, stores and Envoy, which succeed at once; many hosts share a process. Beside it the floor of
the same run: as many workflows of as many bare activities through the same server. Then the largest payload and the
longest history of all workflows, against the goal of 512 KiB and 4,096 events.

    python3 dev.py bench fleet [--deployments 100] [--hosts 50] [--replicas 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import simulated_hosts
from device_fakes import CARD
from floor import FloorWorkflow, no_op
from google.protobuf.message import Message
from system import System, eventually
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from longshore.schemas.commits import CommitOutcome

PAYLOAD_GOAL = 512 * 1024  # bytes
HISTORY_GOAL = 4096  # events
PROCESSES = 2  # for all simulated hosts together
VERSION = "1.0.0"
PATIENCE = 900.0  # seconds for the whole commit


@dataclass(frozen=True)
class Size:
    deployments: int
    hosts: int
    replicas: int


@dataclass(frozen=True)
class History:
    workflow_id: str
    events: Sequence[HistoryEvent]

    @property
    def activities(self) -> int:
        return sum(event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED for event in self.events)

    @property
    def largest_payload(self) -> int:
        return max((payload.ByteSize() for event in self.events for payload in payloads(event)), default=0)

    @property
    def last_answer(self) -> float:
        """When the last activity was done, by the server's clock (which is this machine's)."""
        return max(
            event.event_time.ToNanoseconds() / 1e9
            for event in self.events
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED
        )


def payloads(message: Message) -> Iterator[Payload]:
    """Find every payload in a message, however deep."""
    if isinstance(message, Payload):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            values = [item for item in value.values() if isinstance(item, Message)]
        else:
            values = [value] if isinstance(value, Message) else list(value)
        for inner in values:
            yield from payloads(inner)


async def histories(client: Client, rollouts: int) -> list[History]:
    """Fetch the history of every workflow, once the server's list, which comes after the fact, has all rollouts."""

    async def listed() -> list[History] | None:
        found = [
            History(run.id, (await client.get_workflow_handle(run.id, run_id=run.run_id).fetch_history()).events)
            async for run in client.list_workflows()
        ]
        return found if len({rollout.workflow_id for rollout in rollouts_of(found)}) == rollouts else None

    return await eventually(listed, "every rollout is in the server's list")


def rollouts_of(found: list[History]) -> list[History]:
    return [history for history in found if history.workflow_id.startswith("rollout:")]


async def floor(client: Client, commit: History, rollouts: list[History], replicas: int) -> float:
    """Seconds of the same activities that do nothing: the commit's in a row, then all rollouts' at once."""
    queue = f"floor-{uuid.uuid4().hex}"

    async def run(in_a_row: int, side_by_side: int) -> None:
        workflow_id = f"floor-{uuid.uuid4().hex}"
        await client.execute_workflow(
            FloorWorkflow.run, args=[in_a_row, side_by_side], id=workflow_id, task_queue=queue
        )

    async with Worker(
        client,
        task_queue=queue,
        workflows=[FloorWorkflow],
        activities=[no_op],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        start = time.perf_counter()
        await run(commit.activities + 1, 0)  # and the planning, which is the fleet's
        await asyncio.gather(*(run(rollout.activities - replicas, replicas) for rollout in rollouts))
        return time.perf_counter() - start


def start_hosts(system: System, size: Size) -> list[str]:
    """Write the workers' files, start the processes that are these workers, and return the worker ids."""
    models = math.ceil(size.deployments * size.replicas / size.hosts) + 2
    configs = [
        system.registry.worker(
            f"worker-{number:03}", max_models=models, max_memory=f"{models}Gi", max_cpu=float(models)
        )
        for number in range(size.hosts)
    ]
    for process in range(PROCESSES):
        if mine := configs[process::PROCESSES]:
            system.process(
                f"workers-{process}", sys.executable, simulated_hosts.__file__, str(system.root / "hosts"),
                system.address, *map(str, mine),
            )  # fmt: skip
    return [config.stem for config in configs]


async def measure(size: Size) -> dict[str, object]:
    """Run the whole benchmark on a system of its own."""
    system = System()
    try:
        system.start_temporal()
        workers = start_hosts(system, size)
        system.registry.push("Workers only")
        system.start_broker()
        await system.heard(*workers)
        system.model.release(VERSION, card={"interface": CARD["interface"]})
        for number in range(size.deployments):
            system.registry.deployment(f"model-{number:03}", system.model, VERSION, replicas=size.replicas)
        pushed = datetime.now(UTC).timestamp()
        sha = system.registry.push(f"{size.deployments} deployments")
        await system.webhook()
        result = await system.outcome(sha, PATIENCE)
        answered = datetime.now(UTC).timestamp()
        if result.outcome is not CommitOutcome.APPLIED:
            raise SystemExit(f"the commit ended {result.outcome}: {result.summary}")
        client = await system.client()
        found = await histories(client, size.deployments)
        commit = next(history for history in found if history.workflow_id.endswith(sha))
        rollouts = rollouts_of(found)
        bare = await floor(client, commit, rollouts, size.replicas)
    finally:
        system.stop()
    ready = max(rollout.last_answer for rollout in rollouts) - pushed
    longest = max(found, key=lambda history: len(history.events))
    heaviest = max(found, key=lambda history: history.largest_payload)
    return {
        "deployments": size.deployments,
        "hosts": size.hosts,
        "replicas": size.replicas,
        "push_to_ready_seconds": round(ready, 2),
        "push_to_answered_seconds": round(answered - pushed, 2),
        "activities": 1 + commit.activities + sum(rollout.activities for rollout in rollouts),
        "floor_seconds": round(bare, 2),
        "ratio_to_floor": round(ready / bare, 2),
        "workflows": len(found),
        "reconciliations": sum(history.workflow_id.startswith("reconcile:") for history in found),
        "largest_payload_bytes": heaviest.largest_payload,
        "largest_payload_in": heaviest.workflow_id,
        "largest_payload_of_goal": round(heaviest.largest_payload / PAYLOAD_GOAL, 3),
        "longest_history_events": len(longest.events),
        "longest_history_in": longest.workflow_id,
        "longest_history_of_goal": round(len(longest.events) / HISTORY_GOAL, 3),
    }


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--deployments", type=int, default=100)
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = asyncio.run(measure(Size(arguments.deployments, arguments.hosts, arguments.replicas)))
    text = json.dumps(figures, indent=2)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
