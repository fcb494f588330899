"""What keeps a rollout's commands from beginning: room that is not made, an operator, a recreation that failed."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from rollout_stage import Stage, making_room, target
from temporalio import activity
from temporalio.worker import Worker
from workflow_world import REGISTRY, eventually

from longshore.activities import rollouts
from longshore.activities.devices import CommandFailed
from longshore.schemas.commands import Action, CommandResult, LoadCommand
from longshore.schemas.failures import Failure, LongshoreError
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import PlannedCommand
from longshore.schemas.rollouts import RolloutOutcome, RolloutTarget, SlotResult, Steering
from longshore.workflows import conventions
from longshore.workflows.steering import Helm, Turns


def recreating(*, at_once: int = 1) -> RolloutTarget:
    wanted = target(1, action=Action.RELOAD, recreate=True)
    return wanted.model_copy(update={"plan": wanted.plan.model_copy(update={"max_unavailable": at_once})})


class Once:
    """Does something at a step, the first time that it is reached."""

    def __init__(self, stage: Stage, step: str) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        self._step = step
        stage.at = self

    async def __call__(self, step: str) -> None:
        if step == self._step and not self.reached.is_set():
            self.reached.set()
            await self.go_on.wait()


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollouts, "LOOK_SECONDS", 0.05)


async def test_a_load_waits_for_the_room_that_an_eviction_makes(stage: Stage) -> None:
    """The device is given nothing before the ledger holds its victim no more; the other device does not wait."""
    stage.evicting()
    looks = asyncio.Semaphore(0)

    async def count(step: str) -> None:
        if step == "look":
            looks.release()

    stage.at = count
    await stage.set(making_room())
    await stage.commanded("worker-a")
    for _ in range(3):
        await looks.acquire()
    assert stage.commands() == {"worker-a": 1, "worker-b": 0}
    assert "waits until churn has gone" in await story(stage)
    stage.ledger = ()
    await stage.ended()
    assert await stage.answers(1) == [RolloutOutcome.DONE]
    assert stage.commands() == {"worker-a": 1, "worker-b": 1}
    events = (await stage.handle.fetch_history()).events
    scheduled = [event.activity_task_scheduled_event_attributes for event in events]
    (room,) = [one for one in scheduled if one.activity_type.name == "await_freed"]
    assert room.heartbeat_timeout.ToTimedelta() == conventions.FREED_HEARTBEAT_TIMEOUT


@pytest.mark.parametrize("action", [Action.LOAD, Action.RELOAD])
async def test_room_that_is_not_made_fails_the_command(stage: Stage, action: Action) -> None:
    """PREEMPTION_FAILED says what stays and why, and the device is never bothered; what serves there, serves on."""
    stage.evicting(ModelState.FAILED, "DEVICE_UNREACHABLE")
    await stage.set(making_room(action=action))
    await stage.ended()
    assert await stage.failures(1) == {"worker-b": "PREEMPTION_FAILED"}
    (answer,) = await stage.received(1)
    assert "churn stays on worker-b: failed (DEVICE_UNREACHABLE)" in answer.message
    state = "failed" if action is Action.LOAD else "ready"
    assert ("worker-b", state, 1, "PREEMPTION_FAILED") in await stage.told_fleet()
    assert stage.commands() == {"worker-a": 1, "worker-b": 0}


async def test_a_newer_target_does_not_wait_for_the_room_of_an_older_one(stage: Stage) -> None:
    """It may want something else there: the wait is dropped with the rest."""
    stage.evicting()
    look = Once(stage, "look")
    await stage.set(making_room())
    await look.reached.wait()
    await stage.set(target(2))
    await stage.ended()
    look.go_on.set()
    assert await stage.answers(1) == [RolloutOutcome.SUPERSEDED]
    assert await stage.answers(2) == [RolloutOutcome.DONE]


async def test_an_unload_that_times_out_has_freed_nothing(stage: Stage) -> None:
    """What it should have taken away may still be there: its slot is FAILED; who waits for its room gets none."""
    never = asyncio.Event()

    async def hang(_: str) -> None:
        await never.wait()

    stage.at = hang
    wanted = target(1, workers="a", action=Action.UNLOAD)
    short = wanted.intervals.model_copy(update={"unload_close": wanted.intervals.schedule_to_start})
    await stage.set(wanted.model_copy(update={"intervals": short}))
    await stage.ended()
    assert await stage.told_fleet() == [("worker-a", "failed", 1, "DEVICE_UNREACHABLE")]


@pytest.mark.parametrize("step", ["resolve 1", "look", "worker-a 1"])
async def test_a_paused_rollout_begins_nothing(stage: Stage, step: str) -> None:
    """What a device has begun goes on, the rest waits and says so until it is resumed."""
    stage.evicting()
    once = Once(stage, step)
    await stage.set(making_room())
    await once.reached.wait()
    if step == "look":
        await stage.commanded("worker-a")
    for _ in range(2):  # said twice, it is the same
        await stage.steer("pause")
    once.go_on.set()
    stage.ledger = ()
    await stage.idle()
    begun = {"worker-a": 0 if step == "resolve 1" else 1, "worker-b": 0}
    assert stage.commands() == begun
    assert len(await stage.told_fleet()) == begun["worker-a"]
    told = await story(stage)
    assert "**Paused by olga: disk swap**" in told
    assert "waits for its turn" in told
    await stage.steer("resume")
    await stage.ended()
    assert await stage.answers(1) == [RolloutOutcome.DONE]
    assert stage.commands() == {"worker-a": 1, "worker-b": 1}


async def test_a_paused_rollout_does_not_ask_an_absent_device_again(stage: Stage) -> None:
    """The device comes back during the pause and is given nothing, until it is resumed."""
    await stage.set(target(1, workers="z"))
    await eventually(lambda: scheduled(stage), "its command is issued")
    await stage.steer("pause")
    await stage.idle()
    device = await stage.world.device("worker-z")
    assert device.commands == []
    await stage.steer("resume")
    await stage.ended()
    assert await stage.answers(1) == [RolloutOutcome.DONE]


async def test_a_newer_target_begins_unpaused(stage: Stage) -> None:
    """What lasts is the fleet's to keep: it plans nothing for what is held, so what it does plan is wanted."""
    once = Once(stage, "resolve 1")
    await stage.set(target(1))
    await once.reached.wait()
    await stage.steer("pause")
    once.go_on.set()
    await stage.idle()
    await stage.set(target(2, workers="a", action=Action.UNLOAD))
    await stage.ended()
    assert await stage.answers(1) == [RolloutOutcome.SUPERSEDED]
    assert await stage.answers(2) == [RolloutOutcome.DONE]


async def test_a_target_begins_with_the_word_that_it_brings(stage: Stage) -> None:
    """It was paused on its way: nothing is begun; delivered again after it was resumed, it is not paused anew."""
    paused = target(2).model_copy(update={"steering": Steering(kind="pause", generation=2, by="olga")})
    once = Once(stage, "worker-a 2")
    await stage.set(paused)
    await stage.idle()
    assert stage.commands() == {"worker-a": 0, "worker-b": 0}
    assert "**Paused by olga**" in await story(stage)
    await stage.steer("resume", generation=2)
    await once.reached.wait()
    await stage.set(paused)
    assert "Paused" not in await story(stage)
    once.go_on.set()
    await stage.ended()
    assert await stage.answers(2) == [RolloutOutcome.DONE]


async def test_a_target_that_was_aborted_on_its_way_begins_nothing(stage: Stage) -> None:
    """Each device's place is given back."""
    aborted = Steering(kind="abort", generation=1, code="QUARANTINED")
    await stage.set(target(1).model_copy(update={"steering": aborted}))
    await stage.ended()
    assert await stage.failures(1) == dict.fromkeys(("worker-a", "worker-b"), "QUARANTINED")
    assert await begun(stage) == dict.fromkeys(("worker-a", "worker-b"), False)


@pytest.mark.parametrize("step", ["resolve 1", "look", "worker-a 1"])
async def test_an_aborted_rollout_gives_back_what_it_has_not_begun(stage: Stage, step: str) -> None:
    """It ends at once, though neither git nor the room's victim answers; what a device has begun is completed."""
    stage.evicting()
    once = Once(stage, step)
    await stage.set(making_room())
    await once.reached.wait()
    if step == "look":
        await stage.commanded("worker-a")
    await stage.steer("abort", generation=7)  # another target is meant
    for _ in range(2):
        await stage.steer("abort", generation=1)
    if step == "worker-a 1":
        once.go_on.set()
    await stage.ended()
    once.go_on.set()
    given_back = {"worker-b"} if step != "resolve 1" else {"worker-a", "worker-b"}
    assert await stage.failures(1) == dict.fromkeys(given_back, "ABORTED")
    assert {worker for worker, state, _, _ in await stage.told_fleet() if state == "idle"} == given_back
    assert await begun(stage) == {worker: worker not in given_back for worker in ("worker-a", "worker-b")}


async def test_what_a_device_has_begun_outlives_an_abort(stage: Stage) -> None:
    """The device falls silent in the middle of its command: that is asked for again until it has ended."""
    beaten, awake = asyncio.Event(), asyncio.Event()

    @activity.defn
    async def load_model(command: LoadCommand) -> CommandResult:
        activity.heartbeat("half of it")
        beaten.set()
        await awake.wait()
        state = {"state": ModelState.READY, "version": "1.0.0", "digest": "digest-1.0.0"}
        return CommandResult.model_validate(command.model_dump() | state)

    queue = conventions.device_queue("worker-z")
    device = Worker(stage.world.client, task_queue=queue, activities=[load_model], max_concurrent_activities=1)
    await stage.world.run_worker(device)
    wanted = target(1, workers="z")
    quick = wanted.intervals.model_copy(update={"heartbeat_timeout": timedelta(seconds=1)})
    await stage.set(wanted.model_copy(update={"intervals": quick}))
    await beaten.wait()
    await stage.steer("abort")

    async def issued_again() -> bool:
        events = (await stage.handle.fetch_history()).events
        names = [e.activity_task_scheduled_event_attributes.activity_type.name for e in events]
        return names.count("load_model") > 1

    await eventually(issued_again, "the command is issued again")
    awake.set()
    await stage.ended()
    assert await stage.answers(1) == [RolloutOutcome.DONE]


@pytest.mark.parametrize("action", [Action.RELOAD, Action.UNLOAD])
async def test_what_served_serves_on_after_an_abort(stage: Stage, action: Action) -> None:
    """The ledger hears that the command never was: the slot is as it was before, and no failure stands in it."""
    await stage.set(target(1, workers="z", action=action))
    await eventually(lambda: scheduled(stage), "its command is issued")
    await stage.steer("abort", code="QUARANTINED")
    await stage.ended()
    assert await stage.failures(1) == {"worker-z": "QUARANTINED"}
    (event,) = await events(stage)
    digest = "before" if action is Action.RELOAD else None
    assert (event["state"], event["digest"], event["code"], event["begun"]) == ("ready", digest, None, False)


async def test_replicas_are_recreated_one_at_a_time(stage: Stage) -> None:
    """The second device is given its command when the first has answered."""
    once = Once(stage, "worker-a 1")
    await stage.set(recreating())
    await once.reached.wait()
    assert "waits for its turn" in await story(stage)
    assert stage.commands() == {"worker-a": 1, "worker-b": 0}
    once.go_on.set()
    await stage.ended()
    assert [device.commands[0].recreate for device in stage.world.devices.values()] == [True, True]
    assert await stage.answers(1) == [RolloutOutcome.DONE]


@pytest.mark.parametrize(
    ("step", "state"), [("artifact_download", "ready"), ("model_initialization", "failed"), (None, "failed")]
)
async def test_no_replica_is_recreated_after_one_has_failed(stage: Stage, step: str | None, state: str) -> None:
    """The failed one serves on only where it had not been taken down; the others are left as they are."""

    async def fail(reached: str) -> None:
        if reached == "worker-a 1":
            raise CommandFailed(LongshoreError("MODEL_LOAD_FAILED", "load() raised", step=step), None)

    stage.at = fail
    await stage.set(recreating())
    await stage.ended()
    assert await stage.failures(1) == {"worker-a": "MODEL_LOAD_FAILED", "worker-b": "ABORTED"}
    told = [("worker-a", state, 1, "MODEL_LOAD_FAILED"), ("worker-b", "ready", 1, "ABORTED")]
    assert sorted(await stage.told_fleet()) == told
    assert stage.commands() == {"worker-a": 1, "worker-b": 0}


def test_as_many_are_recreated_at_once_as_the_plan_allows() -> None:
    """Two of three: the third waits for either; a failure keeps the third from beginning."""
    wanted = recreating(at_once=2)
    commands = [
        PlannedCommand(action=Action.RELOAD, worker_id=f"worker-{letter}", reason="", recreate=True) for letter in "abc"
    ]
    turns = Turns(wanted, Helm())
    for command in commands[:2]:
        assert turns.free(command)
        turns.begin(command)
    assert turns.free(commands[0]), "what has begun may be issued again"
    assert not turns.free(commands[2])
    turns.end(commands[0], SlotResult(worker_id="worker-a", action=Action.RELOAD))
    assert turns.free(commands[2])
    overtaken = Failure(code="STALE_GENERATION", message="7 has been seen")
    turns.end(commands[1], SlotResult(worker_id="worker-b", action=Action.RELOAD, failure=overtaken))
    assert turns.barred(commands[2]) is None
    broken = Failure(code="RUNNER_OOM", message="killed")
    turns.end(commands[1], SlotResult(worker_id="worker-b", action=Action.RELOAD, failure=broken))
    barred = turns.barred(commands[2])
    assert barred is not None
    assert "worker-b has failed with RUNNER_OOM" in barred.failure.message


def test_what_an_overtaken_target_was_recreating_comes_first() -> None:
    """It may be down: a newer target finishes that before it takes anything else down."""
    wanted = recreating()
    first, second = wanted.plan.commands
    before = Turns(wanted, Helm())
    before.begin(second)
    turns = Turns(wanted, Helm(), before)
    assert (turns.free(first), turns.free(second)) == (False, True)
    turns.end(second, SlotResult(worker_id=second.worker_id, action=second.action))
    assert turns.free(first)
    elsewhere = wanted.plan.model_copy(update={"commands": (first,)})
    assert Turns(wanted.model_copy(update={"plan": elsewhere}), Helm(), before).free(first)


def test_words_to_a_rollout() -> None:
    """They change something once, are for one target only, and an abort is not taken back."""
    helm, first, second = Helm(), target(1), target(2)
    say = [
        ("pause", None, first, True),
        ("pause", 1, first, False),
        ("resume", 1, first, True),
        ("resume", 1, first, False),
        ("abort", 2, first, False),
        ("abort", 1, first, True),
        ("resume", 1, first, False),
        ("resume", None, second, False),
        ("pause", None, None, False),
    ]
    for kind, generation, newest, changes in say:
        word = Steering.model_validate({"kind": kind, "generation": generation})
        assert helm.say(word, newest) is changes, (kind, generation)
    assert helm.aborted(second) is None
    assert not helm.paused(second)


async def story(stage: Stage) -> str:
    """What the Web UI shows of the rollout."""
    return str(await stage.handle.query("__temporal_workflow_metadata"))


async def scheduled(stage: Stage) -> bool:
    """Whether a device's command waits to be picked up."""
    pending = (await stage.handle.describe()).raw_description.pending_activities
    return any(activity.activity_type.name.endswith("_model") for activity in pending)


async def events(stage: Stage) -> list[dict[str, Any]]:
    """What the fleet was told."""
    told: list[dict[str, Any]] = await stage.mail[conventions.fleet_workflow_id(REGISTRY)].query("told")
    return told


async def begun(stage: Stage) -> dict[str, bool]:
    return {event["worker_id"]: event["begun"] for event in await events(stage)}
