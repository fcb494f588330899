"""Devices that die, freeze or are cut off, and fleets that are too small (PRD §11.3): what runs is never left without.

Devices count as failed after seconds instead of minutes; everything else is as an operator would run it.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from network import LOOPBACK, Namespace, Sampler, Wire, door
from system import System, eventually

from longshore.cli.demo.load import Load
from longshore.schemas.commits import CommitOutcome
from longshore.schemas.devices import Health
from longshore.schemas.fleet import FleetView
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.rollouts import RolloutOutcome
from longshore.workflows import conventions

pytestmark = pytest.mark.chaos

BROKER = (
    "--heartbeat-interval", "1s", "--suspect-after", "3s", "--failed-after", "6s", "--ping-timeout", "1s",
    "--reconcile-interval", "3s", "--reconcile-pause", "200ms", "--doubt-grace", "2s", "--rebuild-grace", "5s",
)  # fmt: skip
DEVICE = ("--presence-interval", "500ms")
ISLAND = "worker-a"


@pytest.fixture
async def fleet() -> AsyncIterator[System]:
    """Temporal and a broker with short times; the devices are the test's to start. Version 2.0.0 loads for 4 s."""
    system = System()
    try:
        system.start_temporal()
        system.start_broker(*BROKER)
        system.model.release("1.0.0", factor=10)
        system.model.release("2.0.0", factor=20, load_seconds=4)
        yield system
    finally:
        system.stop()


async def devices(system: System, letters: str, *more: str, **capacity: Any) -> list[str]:
    """Start `worker-a` for the letter a, and so on; return their names once all devices have been heard."""
    names = [f"worker-{letter}" for letter in letters]
    for name in names:
        system.start_worker(name, *DEVICE, *more, **capacity)
    await applied(system, "Workers")
    await system.heard(*system.data_ports)
    return names


async def applied(system: System, message: str) -> None:
    result = await system.outcome(system.registry.push(message))
    assert result.outcome is CommitOutcome.APPLIED, result.summary


def holders(view: FleetView, deployment_id: str) -> list[str]:
    """The devices that have a place for it by the ledger, in whatever state."""
    return sorted(slot.worker_id for slot in view.slots if slot.deployment_id == deployment_id and not slot.replaced)


async def ready(system: System, workers: Sequence[str], deployment_id: str) -> dict[str, str | None]:
    """Which of these devices report it READY, and in which version."""
    reports = [(await system.device(worker_id)).report for worker_id in workers]
    return {
        report.worker_id: model.version
        for report in reports
        if report
        for model in report.models
        if model.deployment_id == deployment_id and model.state is ModelState.READY
    }


async def becomes(system: System, workers: Sequence[str], deployment_id: str, replicas: int) -> None:
    """Wait until exactly so many devices have it, all of them among `workers`, by their reports and by the ledger."""

    async def settled() -> bool:
        there = sorted(await ready(system, workers, deployment_id))
        return len(there) == replicas and there == holders(await system.fleet(), deployment_id)

    await eventually(settled, f"{deployment_id} is READY {replicas} times among {', '.join(workers)}", 90)


async def begins(system: System, runners: int) -> None:
    """Wait until more than so many runners are there."""

    async def starting() -> bool:
        return len(system.runners()) > runners

    await eventually(starting, "a runner of the new version starts")


async def recovers(system: System, worker_id: str) -> None:
    async def healthy() -> bool:
        return (await system.device(worker_id)).health is Health.HEALTHY

    await eventually(healthy, f"{worker_id} is healthy again")


@asynccontextmanager
async def unharmed(system: System, deployment_id: str, *workers: str) -> AsyncIterator[None]:
    """These devices answer every request for it, for as long as the block takes and then some."""
    async with AsyncExitStack() as stack:
        urls = [f"http://{LOOPBACK}:{system.data_ports[name]}/infer/{deployment_id}" for name in workers]
        loads = [await stack.enter_async_context(Load(url, {"x": 1}, connections=2, pause=0.02)) for url in urls]
        yield
        for load in loads:
            await load.more(20)
    assert [set(load.outcomes) for load in loads] == [{"200"}] * len(loads)


async def test_a_third_of_the_devices_dies_during_a_rollout(fleet: System) -> None:
    """Their replicas move to the others, the commit is answered as applied, and the survivors lose no request."""
    workers = await devices(fleet, "abcdef")
    fleet.registry.deployment("ten", fleet.model, "1.0.0", replicas=4)
    await applied(fleet, "Deploy")
    held = holders(await fleet.fleet(), "ten")
    dead, survivors = held[:2], held[2:]
    fleet.registry.deployment("ten", fleet.model, "2.0.0", replicas=4)
    async with unharmed(fleet, "ten", *survivors):
        sha = fleet.registry.push("To 2.0.0")
        await begins(fleet, 4)
        for worker_id in dead:
            fleet.power_off(worker_id)
        result = await fleet.outcome(sha, timeout=180)
        assert result.outcome is CommitOutcome.APPLIED, result.summary
    alive = [worker_id for worker_id in workers if worker_id not in dead]
    assert await ready(fleet, alive, "ten") == dict.fromkeys(alive, "2.0.0")
    assert len(fleet.runners()) == 4


async def test_a_device_that_froze_during_a_load_comes_back_too_late(fleet: System) -> None:
    """Its LOAD is fenced: the model runs where it was placed instead, and the zombie never serves it."""
    workers = await devices(fleet, "abc")
    fleet.registry.deployment("late", fleet.model, "2.0.0")
    sha = fleet.registry.push("Deploy late")
    await begins(fleet, 0)
    (zombie,) = holders(await fleet.fleet(), "late")
    fleet.freeze(zombie)
    try:
        result = await fleet.outcome(sha)
        assert result.outcome is CommitOutcome.APPLIED, result.summary
    finally:
        fleet.thaw(zombie)
    with Sampler("late", {zombie: door(fleet.data_ports[zombie])}) as seen:
        await recovers(fleet, zombie)
        await becomes(fleet, [worker_id for worker_id in workers if worker_id != zombie], "late", 1)
    assert not any(seen.samples)
    assert len(fleet.runners()) == 1


@dataclass(frozen=True)
class Island:
    """A device whose way to Temporal can be cut. `door` leads to its data port all the same, as for a local caller."""

    cut: Callable[[], None]
    heal: Callable[[], None]
    door: Callable[[], socket.socket]


def behind_a_wire(system: System, closing: ExitStack) -> Island:
    wire = Wire(system.temporal_port)
    closing.callback(wire.close)
    system.start_worker(ISLAND, *DEVICE, "--temporal", wire.address)
    return Island(wire.cut, wire.heal, door(system.data_ports[ISLAND]))


def behind_a_link(system: System, closing: ExitStack) -> Island:
    """In a network namespace. Its artifacts come past the link: the server of the tests listens on loopback only."""
    try:
        space = Namespace()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespace can be made here: {error}")
    closing.callback(space.close)
    temporal = Wire(system.temporal_port, socket.create_server((space.address, 0)))
    closing.callback(temporal.close)
    port = system.artifacts_port
    artifacts = Wire(port, space.inside(lambda: socket.create_server((LOOPBACK, port))))
    closing.callback(artifacts.close)
    system.start_worker(ISLAND, *DEVICE, "--temporal", temporal.address, prefix=space.prefix)
    return Island(space.cut, space.heal, lambda: space.inside(door(system.data_ports[ISLAND])))


@pytest.fixture(params=[behind_a_wire, behind_a_link])
def island(fleet: System, request: pytest.FixtureRequest) -> Iterator[Island]:
    with ExitStack() as closing:
        cuttable = request.param(fleet, closing)
        closing.callback(fleet.processes[ISLAND].stop)
        closing.callback(cuttable.heal)
        yield cuttable


async def test_a_device_that_was_cut_off_comes_back(fleet: System, island: Island) -> None:
    """It serves on by itself and is replaced; healed, one copy too many goes, and at no moment are both gone."""
    others = await devices(fleet, "bc")
    fleet.registry.deployment("ten", fleet.model, "1.0.0", replicas=2)
    await applied(fleet, "Deploy")
    assert ISLAND in holders(await fleet.fleet(), "ten")
    doors = {ISLAND: island.door, **{name: door(fleet.data_ports[name]) for name in others}}
    with Sampler("ten", doors) as seen:
        island.cut()
        await becomes(fleet, others, "ten", 2)
        await seen.more()
        assert seen.samples[-1] == set(doors), "cut off, it serves on"
        island.heal()
        await recovers(fleet, ISLAND)
        await becomes(fleet, [ISLAND, *others], "ten", 2)
        await seen.more()
    assert {len(sample) for sample in seen.samples} == {2, 3}
    assert len(seen.samples[-1]) == 2


@pytest.mark.parametrize("island", [behind_a_wire], indirect=True)
async def test_a_device_comes_back_while_its_replacement_loads(fleet: System, island: Island) -> None:
    """One copy too many goes once enough are READY; until then nothing is taken away (FAULTS 90)."""
    others = await devices(fleet, "bc")
    fleet.registry.deployment("ten", fleet.model, "2.0.0", replicas=2)
    await applied(fleet, "Deploy")
    assert ISLAND in holders(await fleet.fleet(), "ten")
    doors = {ISLAND: island.door, **{name: door(fleet.data_ports[name]) for name in others}}
    with Sampler("ten", doors) as seen:
        island.cut()

        async def replaced() -> bool:
            return holders(await fleet.fleet(), "ten") == others

        await eventually(replaced, "the cut off device is replaced")
        island.heal()
        await recovers(fleet, ISLAND)
        await becomes(fleet, [ISLAND, *others], "ten", 2)
        await seen.more()
    assert {len(sample) for sample in seen.samples} <= {2, 3}
    assert len(seen.samples[-1]) == 2


async def test_five_deployments_in_one_commit(fleet: System) -> None:
    """All are READY as often as wanted, each is answered once, and what ran before notices nothing."""
    workers = await devices(fleet, "abcd")
    fleet.registry.deployment("steady", fleet.model, "1.0.0", replicas=2)
    await applied(fleet, "Deploy steady")
    wanted = {"one": 1, "two": 2, "three": 3, "four": 2, "five": 1}
    for priority, (deployment_id, replicas) in enumerate(wanted.items(), 1):
        version = "2.0.0" if deployment_id == "three" else "1.0.0"
        fleet.registry.deployment(deployment_id, fleet.model, version, replicas=replicas, priority=10 * priority)
    async with unharmed(fleet, "steady", *holders(await fleet.fleet(), "steady")):
        result = await fleet.outcome(fleet.registry.push("Five at once"))
        assert result.outcome is CommitOutcome.APPLIED, result.summary
    assert sorted(answer.deployment_id for answer in result.answers) == sorted(wanted)
    for deployment_id, replicas in wanted.items():
        await becomes(fleet, workers, deployment_id, replicas)
    assert len(fleet.runners()) == 2 + sum(wanted.values())


async def test_a_newcomer_of_high_priority_in_a_full_fleet(fleet: System) -> None:
    """What is below it makes room, least first, and is told why it has none; what is above it notices nothing."""
    workers = await devices(fleet, "abc", max_models=2)
    fleet.registry.deployment("top", fleet.model, "1.0.0", priority=95)
    fleet.registry.deployment("middle", fleet.model, "1.0.0", priority=20, replicas=2)
    fleet.registry.deployment("least", fleet.model, "1.0.0", priority=10, replicas=2)
    await applied(fleet, "Deploy")
    fleet.registry.deployment("urgent", fleet.model, "1.0.0", priority=90, replicas=3)
    async with unharmed(fleet, "top", *holders(await fleet.fleet(), "top")):
        result = await fleet.outcome(fleet.registry.push("Deploy urgent"))
        for deployment_id, replicas in {"urgent": 3, "top": 1, "middle": 2, "least": 0}.items():
            await becomes(fleet, workers, deployment_id, replicas)
    assert result.outcome is CommitOutcome.PARTLY_APPLIED, result.summary
    answers = {answer.deployment_id: answer for answer in result.answers}
    assert answers["urgent"].outcome is RolloutOutcome.DONE
    assert answers["least"].outcome is RolloutOutcome.INCOMPLETE
    left = (await fleet.fleet()).open["least"]
    assert (left.unplaced, sorted(rejection.worker_id for rejection in left.rejections)) == (2, workers)
    assert {short.resource for rejection in left.rejections for short in rejection.shortfalls} == {"models"}
    assert "2 of 2 replicas found no device" in answers["least"].message
    assert len(fleet.runners()) == 6


async def test_the_broker_is_killed_during_an_eviction(fleet: System) -> None:
    """Another broker finishes it: the victim goes, the newcomer comes, and neither twice (FAULTS 54)."""
    (worker_id,) = await devices(fleet, "a", max_models=2)
    fleet.registry.deployment("steady", fleet.model, "1.0.0", priority=95)
    fleet.registry.deployment("least", fleet.model, "1.0.0", priority=10)
    await applied(fleet, "Deploy")
    fleet.registry.deployment("urgent", fleet.model, "2.0.0", priority=90)
    async with unharmed(fleet, "steady", worker_id):
        sha = fleet.registry.push("Deploy urgent")

        async def evicting() -> bool:
            return not await ready(fleet, [worker_id], "least")

        await eventually(evicting, "the victim goes")
        fleet.processes["broker"].kill()
        fleet.restart("broker")
        result = await fleet.outcome(sha)
        await becomes(fleet, [worker_id], "urgent", 1)
    assert {answer.deployment_id: answer.outcome for answer in result.answers} == {
        "urgent": RolloutOutcome.DONE,
        "least": RolloutOutcome.INCOMPLETE,
    }
    assert holders(await fleet.fleet(), "least") == []
    assert len(fleet.runners()) == 2


async def test_the_servers_database_is_deleted(fleet: System) -> None:
    """The ledger is made anew from git and from what the devices report; nothing is loaded or unloaded (FAULTS 57)."""
    workers = await devices(fleet, "ab")
    fleet.registry.deployment("ten", fleet.model, "1.0.0", replicas=2)
    fleet.registry.deployment("one", fleet.model, "1.0.0")
    await applied(fleet, "Deploy")
    before = {process.pid for process in fleet.runners()}
    async with unharmed(fleet, "ten", *workers):
        for name in ("broker", "temporal"):
            fleet.processes[name].kill()
        for file in fleet.root.glob("temporal.db*"):
            file.unlink()
        for name in ("temporal", "broker"):
            fleet.restart(name)
        await becomes(fleet, workers, "ten", 2)
        await becomes(fleet, workers, "one", 1)
        assert {process.pid for process in fleet.runners()} == before
        fleet.registry.deployment("ten", fleet.model, "2.0.0", replicas=2)
        await applied(fleet, "To 2.0.0")
        assert await ready(fleet, workers, "ten") == dict.fromkeys(workers, "2.0.0")


async def test_an_operator_terminates_the_fleet_and_a_rollout(fleet: System) -> None:
    """What was under way is finished, from git and from what the devices report; what runs stays (FAULTS 70)."""
    workers = await devices(fleet, "ab")
    fleet.registry.deployment("ten", fleet.model, "1.0.0", replicas=2)
    await applied(fleet, "Deploy")
    before = {process.pid for process in fleet.runners()}
    fleet.registry.deployment("late", fleet.model, "2.0.0")
    client = await fleet.client()
    async with unharmed(fleet, "ten", *workers):
        sha = fleet.registry.push("Deploy late")
        await begins(fleet, 2)
        for workflow_id in (conventions.rollout_workflow_id("late"), conventions.fleet_workflow_id("registry")):
            await client.get_workflow_handle(workflow_id).terminate("by hand, in the Web UI")
        fleet.processes["broker"].stop()  # a broker that starts looks at once, and not only after a minute
        fleet.restart("broker")
        await becomes(fleet, workers, "late", 1)
        await becomes(fleet, workers, "ten", 2)
        result = await fleet.outcome(sha)
        assert result.outcome is CommitOutcome.APPLIED, result.summary
        fleet.registry.deployment("late", fleet.model, "1.0.0")
        await applied(fleet, "Another version")
    assert before <= {process.pid for process in fleet.runners()}
    assert len(fleet.runners()) == 3


async def test_a_worker_host_that_drains_goes_when_others_serve(fleet: System) -> None:
    """SIGTERM with --drain: it serves until its models are READY elsewhere, and then ends by itself."""
    (leaver,) = await devices(fleet, "a", "--drain")
    others = await devices(fleet, "bc")
    fleet.registry.deployment("ten", fleet.model, "1.0.0", replicas=2)
    await applied(fleet, "Deploy")
    assert leaver in holders(await fleet.fleet(), "ten")
    daemon = fleet.processes[leaver].popen
    assert daemon is not None
    with Sampler("ten", {name: door(fleet.data_ports[name]) for name in (leaver, *others)}) as seen:
        daemon.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(daemon.wait, 90) == 0
        await becomes(fleet, others, "ten", 2)
    assert min(len(sample) for sample in seen.samples) == 2
    assert not fleet.device_processes(leaver)
