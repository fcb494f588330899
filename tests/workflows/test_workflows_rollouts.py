"""The latest-wins actor: whatever arrives when, each target is answered exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from rollout_stage import Stage, target
from temporalio import activity
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer, Worker
from workflow_world import World, eventually, real_server, world

from longshore.broker.control import SANDBOX, WORKFLOWS
from longshore.schemas.commands import Action, LoadCommand
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.failures import Failure
from longshore.schemas.rollouts import RolloutAnswer, RolloutOutcome, RolloutTarget, SpecRequest
from longshore.workflows import conventions


@pytest.fixture
async def short_lived() -> AsyncIterator[Stage]:
    """A server that suggests continue-as-new after 10 events instead of 4,096."""
    suggest = ("--dynamic-config-value", "limit.historyCount.suggestContinueAsNew=10")
    async with real_server(*suggest) as client, world(client) as around:
        stage = Stage(around)
        await stage.open()
        yield stage


async def test_every_command_is_answered_and_the_ledger_told(stage: Stage) -> None:
    """One answer with a result per command, one settled slot per command, and the actor ends."""
    await stage.set(target(1))
    await stage.ended()
    assert await stage.answers(1) == [RolloutOutcome.DONE]
    assert sorted(await stage.told_fleet()) == [("worker-a", "ready", 1, None), ("worker-b", "ready", 1, None)]


STEPS = ["start", "resolve 1", "worker-a 1", "worker-b 1", "after"]


@pytest.mark.parametrize("step", STEPS)
async def test_a_newer_target_wins_at_every_step(stage: Stage, step: str) -> None:
    """Wherever the first rollout is, both commits get exactly one answer, and the newer one's is `done`."""
    await _two_targets(stage, target(1, "1.0.0"), target(2, "1.1.0"), step)
    assert await stage.answers(2) == [RolloutOutcome.DONE]
    first = await stage.answers(1)
    assert first == [RolloutOutcome.DONE if step == "after" else RolloutOutcome.SUPERSEDED]


@pytest.mark.parametrize("step", STEPS)
async def test_an_heir_answers_at_every_step(stage: Stage, step: str) -> None:
    """A reconciliation of the same commit takes the work over: who awaited it before gets the answer of its end."""
    await _two_targets(stage, target(1), target(2, commit=1), step)
    assert await stage.answers(2) == [RolloutOutcome.DONE]
    (first,) = await stage.received(1)
    assert (first.outcome, first.generation) == (RolloutOutcome.DONE, 1 if step == "after" else 2)


@pytest.mark.parametrize("step", ["start", "resolve 1", "worker-a 2", "worker-b 2"])
async def test_an_older_target_of_the_same_commit_gets_the_answer_of_its_heir(stage: Stage, step: str) -> None:
    """Delivered late, it sends no command, and nobody is told that it was superseded."""
    await _two_targets(stage, target(2, commit=1), target(1), step)
    assert [answer.generation for answer in (*await stage.received(1), *await stage.received(2))] == [2, 2]
    assert {c.generation for device in stage.world.devices.values() for c in device.commands} == {2}


async def test_who_awaits_what_is_carried_over_to_a_new_run(short_lived: Stage) -> None:
    """A run whose history has grown long is continued as new between two targets: each is answered once."""
    stage, never = short_lived, asyncio.Event()

    async def hang(step: str) -> None:
        if step == "worker-a 1":
            await never.wait()

    stage.at = hang
    await stage.set(target(1))
    await stage.commanded("worker-a")
    first_run = (await stage.handle.describe()).run_id
    await stage.set(target(2, commit=1), target(1))
    await stage.ended()
    assert (await stage.handle.describe()).run_id != first_run
    long = await stage.world.client.get_workflow_handle(stage.handle.id, run_id=first_run).fetch_history()
    replayer = Replayer(workflows=WORKFLOWS, data_converter=pydantic_data_converter, workflow_runner=SANDBOX)
    await replayer.replay_workflow(long)
    assert [answer.generation for answer in (*await stage.received(1), *await stage.received(2))] == [2, 2]


@pytest.mark.parametrize("step", ["start", "resolve 2", "worker-a 2", "worker-b 2"])
async def test_an_older_target_never_wins(stage: Stage, step: str) -> None:
    """A lower generation that arrives late is answered `superseded` and sends no command."""
    await _two_targets(stage, target(2, "1.1.0"), target(1, "1.0.0"), step)
    assert await stage.answers(2) == [RolloutOutcome.DONE]
    assert await stage.answers(1) == [RolloutOutcome.SUPERSEDED]
    generations = {command.generation for device in stage.world.devices.values() for command in device.commands}
    assert generations == {2}


async def test_a_target_that_comes_too_late_is_answered_and_not_carried_out(stage: Stage) -> None:
    """The rollout that knew better has ended, and no device has seen anything newer that would refuse it."""
    await stage.set(target(1).model_copy(update={"outdated": True}))
    await stage.ended()
    (answer,) = await stage.received(1)
    assert (answer.outcome, answer.message) == (RolloutOutcome.SUPERSEDED, "the ledger has other plans by now")
    assert (stage.commands(), await stage.told_fleet()) == ({"worker-a": 0, "worker-b": 0}, [])


async def test_an_unload_wins_over_a_load_that_hangs(stage: Stage) -> None:
    """Superseding waits for nothing: a device that does not even notice the cancellation holds up nobody."""
    never = asyncio.Event()

    async def hang(step: str) -> None:
        if step == "worker-a 1":
            await never.wait()

    stage.at = hang
    await stage.set(target(1))
    await stage.commanded("worker-a")
    await stage.set(target(2, workers="ab", action=Action.UNLOAD))
    await stage.ended()
    assert await stage.answers(1) == [RolloutOutcome.SUPERSEDED]
    assert await stage.answers(2) == [RolloutOutcome.DONE]


async def test_a_target_that_is_delivered_twice_is_answered_once(stage: Stage) -> None:
    """start_rollouts may be tried again: the same target is the same request."""
    again = asyncio.Event()

    async def deliver_again(step: str) -> None:
        if step == "worker-a 1" and not again.is_set():
            again.set()
            await stage.set(target(1))

    stage.at = deliver_again
    await stage.set(target(1))
    await stage.ended()
    assert await stage.answers(1) == [RolloutOutcome.DONE]
    assert [len(device.commands) for device in stage.world.devices.values()] == [1, 1]


async def test_a_commit_and_a_fleet_that_are_gone_are_no_failure(stage: Stage) -> None:
    """Nobody left to tell: the rollout is carried out all the same."""
    for mailbox in stage.mail.values():
        await mailbox.terminate()
    await stage.set(target(1))
    await stage.ended()
    assert [len(device.commands) for device in stage.world.devices.values()] == [1, 1]


async def test_an_absent_devices_command_waits_for_it(stage: Stage) -> None:
    """The command is issued again and again until the device is there; the answer waits, the others do not."""
    await stage.set(target(1, workers="abz"))
    await stage.commanded("worker-b")

    async def issued_again() -> bool:
        events = (await stage.handle.fetch_history()).events
        return sum(event.HasField("activity_task_timed_out_event_attributes") for event in events) >= 2

    await eventually(issued_again, "the command has been issued three times")
    assert await stage.answers(1) == []
    await stage.world.device("worker-z")
    await stage.ended()
    assert await stage.answers(1) == [RolloutOutcome.DONE]
    assert len(stage.world.devices["worker-z"].commands) == 1


async def test_a_device_that_knows_better_supersedes(stage: Stage) -> None:
    """STALE_GENERATION from every device means that a newer commit was there: no failure, and no settled slot."""
    for device in stage.world.devices.values():
        device.failures["1.0.0"] = Failure(code="STALE_GENERATION", message="7 has been seen")
    await stage.set(target(1))
    await stage.ended()
    assert await stage.answers(1) == [RolloutOutcome.SUPERSEDED]
    assert await stage.told_fleet() == []


async def test_a_failed_reload_is_settled_as_ready(stage: Stage) -> None:
    """The ledger hears that the old version serves, and why."""
    stage.world.devices["worker-a"].failures["1.0.0"] = Failure(code="RUNNER_OOM", message="killed")
    await stage.set(target(1, workers="a", action=Action.RELOAD))
    await stage.ended()
    assert await stage.answers(1) == [RolloutOutcome.FAILED]
    assert await stage.told_fleet() == [("worker-a", "ready", 1, "RUNNER_OOM")]


async def test_a_moved_tag_fails_the_loads(bare_world: World) -> None:
    """A spec that cannot be had fails every LOAD with its code, and no device is bothered."""

    @activity.defn
    async def resolve_spec(_: SpecRequest) -> DeploymentSpec:
        failure = Failure(code="TAG_MOVED", message="v1.0.0 is another commit by now").model_dump(mode="json")
        raise ApplicationError("TAG_MOVED", failure, type="TAG_MOVED", non_retryable=True)

    await bare_world.start_broker(resolve_spec=resolve_spec)
    await bare_world.open_mailboxes()
    mailbox = await bare_world.mailbox("commit-1")
    await bare_world.device("worker-a")
    await bare_world.entities.set_targets((target(1, workers="a"),))

    async def answered() -> list[RolloutAnswer]:
        return await mailbox.query("answers", result_type=list[RolloutAnswer])

    (answer,) = await eventually(answered, "the commit is answered")
    assert answer.outcome is RolloutOutcome.FAILED
    assert "v1.0.0 is another commit" in answer.message
    assert bare_world.devices["worker-a"].commands == []


REPLY = {"deployment_id": "ten", "worker_id": "worker-z", "generation": 1, "version": "1.0.0", "digest": "digest-1.0.0"}


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ("done!", "cannot be read"),
        ({"worker_id": 5}, "cannot be read"),
        (REPLY | {"state": "ready", "generation": 0}, "generation 0 instead of"),
        (REPLY | {"state": "idle"}, "ten idle on worker-z"),
    ],
)
async def test_a_reply_that_cannot_be_read_hurts_its_own_command_only(stage: Stage, reply: object, says: str) -> None:
    """Another release, or a defect: the other devices' commands, the answer and the actor are as ever (FAULTS 65)."""

    @activity.defn
    async def load_model(_: LoadCommand) -> object:
        return reply

    await stage.world.run_worker(Worker(stage.world.client, task_queue="device:worker-z", activities=[load_model]))
    await stage.set(target(1, workers="az"))
    await stage.ended()
    assert await stage.failures(1) == {"worker-z": "DEVICE_REPLY_INVALID"}
    (answer,) = await stage.received(1)
    assert says in answer.message
    assert sorted(await stage.told_fleet()) == [
        ("worker-a", "ready", 1, None),
        ("worker-z", "failed", 1, "DEVICE_REPLY_INVALID"),
    ]


@pytest.mark.parametrize("details", [5, {"code": "NEVER_HEARD_OF", "message": "killed"}, None])
async def test_a_failure_that_cannot_be_read_has_its_code_all_the_same(stage: Stage, details: object) -> None:
    """The code stands in the error itself, where only known ones count."""

    @activity.defn
    async def load_model(_: LoadCommand) -> None:
        more = () if details is None else (details,)
        raise ApplicationError("killed", *more, type="RUNNER_OOM", non_retryable=True)

    await stage.world.run_worker(Worker(stage.world.client, task_queue="device:worker-z", activities=[load_model]))
    await stage.set(target(1, workers="az"))
    await stage.ended()
    assert await stage.failures(1) == {"worker-z": "RUNNER_OOM"}


async def test_an_unload_does_not_wait_for_a_spec(real_world: World) -> None:
    """Its git host being away, a deployment can still be taken off a device."""
    asked, never = asyncio.Event(), asyncio.Event()

    @activity.defn
    async def resolve_spec(_: SpecRequest) -> DeploymentSpec:
        asked.set()
        await never.wait()
        raise AssertionError

    await real_world.start_broker(resolve_spec=resolve_spec)
    device = await real_world.device("worker-a")
    mixed = target(1, workers="b")
    unload = target(1, workers="a", action=Action.UNLOAD).plan.commands
    plan = mixed.plan.model_copy(update={"commands": (*mixed.plan.commands, *unload)})
    await real_world.entities.set_targets((mixed.model_copy(update={"plan": plan}),))
    await asked.wait()

    async def unloaded() -> bool:
        return bool(device.commands)

    await eventually(unloaded, "the UNLOAD is carried out")


async def test_many_tracebacks_travel_as_one(stage: Stage) -> None:
    """An answer is a signal: the details of a failure code are kept once, and only their end."""
    failure = Failure(code="MODEL_LOAD_FAILED", message="x" * 9_000, details="frame\n" * 9_000 + "the cause")
    for device in stage.world.devices.values():
        device.failures["1.0.0"] = failure
    await stage.set(target(1))
    await stage.ended()
    answer = await stage.handle.result()
    details = [result["failure"]["details"] for result in answer["results"]]
    assert [text is not None for text in details] == [True, False]
    assert details[0].endswith("the cause")
    assert len(str(answer)) < 10_000


async def test_what_a_replay_cannot_see(stage: Stage) -> None:
    """Queues, time-outs and retry policies of the commands, read from a history."""
    await stage.set(target(1, workers="a"))
    await stage.ended()
    scheduled = [
        event.activity_task_scheduled_event_attributes
        for event in (await stage.handle.fetch_history()).events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
    (load,) = [a for a in scheduled if a.activity_type.name == "load_model"]
    (resolve,) = [a for a in scheduled if a.activity_type.name == "resolve_spec"]
    assert (load.task_queue.name, resolve.task_queue.name) == ("device:worker-a", "broker")
    assert load.schedule_to_start_timeout.ToTimedelta() == timedelta(milliseconds=300)
    assert load.schedule_to_close_timeout.ToTimedelta() == timedelta(hours=2, milliseconds=300)
    assert load.heartbeat_timeout.ToTimedelta() == timedelta(seconds=30)
    assert load.retry_policy.maximum_attempts == 0
    assert load.retry_policy.maximum_interval.ToTimedelta() == timedelta(seconds=30)
    assert resolve.heartbeat_timeout.ToTimedelta() == conventions.BROKER_HEARTBEAT_TIMEOUT


async def _two_targets(stage: Stage, first: RolloutTarget, second: RolloutTarget, step: str) -> None:
    """Set `first`, and `second` when `step` is reached; wait until the actor has ended for good."""
    delivered = asyncio.Event()

    async def deliver(reached: str) -> None:
        if reached == step and not delivered.is_set():
            delivered.set()
            await stage.set(second)

    stage.at = deliver
    await (stage.set(first, second) if step == "start" else stage.set(first))
    await stage.ended()
    if step == "after":
        await stage.set(second)
        await stage.ended()

    async def both_answered() -> bool:
        return bool(await stage.answers(1)) and bool(await stage.answers(2))

    await eventually(both_answered, "both commits are answered")
    await stage.ended()
