"""What the fleet does unasked: failures are made good, losses repaired, and at rest nothing is done at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fleets import Wanted, registry, worker
from structlog.testing import capture_logs
from temporalio.client import WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from workflow_world import REGISTRY, World, eventually, real_server, world

from longshore.broker.keeper import Keeper
from longshore.schemas.commands import Action
from longshore.schemas.commits import CommitOutcome
from longshore.schemas.devices import Health
from longshore.schemas.fleet import FleetView, PlanningInput
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.orders import Order, OrderAnswer
from longshore.schemas.plans import CauseKind, Plan, PlannedCommand
from longshore.schemas.reconciliations import ReconciliationResult
from longshore.workflows import conventions
from longshore.workflows.fleet import FleetWorkflow

WORKERS = tuple(worker(f"worker-{letter}") for letter in "abc")
QUICK = {
    "heartbeat_interval": timedelta(milliseconds=400),
    "suspect_after": timedelta(milliseconds=800),
    "failed_after": timedelta(milliseconds=1600),
    "ping_timeout": timedelta(milliseconds=400),
}


@pytest.fixture
async def quick_world() -> AsyncIterator[World]:
    """The real server, three devices, and a broker that gives a silent one up within two seconds."""
    async with real_server() as client, world(client, notify_ops="json://ops.example/", **QUICK) as around:
        await around.start_broker()
        for letter in "abc":
            (await around.device(f"worker-{letter}")).beat_seconds = 0.1
        yield around


def places(view: FleetView, deployment_id: str = "ten") -> dict[str, ModelState]:
    return {slot.worker_id: slot.state for slot in view.slots if slot.deployment_id == deployment_id}


async def where(around: World, *workers: str) -> FleetView:
    """Wait until `ten` is READY on just these devices."""

    async def probe() -> FleetView | None:
        view = await around.fleet()
        return view if places(view) == dict.fromkeys(workers, ModelState.READY) else None

    return await eventually(probe, f"ten is READY on {workers}")


def fleet(around: World) -> Any:
    return around.client.get_workflow_handle_for(FleetWorkflow.run, conventions.fleet_workflow_id(REGISTRY))


def commands(around: World) -> list[tuple[str, str, str]]:
    """Return every command so far: device, deployment, LOAD or the like."""
    return [
        (name, command.deployment_id, type(command).__name__.removesuffix("Command"))
        for name, device in sorted(around.devices.items())
        for command in device.commands
    ]


async def reconciled(around: World, generation: int) -> ReconciliationResult:
    handle = around.client.get_workflow_handle(
        conventions.reconciliation_workflow_id(REGISTRY, generation), result_type=ReconciliationResult
    )
    return await asyncio.wait_for(handle.result(), 30)


class TestFailure:
    async def test_the_replicas_of_a_failed_device_move_and_the_waiting_commit_is_answered(
        self, quick_world: World
    ) -> None:
        """A device dies while it loads: its replica goes to another, and the commit ends as applied (PRD §5.5)."""
        loading, never = asyncio.Event(), asyncio.Event()

        async def hang(_: Any) -> None:
            loading.set()
            await never.wait()

        dying = quick_world.devices["worker-a"]
        dying.before = hang
        sha = quick_world.registry.push(registry(WORKERS, Wanted("ten", replicas=2)))
        handle = await quick_world.commit(sha)
        await loading.wait()
        dying.silent = True
        assert (await asyncio.wait_for(handle.result(), 30)).outcome is CommitOutcome.APPLIED
        view = await quick_world.fleet()
        assert view.applied_sha == sha
        result = await reconciled(quick_world, view.generation)
        assert (result.outcome, result.cause.kind) == (CommitOutcome.APPLIED, CauseKind.WORKER_FAILED)
        assert {name for name, state in places(view).items() if state is ModelState.READY} == {"worker-b", "worker-c"}
        [request] = quick_world.registry.reconciled
        assert request.result.generation == view.generation
        [told] = quick_world.people.told
        assert "worker failed" in told.notice.title
        assert "worker-a" in told.notice.body
        never.set()

    async def test_a_device_that_returns_loses_its_surplus_without_a_gap(self, quick_world: World) -> None:
        """What it still serves is taken away only when it is one too many (FAULTS 90)."""
        await quick_world.result(quick_world.registry.push(registry(WORKERS, Wanted("ten", replicas=2))))
        lost, kept = sorted(places(await quick_world.settled()))
        device = quick_world.devices[lost]
        device.silent = True
        [spare] = set(quick_world.devices) - {lost, kept}

        async def moved() -> bool:
            return places(await quick_world.fleet()).get(spare) is ModelState.READY

        await eventually(moved, "the replica has moved")
        assert len(device.commands) == 1
        device.silent = False

        async def two_are_left() -> bool:
            view = await quick_world.fleet()
            states = list(places(view).values())
            assert states.count(ModelState.READY) >= 2
            return states == [ModelState.READY] * 2

        await eventually(two_are_left, "the surplus has gone")

    async def test_a_silent_pool_is_told_once_and_nothing_of_it_is_moved(self, quick_world: World) -> None:
        """FLEET_SUSPECT: that is the network. What runs there goes on running, and is counted (FAULTS 85)."""
        await quick_world.result(quick_world.registry.push(registry(WORKERS, Wanted("ten", replicas=1))))
        before = commands(quick_world)
        for device in quick_world.devices.values():
            device.silent = True

        async def all_failed() -> bool:
            view = await quick_world.fleet()
            return all(record.health is Health.FAILED for record in view.devices.values())

        await eventually(all_failed, "all have failed")
        await fleet(quick_world).execute_update("order", Order(kind="reconcile"), result_type=OrderAnswer)

        async def told() -> bool:
            return bool(quick_world.people.told)

        await eventually(told, "ops is told")
        [notice] = [request.notice for request in quick_world.people.told]
        assert "fleet suspect" in notice.title
        assert "pool production: 3 of 3 devices are silent" in notice.body
        assert commands(quick_world) == before


class TestQueue:
    async def test_a_commit_goes_before_a_reconciliation(self, bare_world: World) -> None:
        """Both wait for the plan before them: the commit's own plan mends what has drifted."""
        kinds: list[str] = []
        held_up, go_on = asyncio.Event(), asyncio.Event()
        snapshot, reconcile = bare_world.registry.snapshot, bare_world.planner.reconcile

        async def slowly(sha: str) -> Any:
            kinds.append(sha)
            held_up.set()
            await go_on.wait()
            return await snapshot(sha)

        async def reconciling(asked: Any) -> Any:
            kinds.append("reconcile")
            return await reconcile(asked)

        first = bare_world.registry.push(registry(WORKERS, Wanted("ten")))
        second = bare_world.registry.push(registry(WORKERS, Wanted("ten", version="1.1.0")))
        await bare_world.start_broker()
        for letter in "abc":
            await bare_world.device(f"worker-{letter}")
        await bare_world.result(first)
        bare_world.registry.snapshot = slowly  # type: ignore[method-assign]
        bare_world.planner.reconcile = reconciling  # type: ignore[method-assign]
        order = asyncio.create_task(
            fleet(bare_world).execute_update("order", Order(kind="reconcile"), result_type=OrderAnswer)
        )
        await held_up.wait()
        asked = await bare_world.commit(second)
        await fleet(bare_world).signal("give_order", Order(kind="reconcile"))

        async def queued() -> bool:
            description = await asked.describe()
            pending = description.raw_description.pending_activities
            return any(one.activity_type.name == "ask_fleet_for_plan" for one in pending)

        await eventually(queued, "the commit asks for its plan")
        go_on.set()
        await asked.result()
        await order
        # Each reconciliation reads the snapshot once more.
        assert [kind for kind in kinds if kind in (second, "reconcile")][:2] == ["reconcile", second]

    async def test_at_rest_a_history_does_not_grow(self, bare_world: World) -> None:
        """Ten looks that find nothing write nothing: no event, and no workflow (FAULTS 64)."""
        async with world(bare_world.client, reconcile_interval=timedelta(milliseconds=50)) as around:
            await around.start_broker()
            for letter in "abc":
                await around.device(f"worker-{letter}")
            await around.result(around.registry.push(registry(WORKERS, Wanted("ten", replicas=2))))
            await around.settled()
            looks = 0
            reconcile = around.planner.reconcile

            async def looked(asked: Any) -> Any:
                nonlocal looks
                looks += 1
                return await reconcile(asked)

            around.planner.reconcile = looked  # type: ignore[method-assign]

            async def ten_looks_without_an_event() -> bool:
                nonlocal looks
                looks, before = 0, (await fleet(around).describe()).history_length

                async def ten() -> bool:
                    return looks >= 10

                await eventually(ten, "ten looks")
                return (await fleet(around).describe()).history_length == before

            await eventually(ten_looks_without_an_event, "ten looks find nothing")
            assert (await around.fleet()).generation == 1


class TestLosses:
    @pytest.fixture
    async def serving(self, bare_world: World) -> World:
        """Two replicas that serve."""
        await bare_world.start_broker()
        for letter in "abc":
            await bare_world.device(f"worker-{letter}")
        await bare_world.result(bare_world.registry.push(registry(WORKERS, Wanted("ten", replicas=2))))
        await bare_world.settled()
        return bare_world

    async def test_a_terminated_fleet_is_made_anew(self, serving: World, tmp_path: Path) -> None:
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
        result = await serving.result(
            serving.registry.push(registry(WORKERS, Wanted("ten", version="1.1.0", replicas=2)))
        )
        assert result.outcome is CommitOutcome.APPLIED
        assert [kind for _, _, kind in commands(serving)].count("Reload") == 2

    async def test_a_commit_that_was_asking_a_terminated_fleet_asks_the_next_one(
        self, serving: World, tmp_path: Path
    ) -> None:
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

    async def test_a_new_fleet_goes_on_with_the_commit_that_was_being_rolled_out(
        self, serving: World, tmp_path: Path
    ) -> None:
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

    async def test_a_commit_that_is_held_back_is_not_applied_by_a_new_fleet(
        self, serving: World, tmp_path: Path
    ) -> None:
        """Nor is one that was rejected: what was applied last is what a commit's own workflow has planned."""
        applied = (await serving.fleet()).applied_sha
        held = await serving.result(serving.registry.push(registry(WORKERS)))
        assert held.outcome is CommitOutcome.MASS_UNLOAD_BLOCKED
        await fleet(serving).terminate("by mistake")
        await Keeper(serving.entities, tmp_path).look()

        async def made_anew() -> str | None:
            return (await serving.fleet()).applied_sha

        assert await eventually(made_anew, "the fleet is made anew") == applied

    async def test_much_that_git_does_not_name_is_left_until_somebody_accepts_it(
        self, serving: World, tmp_path: Path
    ) -> None:
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

    async def test_what_a_terminated_rollout_had_begun_is_commanded_anew(self, bare_world: World) -> None:
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

    async def test_a_terminated_device_workflow_is_started_again(self, serving: World, tmp_path: Path) -> None:
        """The device answers it, and the ledger is as it was."""
        before = await serving.fleet()
        handle = serving.client.get_workflow_handle(conventions.device_workflow_id("worker-a"))
        await handle.terminate("by mistake")
        await Keeper(serving.entities, tmp_path).look()

        async def heard() -> bool:
            return (await serving.entities.device("worker-a")).health is Health.HEALTHY

        await eventually(heard, "the device is heard")
        assert (await serving.fleet()).slots == before.slots

    @pytest.mark.filterwarnings("ignore::temporalio.workflow.UnfinishedUpdateHandlersWarning")
    async def test_a_fleet_that_a_defect_has_ended_is_told_and_started_again(
        self, serving: World, tmp_path: Path
    ) -> None:
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

    async def test_a_lost_database_is_made_good_from_git_and_the_devices(self, serving: World) -> None:
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


class TestOrders:
    async def test_a_drained_device_is_emptied_without_a_gap(self, fleet_world: World) -> None:
        """The order's answer names the reconciliation; the replica is READY elsewhere before it goes."""
        await fleet_world.result(fleet_world.registry.push(registry(WORKERS, Wanted("ten"))))
        [drained] = places(await fleet_world.settled())
        order = Order(kind="drain", target=drained, by="olga", reason="disk swap")
        answer = await fleet(fleet_world).execute_update("order", order, result_type=OrderAnswer)
        assert answer.accepted
        generation = int((answer.workflow_id or "").rsplit(":", 1)[-1])
        assert (await reconciled(fleet_world, generation)).cause.kind is CauseKind.DRAIN

        async def elsewhere() -> bool:
            places_now = places(await fleet_world.fleet())
            assert ModelState.READY in places_now.values()
            return drained not in places_now

        await eventually(elsewhere, "the device is empty")

    async def test_an_order_that_means_nothing_is_refused(self, fleet_world: World) -> None:
        """An unknown device by its code, an unknown kind as such; as a signal it is only told in the log."""
        await fleet_world.result(fleet_world.registry.push(registry(WORKERS, Wanted("ten"))))
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await fleet(fleet_world).execute_update("order", Order(kind="drain", target="worker-z"))
        assert isinstance(refused.value.cause, ApplicationError)
        assert refused.value.cause.type == "WORKER_UNKNOWN"
        with pytest.raises(WorkflowUpdateFailedError):
            await fleet(fleet_world).execute_update("order", {"kind": "explode"})
        await fleet(fleet_world).signal("give_order", Order(kind="drain", target="worker-z"))
        assert (await fleet_world.fleet()).cordons == {}

    async def test_nothing_to_do_starts_nothing(self, fleet_world: World) -> None:
        """`reconcile` looks at once, and says that all is as it should be."""
        await fleet_world.result(fleet_world.registry.push(registry(WORKERS, Wanted("ten"))))
        await fleet_world.settled()
        answer = await fleet(fleet_world).execute_update("order", Order(kind="reconcile"), result_type=OrderAnswer)
        assert (answer.accepted, answer.words, answer.workflow_id) == (True, "nothing to do", None)
