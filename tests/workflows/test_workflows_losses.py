"""What was terminated, failed or lost is made good from git and the devices, and nothing that runs is touched."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fleet_views import commands, fleet, places, where
from fleets import Wanted, registry, worker
from structlog.testing import capture_logs
from temporalio.client import WorkflowExecutionStatus
from workflow_world import World, eventually, real_server, world

from longshore.broker.keeper import Keeper
from longshore.schemas.commands import Action
from longshore.schemas.commits import CommitOutcome
from longshore.schemas.devices import Health
from longshore.schemas.fleet import PlanningInput
from longshore.schemas.plans import Plan, PlannedCommand
from longshore.schemas.rollouts import RolloutTarget
from longshore.workflows import conventions

WORKERS = tuple(worker(f"worker-{letter}") for letter in "abc")


@pytest.fixture
async def serving(bare_world: World) -> World:
    """Two replicas that serve."""
    await bare_world.start_broker()
    for letter in "abc":
        await bare_world.device(f"worker-{letter}")
    await bare_world.result(bare_world.registry.push(registry(WORKERS, Wanted("ten", replicas=2))))
    await bare_world.settled()
    return bare_world


async def test_a_terminated_fleet_is_made_anew(serving: World, tmp_path: Path) -> None:
    """It knows again what runs and what was applied, counts on far above, and commands nothing (FAULTS 70)."""
    before, told = await serving.fleet(), commands(serving)
    await fleet(serving).terminate("by mistake")
    await Keeper(serving.entities, tmp_path).look()
    after = await where(serving, *places(before))
    assert after.applied_sha == before.applied_sha
    assert after.generation > before.generation + 500
    assert [slot.digest for slot in after.slots] == [slot.digest for slot in before.slots]
    assert commands(serving) == told
    # And it goes on: the next commit is planned upon it.
    result = await serving.result(serving.registry.push(registry(WORKERS, Wanted("ten", version="1.1.0", replicas=2))))
    assert result.outcome is CommitOutcome.APPLIED
    assert [kind for _, _, kind in commands(serving)].count("Reload") == 2


async def test_a_commit_that_was_asking_a_terminated_fleet_asks_the_next_one(serving: World, tmp_path: Path) -> None:
    """An accepted commit is not lost: neither with its question, nor behind what was applied before."""
    asked, go_on = asyncio.Event(), asyncio.Event()
    make_plan = serving.planner.plan

    async def slowly(asked_for: PlanningInput) -> Plan:
        asked.set()
        await go_on.wait()
        return await make_plan(asked_for)

    serving.planner.plan = slowly  # type: ignore[method-assign]
    newer = registry(WORKERS, Wanted("ten", version="1.1.0", replicas=2))
    commit = await serving.commit(serving.registry.push(newer))
    await asked.wait()
    await fleet(serving).terminate("by mistake")
    go_on.set()
    await Keeper(serving.entities, tmp_path).look()
    assert (await asyncio.wait_for(commit.result(), 30)).outcome is CommitOutcome.APPLIED


async def test_a_new_fleet_goes_on_with_the_commit_that_was_being_rolled_out(serving: World, tmp_path: Path) -> None:
    """Not back to the one that the recorded state still names."""
    reloading, never = asyncio.Event(), asyncio.Event()

    async def hang(_: Any) -> None:
        reloading.set()
        await never.wait()

    for device in serving.devices.values():
        device.before = hang
    serving.registry.applied = (await serving.fleet()).applied_sha
    newer = serving.registry.push(registry(WORKERS, Wanted("ten", version="1.1.0", replicas=2)))
    commit = await serving.commit(newer)
    await reloading.wait()
    for device in serving.devices.values():
        device.before = None
    await fleet(serving).terminate("by mistake")
    await Keeper(serving.entities, tmp_path).look()
    assert (await asyncio.wait_for(commit.result(), 30)).outcome is CommitOutcome.APPLIED
    assert (await serving.fleet()).applied_sha == newer
    never.set()


async def test_a_commit_that_is_held_back_is_not_applied_by_a_new_fleet(serving: World, tmp_path: Path) -> None:
    """Nor is one that was rejected: what was applied last is what a commit's own workflow has planned."""
    applied = (await serving.fleet()).applied_sha
    held = await serving.result(serving.registry.push(registry(WORKERS)))
    assert held.outcome is CommitOutcome.MASS_UNLOAD_BLOCKED
    await fleet(serving).terminate("by mistake")
    await Keeper(serving.entities, tmp_path).look()

    async def made_anew() -> str | None:
        return (await serving.fleet()).applied_sha

    assert await eventually(made_anew, "the fleet is made anew") == applied


async def test_much_that_git_does_not_name_is_left_until_somebody_accepts_it(serving: World, tmp_path: Path) -> None:
    """The recorded state names a commit that is not what runs: most of the replicas would go (FAULTS 20, 57)."""
    told = commands(serving)
    serving.registry.applied = serving.registry.push(registry(WORKERS))
    await fleet(serving).terminate("by mistake")
    await Keeper(serving.entities, tmp_path).look()

    async def held_back() -> tuple[Any, ...]:
        return (await serving.fleet()).held_back

    [held] = await eventually(held_back, "something is held back")
    assert (held.sha, held.code) == (serving.registry.applied, "MASS_UNLOAD_BLOCKED")
    assert commands(serving) == told
    acceptance = {"sha": held.sha, "code": held.code, "by": "olga"}
    await fleet(serving).execute_update("accept", acceptance)
    await where(serving)


async def test_a_device_that_was_out_of_git_while_the_ledger_was_lost_is_asked_when_it_is_back(
    serving: World, tmp_path: Path
) -> None:
    """It tells changes only, and has told a fleet that is gone: what it serves is found, and goes as one too many."""
    out = (await serving.fleet()).slots[0].worker_id
    others = tuple(one for one in WORKERS if one.worker_id != out)
    await serving.result(serving.registry.push(registry(others, Wanted("ten", replicas=2))))
    await serving.settled()
    await fleet(serving).terminate("by mistake")
    await Keeper(serving.entities, tmp_path).look()

    async def made_anew() -> bool:
        view = await serving.fleet()
        return not view.rebuilding and len(view.slots) == len(others)

    await eventually(made_anew, "the fleet is made anew")
    before = Counter(commands(serving))
    await serving.result(serving.registry.push(registry(WORKERS, Wanted("ten", replicas=2))))
    await serving.settled()
    assert [kind for _, _, kind in Counter(commands(serving)) - before] == ["Unload"]
    assert (await serving.fleet()).devices[out].health is Health.HEALTHY


async def test_what_a_terminated_rollout_had_begun_is_commanded_anew(bare_world: World) -> None:
    """After two looks; and the commit, which waited for it, is answered."""
    begun, never = asyncio.Event(), asyncio.Event()
    async with world(bare_world.client, reconcile_interval=timedelta(milliseconds=200)) as around:
        await around.start_broker()
        device = await around.device("worker-a")

        async def hang(_: Any) -> None:
            begun.set()
            await never.wait()

        device.before = hang
        handle = await around.commit(around.registry.push(registry(WORKERS[:1], Wanted("ten"))))
        await begun.wait()
        device.before = None
        await around.client.get_workflow_handle(conventions.rollout_workflow_id("ten")).terminate("by mistake")
        assert (await asyncio.wait_for(handle.result(), 30)).outcome is CommitOutcome.APPLIED
        await where(around, "worker-a")
        never.set()


async def test_a_rollout_that_never_heard_of_the_newest_plan_is_told(bare_world: World) -> None:
    """A commit is terminated between its plan and its rollouts, while the rollout before waits for a device."""
    begun, planned, never = asyncio.Event(), asyncio.Event(), asyncio.Event()
    async with world(bare_world.client, reconcile_interval=timedelta(milliseconds=200)) as around:
        await around.start_broker()
        device = await around.device("worker-a")

        async def hang(command: Any) -> None:
            if command.spec.version == "1.0.0":
                begun.set()
                await never.wait()

        device.before = hang
        await around.commit(around.registry.push(registry(WORKERS[:1], Wanted("ten"))))
        await begun.wait()
        newer = around.registry.push(registry(WORKERS[:1], Wanted("ten", version="1.1.0")))
        workflow_id = conventions.commit_workflow_id("ops", newer)
        set_targets = around.entities.set_targets

        async def stop(targets: tuple[RolloutTarget, ...]) -> None:
            if any(target.reply_to == workflow_id for target in targets):
                planned.set()
                await never.wait()
            await set_targets(targets)

        around.entities.set_targets = stop  # type: ignore[method-assign]
        commit = await around.commit(newer)
        await planned.wait()
        await commit.terminate("by mistake")
        view = await where(around, "worker-a")
        assert {slot.version for slot in view.slots} == {"1.1.0"}
        never.set()


async def test_a_terminated_device_workflow_is_started_again(serving: World, tmp_path: Path) -> None:
    """The device answers it, and the ledger is as it was."""
    before = await serving.fleet()
    handle = serving.client.get_workflow_handle(conventions.device_workflow_id("worker-a"))
    await handle.terminate("by mistake")
    await Keeper(serving.entities, tmp_path).look()

    async def heard() -> bool:
        return (await serving.entities.device("worker-a")).health is Health.HEALTHY

    await eventually(heard, "the device is heard")
    assert (await serving.fleet()).slots == before.slots


async def test_what_is_terminated_is_started_again_while_the_broker_runs(real_world: World, tmp_path: Path) -> None:
    """A device's workflow and the fleet, by the keeper's own looks: nobody pushes, and no broker is started anew."""
    await real_world.start_broker()
    for letter in "abc":
        await real_world.device(f"worker-{letter}")
    await real_world.result(real_world.registry.push(registry(WORKERS, Wanted("ten", replicas=2))))
    before, told = await real_world.settled(), commands(real_world)
    keeper = asyncio.create_task(Keeper(real_world.entities, tmp_path, timedelta(milliseconds=100)).run())
    try:
        for workflow_id in (conventions.device_workflow_id("worker-a"), conventions.fleet_workflow_id("ops")):
            handle = real_world.client.get_workflow_handle(workflow_id)
            terminated = (await handle.describe()).run_id
            await handle.terminate("by mistake")

            async def runs_again(handle: Any = handle, terminated: str = terminated) -> bool:
                now = await handle.describe()
                return now.status is WorkflowExecutionStatus.RUNNING and now.run_id != terminated

            await eventually(runs_again, f"{workflow_id} runs again")
        after = await where(real_world, *places(before))
    finally:
        keeper.cancel()
    assert after.applied_sha == before.applied_sha
    assert commands(real_world) == told


@pytest.mark.filterwarnings("ignore::temporalio.workflow.UnfinishedUpdateHandlersWarning")
async def test_a_fleet_that_a_defect_has_ended_is_told_and_started_again(serving: World, tmp_path: Path) -> None:
    """WORKFLOW_BUG, within a minute (FAULTS 60); what runs goes on running."""
    before = await serving.fleet()
    make_plan = serving.planner.plan

    async def contradict(asked: PlanningInput) -> Plan:
        plan = await make_plan(asked)
        unload = PlannedCommand(action=Action.UNLOAD, worker_id="worker-z", reason="of what?")
        broken = plan.deployments[0].model_copy(update={"commands": (unload,)})
        return plan.model_copy(update={"deployments": (broken,)})

    serving.planner.plan = contradict  # type: ignore[method-assign]
    newer = registry(WORKERS, Wanted("ten", version="1.1.0", replicas=2))
    commit = await serving.commit(serving.registry.push(newer))

    async def failed() -> bool:
        return (await fleet(serving).describe()).status is WorkflowExecutionStatus.FAILED

    await eventually(failed, "the run has failed")
    serving.planner.plan = make_plan  # type: ignore[method-assign]
    with capture_logs() as logs:
        await Keeper(serving.entities, tmp_path).look()
    assert ("WORKFLOW_BUG", "fleet:ops") in [(entry.get("code"), entry.get("workflow_id")) for entry in logs]
    assert (await asyncio.wait_for(commit.result(), 30)).outcome is CommitOutcome.APPLIED
    after = await where(serving, *places(before))
    assert {slot.version for slot in after.slots} == {"1.1.0"}


async def test_a_lost_database_is_made_good_from_git_and_the_devices(serving: World) -> None:
    """A new server knows nothing: the recorded commit is applied again, and what runs is left as it is (57)."""
    before = await serving.fleet()
    async with real_server() as client, world(client) as anew:
        anew.registry = serving.registry
        anew.registry.applied = before.applied_sha
        anew.planner._desired = anew.registry
        for device in serving.devices.values():
            anew.devices[device.worker_id] = device.moved_to(client)
            await anew.device(device.worker_id)
        await anew.start_broker()
        await anew.entities.start_fleet()
        after = await where(anew, *places(before))
        assert after.applied_sha == before.applied_sha
        assert after.generation > before.generation + 500
        assert commands(anew) == []
