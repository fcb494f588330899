"""A commit, from its id to its result: accepted, rejected, overtaken, and what git is told of it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from fleets import Wanted, registry, worker
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError
from workflow_world import REGISTRY, World, eventually

from longshore.schemas.commits import CommitOutcome, CommitResult
from longshore.schemas.failures import Failure, LongshoreError
from longshore.schemas.issues import Issue
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.rollouts import RolloutAnswer, RolloutOutcome
from longshore.workflows import conventions
from longshore.workflows.commits import RegistryCommitWorkflow

WORKERS = tuple(worker(f"worker-{letter}") for letter in "abc")


async def test_a_commit_is_applied_and_recorded(fleet_world: World) -> None:
    """Every device is told to load, the ledger has every slot READY, and git gets the result."""
    sha = fleet_world.registry.push(registry(WORKERS, Wanted("ten", replicas=3)))
    result = await fleet_world.result(sha)
    assert result.outcome is CommitOutcome.APPLIED, result.summary
    assert [answer.outcome for answer in result.answers] == [RolloutOutcome.DONE]
    assert [len(device.commands) for device in fleet_world.devices.values()] == [1, 1, 1]
    view = await fleet_world.settled()
    assert [(slot.worker_id, slot.version, slot.state) for slot in view.slots] == [
        (f"worker-{letter}", "1.0.0", ModelState.READY) for letter in "abc"
    ]
    assert [request.result for request in fleet_world.registry.recorded] == [result]


async def test_an_update_reloads_in_place(fleet_world: World) -> None:
    """A new version goes to the devices that have the old one, as RELOADs that name it."""
    await fleet_world.result(fleet_world.registry.push(registry(WORKERS, Wanted("ten", replicas=2))))
    await fleet_world.settled()
    sha = fleet_world.registry.push(registry(WORKERS, Wanted("ten", version="1.1.0", replicas=2)))
    assert (await fleet_world.result(sha)).outcome is CommitOutcome.APPLIED
    reloads = [device.commands[1] for device in fleet_world.devices.values() if len(device.commands) > 1]
    assert [(reload.previous_version, reload.spec.version) for reload in reloads] == [("1.0.0", "1.1.0")] * 2


async def test_a_disabled_deployment_is_unloaded(fleet_world: World) -> None:
    """DISABLE reaches every device, and frees the slots once they have confirmed."""
    await fleet_world.result(fleet_world.registry.push(registry(WORKERS, Wanted("ten", replicas=3))))
    await fleet_world.settled()
    sha = fleet_world.registry.push(registry(WORKERS, Wanted("ten", replicas=3, enabled=False)))
    assert (await fleet_world.result(sha)).outcome is CommitOutcome.APPLIED
    assert (await fleet_world.settled()).slots == ()


async def test_a_rejected_commit_changes_nothing(fleet_world: World) -> None:
    """All findings stand in the result, git gets them, and the fleet is not even asked."""
    issue = Issue(code="MANIFEST_INVALID", file="models/production/ten.yaml", line=3, message="replicas is -1")
    sha = fleet_world.registry.push(registry(WORKERS, Wanted("ten")), issue)
    result = await fleet_world.result(sha)
    assert (result.outcome, result.issues) == (CommitOutcome.REJECTED, (issue,))
    assert [request.result.outcome for request in fleet_world.registry.recorded] == [CommitOutcome.REJECTED]
    assert not any(device.commands for device in fleet_world.devices.values())


async def test_an_old_head_cannot_win_over_a_new_one(fleet_world: World) -> None:
    """A slow poll of the old commit after the webhook of the new one is answered `outdated`."""
    old = fleet_world.registry.push(registry(WORKERS, Wanted("ten", version="1.0.0")))
    new = fleet_world.registry.push(registry(WORKERS, Wanted("ten", version="1.1.0")))
    assert (await fleet_world.result(new)).outcome is CommitOutcome.APPLIED
    assert (await fleet_world.result(old)).outcome is CommitOutcome.OUTDATED
    assert (await fleet_world.fleet()).applied_sha == new
    assert {slot.version for slot in (await fleet_world.settled()).slots} == {"1.1.0"}


async def test_a_rewritten_history_stops_and_is_recorded(fleet_world: World) -> None:
    """A head that does not descend from what runs changes nothing and leaves an error in git."""
    first = fleet_world.registry.push(registry(WORKERS, Wanted("ten")))
    await fleet_world.result(first)
    result = await fleet_world.result(fleet_world.registry.rewrite(registry(WORKERS)))
    assert result.outcome is CommitOutcome.HISTORY_REWRITTEN
    assert (await fleet_world.fleet()).applied_sha == first
    assert fleet_world.registry.recorded[-1].result.outcome is CommitOutcome.HISTORY_REWRITTEN


async def test_a_failed_load_is_told_to_everybody(fleet_world: World) -> None:
    """The result, the ledger and git have the code of the device's failure; the other replicas run."""
    await fleet_world.result(fleet_world.registry.push(registry(WORKERS)))
    fleet_world.devices["worker-b"].failures["1.0.0"] = Failure(code="CHECKSUM_MISMATCH", message="abc is not def")
    result = await fleet_world.result(fleet_world.registry.push(registry(WORKERS, Wanted("ten", replicas=3))))
    assert result.outcome is CommitOutcome.PARTLY_APPLIED
    assert "CHECKSUM_MISMATCH" in result.answers[0].message
    states = {slot.worker_id: (slot.state, slot.code) for slot in (await fleet_world.settled()).slots}
    assert states == {
        "worker-a": (ModelState.READY, None),
        "worker-b": (ModelState.FAILED, "CHECKSUM_MISMATCH"),
        "worker-c": (ModelState.READY, None),
    }


async def test_a_failed_reload_leaves_the_old_version_ready(fleet_world: World) -> None:
    """The slot is READY with the version before, and says why it is not the wanted one."""
    await fleet_world.result(fleet_world.registry.push(registry(WORKERS, Wanted("ten", replicas=1))))
    holder = (await fleet_world.settled()).slots[0].worker_id
    fleet_world.devices[holder].failures["1.1.0"] = Failure(code="VALIDATION_FAILED", message="answered nonsense")
    sha = fleet_world.registry.push(registry(WORKERS, Wanted("ten", version="1.1.0", replicas=1)))
    assert (await fleet_world.result(sha)).outcome is CommitOutcome.PARTLY_APPLIED
    slot = (await fleet_world.settled()).slots[0]
    assert (slot.version, slot.state, slot.code) == ("1.0.0", ModelState.READY, "VALIDATION_FAILED")


async def test_replicas_without_a_place_make_it_partly_applied(fleet_world: World) -> None:
    """Three devices cannot take five replicas: three run, and the answer says so."""
    result = await fleet_world.result(fleet_world.registry.push(registry(WORKERS, Wanted("ten", replicas=5))))
    assert result.outcome is CommitOutcome.PARTLY_APPLIED
    assert result.answers[0].outcome is RolloutOutcome.INCOMPLETE
    assert "2 of 5 replicas" in result.answers[0].message


async def test_what_failed_is_recorded_while_a_device_is_away(
    fleet_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One deployment failed, the other waits for a device that nobody has started: git has the failure all the same."""
    monkeypatch.setattr(conventions, "LONGEST_UNRECORDED", timedelta(milliseconds=100))
    workers = (*WORKERS, worker("worker-d", pool="staging"))
    failure = Failure(code="CHECKSUM_MISMATCH", message="not what the card says")
    for device in fleet_world.devices.values():
        device.failures["9.0.0"] = failure
    waiting = Wanted("waiting", selector={"pool": "staging"})
    handle = await fleet_world.commit(fleet_world.registry.push(registry(workers, Wanted("ten", "9.0.0"), waiting)))

    async def recorded() -> CommitResult | None:
        return fleet_world.registry.recorded[0].result if fleet_world.registry.recorded else None

    meanwhile = await eventually(recorded, "the failure stands in git")
    assert [answer.deployment_id for answer in meanwhile.answers] == ["ten"]
    await fleet_world.device("worker-d")
    result = await asyncio.wait_for(handle.result(), 60)
    assert {a.deployment_id: a.outcome for a in result.answers} == {
        "ten": RolloutOutcome.FAILED,
        "waiting": RolloutOutcome.DONE,
    }


async def test_a_commit_whose_rollout_was_terminated_is_answered_all_the_same(
    fleet_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its device had done everything, only the answer was lost with the rollout: the device tells it again."""
    monkeypatch.setattr(conventions, "LONGEST_UNRECORDED", timedelta(milliseconds=100))
    monkeypatch.setattr(conventions, "FIRST_REMINDER", timedelta(milliseconds=500))
    workers = (*WORKERS, worker("worker-d", pool="staging"))
    ten = Wanted("ten", selector={"pool": "staging"})
    handle = await fleet_world.commit(fleet_world.registry.push(registry(workers, ten)))
    rollout = fleet_world.client.get_workflow_handle(conventions.rollout_workflow_id("ten"))

    async def runs() -> bool:
        with suppress(RPCError):
            return (await rollout.describe()).status is WorkflowExecutionStatus.RUNNING
        return False

    await eventually(runs, "the rollout waits for its device")
    await rollout.terminate("by mistake")
    await fleet_world.device("worker-d")
    result = await asyncio.wait_for(handle.result(), 60)
    assert (result.outcome, result.answers[0].outcome) == (CommitOutcome.APPLIED, RolloutOutcome.DONE)


async def test_a_device_that_leaves_git_ends_the_waiting(fleet_world: World) -> None:
    """The commit that waited for it is superseded, the one that removed it is applied, and the fleet forgets it."""
    workers = (*WORKERS, worker("worker-d", pool="staging"))
    wanted = Wanted("ten", selector={}, replicas=4)
    handle = await fleet_world.commit(fleet_world.registry.push(registry(workers, wanted)))

    async def three_ready() -> bool:
        return all(device.models for device in fleet_world.devices.values())

    await eventually(three_ready, "three of four are ready")
    without = await fleet_world.result(fleet_world.registry.push(registry(WORKERS, replace(wanted, replicas=3))))
    assert without.outcome is CommitOutcome.APPLIED
    assert (await asyncio.wait_for(handle.result(), 60)).outcome is CommitOutcome.SUPERSEDED
    assert set((await fleet_world.fleet()).devices) == {"worker-a", "worker-b", "worker-c"}


async def test_an_answer_before_the_plan_is_kept(fleet_world: World) -> None:
    """An answer that arrives while the commit is still being validated counts; a later one does not."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hold(_: str) -> None:
        reached.set()
        await go_on.wait()

    fleet_world.registry.before_validation = hold
    sha = fleet_world.registry.push(registry(WORKERS, Wanted("ten")))
    handle = await fleet_world.commit(sha)
    await reached.wait()
    early = RolloutAnswer(
        deployment_id="ten", generation=1, sha=sha, outcome=RolloutOutcome.DONE, version="1.0.0", message="early"
    )
    await handle.signal(RegistryCommitWorkflow.answer, early)
    go_on.set()
    assert [answer.message for answer in (await handle.result()).answers] == ["early"]


async def test_a_state_that_cannot_be_written_is_said_and_no_more(fleet_world: World) -> None:
    """A registry that refuses our push does not undo the rollout: the summary says what git does not have."""
    fleet_world.registry.record_error = LongshoreError("AUTH_FAILED", "the host refuses our key")
    result = await fleet_world.result(fleet_world.registry.push(registry(WORKERS, Wanted("ten"))))
    assert result.outcome is CommitOutcome.APPLIED
    assert "AUTH_FAILED" in result.summary


async def test_the_watch_finds_a_commit_by_itself(fleet_world: World) -> None:
    """Without any webhook, a head that moves is carried out, and the next one after it."""
    await fleet_world.entities.start_fleet()
    for version in ("1.0.0", "1.1.0"):
        sha = fleet_world.registry.push(registry(WORKERS, Wanted("ten", version=version)))
        fleet_world.registry.head = sha

        async def applied(sha: str = sha) -> bool:
            return (await fleet_world.fleet()).applied_sha == sha

        await eventually(applied, "the watch has seen the commit")


async def test_a_commit_is_carried_out_once(fleet_world: World) -> None:
    """However often it is announced, also after its end, a commit runs once."""
    sha = fleet_world.registry.push(registry(WORKERS, Wanted("ten")))
    await asyncio.gather(*(fleet_world.commit(sha) for _ in range(20)))
    await fleet_world.result(sha)
    await fleet_world.commit(sha)
    assert len(fleet_world.registry.recorded) == 1


async def test_the_web_ui_tells_the_story(fleet_world: World) -> None:
    """Current details and the activities' summaries say what happens in the plan's words."""
    sha = fleet_world.registry.push(registry(WORKERS, Wanted("ten")))
    await fleet_world.result(sha)
    handle = fleet_world.client.get_workflow_handle(conventions.commit_workflow_id(REGISTRY, sha))
    details = await handle.query("__temporal_workflow_metadata")
    assert "NEW_DEPLOYMENT: 1.0.0, 1 replica" in str(details)
    rollout = fleet_world.client.get_workflow_handle(conventions.rollout_workflow_id("ten"))
    summaries = [
        str(event.user_metadata.summary.data)
        for event in (await rollout.fetch_history()).events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
    assert any("LOAD 1.0.0 on worker-" in summary for summary in summaries)
