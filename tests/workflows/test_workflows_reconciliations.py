"""What the fleet does unasked: failures are made good, losses repaired, and at rest nothing is done at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from fleet_views import commands, fleet, places
from fleets import Wanted, registry, worker
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from workflow_world import REGISTRY, World, eventually, real_server, world

from longshore.schemas.commits import CommitOutcome
from longshore.schemas.devices import Health
from longshore.schemas.fleet import FleetView, PlanningInput
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.orders import Order, OrderAnswer
from longshore.schemas.plans import CauseKind, Plan
from longshore.schemas.reconciliations import ReconciliationResult
from longshore.workflows import conventions

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
        reconciliation = conventions.reconciliation_workflow_id(REGISTRY, view.generation)
        handle = quick_world.client.get_workflow_handle(reconciliation)
        story = str(await handle.query("__temporal_workflow_metadata"))
        assert f"**{result.summary}**" in story  # the cause stands there once
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

    async def test_a_device_that_fails_with_nothing_on_it_is_told_as_well(self, quick_world: World) -> None:
        """Ops learns of it once, as an alarm of its own: there is nothing to do (PRD §5.5 step 6)."""
        await quick_world.result(quick_world.registry.push(registry(WORKERS, Wanted("ten"))))
        [busy] = places(await quick_world.settled())
        before = commands(quick_world)
        idle = next(name for name in quick_world.devices if name != busy)
        quick_world.devices[idle].silent = True

        async def told() -> bool:
            return bool(quick_world.registry.reconciled)

        await eventually(told, "it is written to git")
        [notice] = [request.notice for request in quick_world.people.told]
        assert "worker failed" in notice.title
        assert f"{idle} has failed" in notice.body
        [request] = quick_world.registry.reconciled
        assert request.workflow_id.startswith("alarm:")
        assert commands(quick_world) == before

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

    async def test_an_order_during_a_commits_plan_counts_for_it(self, fleet_world: World) -> None:
        """A deployment that is paused while its new version is planned gets no command: the plan is made anew."""
        await fleet_world.result(fleet_world.registry.push(registry(WORKERS, Wanted("ten"))))
        before = commands(fleet_world)
        asked, go_on = asyncio.Event(), asyncio.Event()
        make_plan = fleet_world.planner.plan

        async def slowly(asked_for: PlanningInput) -> Plan:
            plan = await make_plan(asked_for)
            asked.set()
            await go_on.wait()
            return plan

        fleet_world.planner.plan = slowly  # type: ignore[method-assign]
        commit = await fleet_world.commit(fleet_world.registry.push(registry(WORKERS, Wanted("ten", version="1.1.0"))))
        await asked.wait()
        await fleet(fleet_world).signal("give_order", Order(kind="pause", target="ten", by="olga"))
        go_on.set()
        result = await asyncio.wait_for(commit.result(), 30)
        assert result.outcome is CommitOutcome.PARTLY_APPLIED
        assert result.answers[0].message == "1 of 1 replicas are held back: paused by olga"
        assert commands(fleet_world) == before

    async def test_a_deployment_that_is_paused_once_it_is_planned_is_given_nothing(self, fleet_world: World) -> None:
        """The order meets no rollout, and the plan did not know of it: the target begins paused all the same."""
        asked, go_on = asyncio.Event(), asyncio.Event()
        look = fleet_world.entities.fleet

        async def later() -> FleetView:
            if (await look()).generation > 1:  # planned, and on its way to the rollout
                asked.set()
                await go_on.wait()
            return await look()

        await fleet_world.result(fleet_world.registry.push(registry(WORKERS, Wanted("ten"))))
        await fleet_world.settled()
        fleet_world.entities.fleet = later  # type: ignore[method-assign]
        commit = await fleet_world.commit(fleet_world.registry.push(registry(WORKERS, Wanted("ten", version="1.1.0"))))
        await asked.wait()
        await fleet(fleet_world).signal("give_order", Order(kind="pause", target="ten", by="olga"))
        go_on.set()
        rollout = fleet_world.client.get_workflow_handle(conventions.rollout_workflow_id("ten"))

        async def paused() -> bool:
            return "**Paused by olga**" in str(await rollout.query("__temporal_workflow_metadata"))

        await eventually(paused, "the rollout is paused")
        assert [kind for _, _, kind in commands(fleet_world)] == ["Load"]
        await fleet(fleet_world).signal("give_order", Order(kind="resume", target="ten"))
        assert (await asyncio.wait_for(commit.result(), 30)).outcome is CommitOutcome.APPLIED
        assert [kind for _, _, kind in commands(fleet_world)].count("Reload") == 1

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
