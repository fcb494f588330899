"""The ledger: what it remembers, what it refuses, and how it lives on as a new run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from fleets import Wanted, registry, worker
from temporalio import activity, workflow
from temporalio.client import WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer
from workflow_world import REGISTRY, World, eventually, real_server, world

from longshore.broker.control import SANDBOX, WORKFLOWS, control_worker
from longshore.schemas.commands import Action
from longshore.schemas.devices import DeviceRecord, Health
from longshore.schemas.failures import LongshoreError
from longshore.schemas.fleet import PlanAnswer, PlanningInput, PlanOutcome, PlanRequest
from longshore.schemas.orders import Order, OrderAnswer
from longshore.schemas.plans import DeploymentPlan, Plan, PlannedCommand
from longshore.workflows import conventions
from longshore.workflows.fleet import FleetWorkflow

WORKERS = tuple(worker(f"worker-{letter}") for letter in "ab")


def ask(sha: str, request_id: str = "request-1", registry: str = REGISTRY) -> PlanRequest:
    return PlanRequest(request_id=request_id, registry=registry, sha=sha, workers=("worker-a", "worker-b"))


async def test_the_same_request_gets_the_same_answer(bare_world: World) -> None:
    """An activity that is tried again asks again: nothing is planned twice, no generation is lost."""
    await bare_world.start_broker()
    sha = bare_world.registry.push(registry(WORKERS, Wanted("ten", replicas=2)))
    answers = await asyncio.gather(*(bare_world.entities.ask_fleet(ask(sha)) for _ in range(5)))
    assert all(answer == answers[0] for answer in answers)
    assert (await bare_world.fleet()).generation == 1


async def test_the_applied_commit_is_answered_as_recorded(bare_world: World) -> None:
    """A commit's second run gets the plan of the first, under its own request id."""
    await bare_world.start_broker()
    sha = bare_world.registry.push(registry(WORKERS, Wanted("ten", replicas=2)))
    first = await bare_world.entities.ask_fleet(ask(sha))
    again = await bare_world.entities.ask_fleet(ask(sha, "request-2"))
    assert (again.plan, again.request_id) == (first.plan, "request-2")


async def test_plans_are_made_one_after_the_other(bare_world: World) -> None:
    """Five commits that ask at once: whatever the order, each plan stands on the one before."""
    await bare_world.start_broker()
    shas = [bare_world.registry.push(registry(WORKERS, Wanted("ten", version=f"1.{n}.0"))) for n in range(5)]
    answers = await asyncio.gather(*(bare_world.entities.ask_fleet(ask(sha, sha)) for sha in shas))
    generations = [answer.plan.generation for answer in answers if answer.plan is not None]
    assert len(set(generations)) == len(generations)
    assert (await bare_world.fleet()).applied_sha == shas[-1]
    assert {a.outcome for a in answers} <= {PlanOutcome.PLANNED, PlanOutcome.OUTDATED}


async def test_a_foreign_request_is_refused(bare_world: World) -> None:
    """The update's validator: nothing of it stands in the history."""
    await bare_world.start_broker()
    with pytest.raises(ApplicationError, match="not of 'other'"):
        await bare_world.entities.ask_fleet(ask("a" * 40, registry="other"))


async def test_a_commit_that_cannot_be_planned_fails_alone(bare_world: World) -> None:
    """The asker gets the code; the fleet goes on with the next commit."""
    await bare_world.start_broker()
    broken = bare_world.registry.push(registry(WORKERS, Wanted("ten")))
    plans = bare_world.registry.snapshot

    async def snapshot(sha: str) -> object:
        if sha == broken:
            raise LongshoreError("CARD_INVALID", "the card is not what it was")
        return await plans(sha)

    bare_world.registry.snapshot = snapshot  # type: ignore[method-assign]
    with pytest.raises(ApplicationError) as refused:
        await bare_world.entities.ask_fleet(ask(broken))
    assert refused.value.type == "CARD_INVALID"
    sha = bare_world.registry.push(registry(WORKERS, Wanted("ten")))
    assert (await bare_world.entities.ask_fleet(ask(sha, "request-2"))).outcome is PlanOutcome.PLANNED


async def test_a_first_report_is_waited_for(bare_world: World) -> None:
    """A plan that needs devices nobody has heard of gives them a moment: one that reports in it is used first."""
    await bare_world.start_broker()
    await bare_world.entities.start_fleet()
    handle = bare_world.client.get_workflow_handle_for(FleetWorkflow.run, conventions.fleet_workflow_id(REGISTRY))
    sha = bare_world.registry.push(registry(WORKERS, Wanted("ten", replicas=1)))
    asked = asyncio.create_task(bare_world.entities.ask_fleet(ask(sha)))
    await handle.signal(FleetWorkflow.device_changed, DeviceRecord(worker_id="worker-b", health=Health.HEALTHY))
    plan = (await asked).plan
    assert plan is not None
    assert [command.worker_id for command in plan.deployments[0].commands] == ["worker-b"]


@pytest.mark.filterwarnings("ignore::temporalio.workflow.UnfinishedUpdateHandlersWarning")
async def test_a_defect_fails_the_run(bare_world: World) -> None:
    """A plan that contradicts the ledger ends the fleet's run where it can be seen, instead of repeating for ever."""

    @activity.defn
    async def plan_commit(asked: PlanningInput) -> PlanAnswer:
        unload = PlannedCommand(action=Action.UNLOAD, worker_id="worker-a", reason="of what?")
        deployment = DeploymentPlan(
            deployment_id="ten", generation=1, version=None, digest=None, replicas=0, changes=(), commands=(unload,)
        )
        plan = Plan(sha=asked.request.sha, generation=1, deployments=(deployment,), workers=("worker-a",))
        return PlanAnswer(
            request_id=asked.request.request_id,
            sha=asked.request.sha,
            outcome=PlanOutcome.PLANNED,
            applied_sha=asked.request.sha,
            plan=plan,
        )

    await bare_world.start_broker(plan_commit=plan_commit)
    await bare_world.entities.start_fleet()
    handle = bare_world.client.get_workflow_handle(conventions.fleet_workflow_id(REGISTRY))
    asked = asyncio.create_task(bare_world.entities.ask_fleet(ask("a" * 40)))

    async def failed() -> bool:
        return (await handle.describe()).status is WorkflowExecutionStatus.FAILED

    await eventually(failed, "the run has failed")
    asked.cancel()


@pytest.fixture
async def short_lived() -> AsyncIterator[World]:
    """A server that suggests continue-as-new after 40 events instead of 4,096."""
    suggest = ("--dynamic-config-value", "limit.historyCount.suggestContinueAsNew=40")
    async with real_server(*suggest) as client, world(client) as around:
        await around.start_broker()
        yield around


async def test_a_new_run_knows_what_the_old_one_knew(short_lived: World) -> None:
    """After continue-as-new: the same ledger, the same devices, and the same answer to an old request."""
    sha = short_lived.registry.push(registry(WORKERS, Wanted("ten", replicas=2)))
    answer = await short_lived.entities.ask_fleet(ask(sha))
    handle = short_lived.client.get_workflow_handle_for(FleetWorkflow.run, conventions.fleet_workflow_id(REGISTRY))
    before, first_run = await short_lived.fleet(), (await handle.describe()).run_id
    record = DeviceRecord(worker_id="worker-b", health=Health.SUSPECT)

    async def renewed() -> bool:
        await handle.signal(FleetWorkflow.device_changed, record)
        return (await handle.describe()).run_id != first_run

    await eventually(renewed, "the fleet continues as a new run")
    after = await short_lived.fleet()
    told = {"devices": before.devices | {"worker-b": record}, "version": before.version + 1}
    assert after == before.model_copy(update=told)
    assert await short_lived.entities.ask_fleet(ask(sha)) == answer


async def test_requests_survive_continue_as_new(short_lived: World) -> None:
    """Commits that ask while runs come and go are all answered, with generations that only rise."""
    handle = short_lived.client.get_workflow_handle_for(FleetWorkflow.run, conventions.fleet_workflow_id(REGISTRY))
    await short_lived.entities.start_fleet()
    generations = []
    for n in range(12):
        sha = short_lived.registry.push(registry(WORKERS, Wanted("ten", version=f"1.{n}.0")))

        async def answered(sha: str = sha) -> PlanAnswer | None:
            try:
                return await short_lived.entities.ask_fleet(ask(sha, sha))
            except WorkflowUpdateFailedError:
                return None  # the activity would be tried again

        answer = await eventually(answered, "the commit is planned")
        assert answer.plan is not None
        generations.append(answer.plan.generation)
    assert generations == list(range(1, 13))
    assert (await handle.describe()).raw_description.workflow_execution_info.first_run_id != (
        await handle.describe()
    ).run_id


async def test_a_run_of_an_older_release_is_renewed_when_a_broker_of_this_one_starts(
    real_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows all that it knew, carries out orders, and nobody had to terminate it; what old brokers told it stays."""
    handle = real_world.client.get_workflow_handle(conventions.fleet_workflow_id(REGISTRY))
    sha = real_world.registry.push(registry(WORKERS, Wanted("ten", replicas=2)))
    with monkeypatch.context() as old:
        old.setattr(workflow, "patched", lambda _: False)
        async with control_worker(real_world.client, real_world.activities(), max_cached_workflows=100):
            for _ in range(2):
                await real_world.entities.start_fleet()
            await real_world.entities.ask_fleet(ask(sha))
            before = await real_world.fleet()
    begun = (await handle.describe()).run_id
    async with control_worker(real_world.client, real_world.activities(), max_cached_workflows=100):
        assert await real_world.fleet() == before
        with pytest.raises(WorkflowUpdateFailedError):
            await handle.execute_update("order", Order(kind="reconcile"))
        assert (await handle.describe()).run_id == begun
        await real_world.entities.start_fleet()

        async def renewed() -> bool:
            return (await handle.describe()).run_id != begun

        await eventually(renewed, "the run is continued as a new one")
        assert (await real_world.fleet()).slots == before.slots
        answer = await handle.execute_update("order", Order(kind="cordon", target="worker-a"), result_type=OrderAnswer)
        assert answer.accepted
    history = await real_world.client.get_workflow_handle(handle.id, run_id=begun).fetch_history()
    replayer = Replayer(workflows=WORKFLOWS, data_converter=pydantic_data_converter, workflow_runner=SANDBOX)
    await replayer.replay_workflow(history)
