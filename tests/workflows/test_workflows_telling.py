"""People and a commit: who is told, at most once, and that nobody who cannot be told holds it up."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from fleets import Wanted, registry, worker
from http_endpoint import Answer, endpoint
from temporalio.worker import Worker
from workflow_world import REGISTRY, World, eventually, real_server, time_skipping_server, world

from longshore.activities.telling import TellingActivities
from longshore.broker.commit_status import WebUI
from longshore.broker.control import SANDBOX, WORKFLOWS
from longshore.broker.notifications import Notifications
from longshore.schemas.commits import CommitOutcome
from longshore.schemas.failures import Failure, LongshoreError
from longshore.schemas.issues import Audience, Issue
from longshore.schemas.telling import CommitState, NotifyRequest
from longshore.workflows import conventions

ROOT = Path(__file__).parents[2]
WORKERS = tuple(worker(f"worker-{letter}") for letter in "abc")
MANIFEST = Issue(code="MANIFEST_INVALID", file="models/production/ten.yaml", message="replicas is -1")
CARD = Issue(code="CARD_INVALID", file="x@v1:card.yaml", message="no owner", told=(Audience.OPS, Audience.ML))
SETTINGS = {
    "status_repository": f"acme/{REGISTRY}",
    "status_host": "github",
    "status_token": "t",
    "notify_ops": "json://ops.example/one, json://ops.example/two",
    "notify_ml": "json://ml.example/",
}


@pytest.fixture
async def people_world() -> AsyncIterator[World]:
    """A broker that can tell two audiences by three channels and show a status; three devices that are on."""
    async with time_skipping_server() as client, world(client, **SETTINGS) as around:
        await around.start_broker()
        for letter in "abc":
            await around.device(f"worker-{letter}")
        yield around


def channels(around: World) -> list[tuple[Audience, int]]:
    return sorted((request.audience, request.channel) for request in around.people.told)


async def test_what_is_in_order_is_shown_and_told_to_nobody(people_world: World) -> None:
    """The commit has its pending and its successful status."""
    result = await people_world.result(people_world.registry.push(registry(WORKERS, Wanted("ten"))))
    assert [shown.state for shown in people_world.people.shown] == [CommitState.PENDING, CommitState.SUCCESS]
    assert people_world.people.shown[1].description == result.summary
    assert people_world.people.told == []


async def test_a_rejection_is_told_to_those_whom_it_concerns(people_world: World) -> None:
    """Ops by both channels; the ML team only where a card is at fault, and only of that."""
    await people_world.result(people_world.registry.push(registry(WORKERS), MANIFEST))
    assert channels(people_world) == [(Audience.OPS, 0), (Audience.OPS, 1)]
    people_world.people.told.clear()
    await people_world.result(people_world.registry.push(registry(WORKERS), MANIFEST, CARD))
    assert channels(people_world) == [(Audience.ML, 0), (Audience.OPS, 0), (Audience.OPS, 1)]
    assert people_world.people.shown[-1].state is CommitState.FAILURE
    assert people_world.people.shown[-1].description.startswith("2 errors, first models/production/ten.yaml")
    ml = next(request for request in people_world.people.told if request.audience is Audience.ML)
    assert "MANIFEST_INVALID" not in ml.notice.body


async def test_ops_learn_of_a_failed_rollout(people_world: World) -> None:
    """Partly applied: the ML team has nothing to mend."""
    for device in people_world.devices.values():
        device.failures["9.0.0"] = Failure(code="CHECKSUM_MISMATCH", message="not what the card says")
    result = await people_world.result(people_world.registry.push(registry(WORKERS, Wanted("ten", "9.0.0"))))
    assert result.outcome is CommitOutcome.PARTLY_APPLIED
    assert channels(people_world) == [(Audience.OPS, 0), (Audience.OPS, 1)]
    assert "CHECKSUM_MISMATCH" in people_world.people.told[0].notice.body


async def test_people_are_told_after_git_has_it(people_world: World) -> None:
    """Whoever follows the notice finds the error file."""
    recorded_before: list[int] = []

    async def look(_: NotifyRequest) -> None:
        recorded_before.append(len(people_world.registry.recorded))

    people_world.people.before_sending = look
    await people_world.result(people_world.registry.push(registry(WORKERS), MANIFEST))
    assert recorded_before == [1, 1]


async def test_a_channel_that_failed_is_tried_again_and_the_others_are_not(people_world: World) -> None:
    """The mark is taken back where certainly nobody was told."""
    failures = iter([LongshoreError("CHANNEL_FAILED", "503")] * 2)

    def refuse(request: NotifyRequest) -> LongshoreError | None:
        return next(failures, None) if request.channel == 1 else None

    people_world.people.refuse = refuse
    result = await people_world.result(people_world.registry.push(registry(WORKERS), MANIFEST))
    assert channels(people_world) == [(Audience.OPS, 0), (Audience.OPS, 1)]
    assert "not told" not in result.summary


async def test_what_could_not_be_told_is_said_and_no_more(people_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome is the commit's own; its summary says once who does not know it, and why."""
    monkeypatch.setattr(conventions, "NOTIFY_PATIENCE", timedelta(seconds=3))
    people_world.people.show_error = LongshoreError("AUTH_FAILED", "github answers 401")
    people_world.people.refuse = lambda request: LongshoreError(
        "CHANNEL_FAILED" if request.channel else "CHANNEL_UNUSABLE", "so it is"
    )
    result = await people_world.result(people_world.registry.push(registry(WORKERS), MANIFEST))
    assert result.outcome is CommitOutcome.REJECTED
    before, _, untold = result.summary.partition("; not told: ")
    assert before.startswith("rejected: 1 error")
    assert untold.split("; ") == [
        "the status on github: AUTH_FAILED: github answers 401",
        "ops by channel 1: CHANNEL_UNUSABLE: so it is",
        "ops by channel 2: CHANNEL_FAILED: so it is",
    ]
    assert len(people_world.registry.recorded) == 1


async def test_a_status_that_hangs_holds_no_rollout_up(people_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The devices are told at once, while the git host still thinks about the pending status."""
    answered = asyncio.Event()

    async def hang(_: object) -> None:
        await answered.wait()

    monkeypatch.setattr(people_world.people, "show", hang)
    handle = await people_world.commit(people_world.registry.push(registry(WORKERS, Wanted("ten"))))

    async def recorded() -> bool:
        return bool(people_world.registry.recorded)

    await eventually(recorded, "the commit is carried out and recorded")
    answered.set()
    assert (await handle.result()).outcome is CommitOutcome.APPLIED


async def test_a_commit_of_a_broker_without_channels_is_told_to_nobody(fleet_world: World) -> None:
    """Nothing is set, nothing is done: its history is that of the releases before."""
    sha = fleet_world.registry.push(registry(WORKERS), MANIFEST)
    await fleet_world.result(sha)
    handle = fleet_world.client.get_workflow_handle(conventions.commit_workflow_id(REGISTRY, sha))
    events = (await handle.fetch_history()).events
    assert not any(event.HasField("marker_recorded_event_attributes") for event in events)
    assert (fleet_world.people.shown, fleet_world.people.told) == ([], [])


async def test_a_state_that_cannot_be_pushed_for_hours_is_deferred(
    fleet_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 50: the commit serves; its result says what git does not have, and the next one writes it."""
    monkeypatch.setattr(conventions, "RECORD_PATIENCE", timedelta(seconds=3))
    fleet_world.registry.record_error = LongshoreError("GIT_UNREACHABLE", "git.example does not answer")
    result = await fleet_world.result(fleet_world.registry.push(registry(WORKERS, Wanted("ten"))))
    assert result.outcome is CommitOutcome.APPLIED
    assert "not written to git: STATE_PUSH_DEFERRED: GIT_UNREACHABLE: git.example does not answer" in result.summary
    assert [slot.version for slot in (await fleet_world.settled()).slots] == ["1.0.0"]
    fleet_world.registry.record_error = None
    await fleet_world.result(fleet_world.registry.push(registry(WORKERS, Wanted("ten", version="1.1.0"))))
    assert len(fleet_world.registry.recorded) == 1


HANGING_BROKER = """
import asyncio, sys
from pydantic import SecretStr
from temporalio import activity
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Worker
from longshore.activities.telling import TellingActivities
from longshore.broker.commit_status import WebUI
from longshore.broker.notifications import Notifications
from longshore.schemas.commits import RecordRequest, RegistryCommit, ValidationResult
from longshore.schemas.issues import Audience, Issue
from longshore.workflows import conventions

@activity.defn
async def validate_commit(commit: RegistryCommit) -> ValidationResult:
    return ValidationResult(sha=commit.sha, issues=(Issue(code="MANIFEST_INVALID", file="a.yaml", message="no"),))

@activity.defn
async def record_result(request: RecordRequest) -> None: ...

class Hanging(Notifications):
    async def send(self, request):
        await super().send(request)
        print("sent", flush=True)
        await asyncio.sleep(3600)

async def main(address, url):
    client = await Client.connect(address, data_converter=pydantic_data_converter)
    channels = Hanging({Audience.OPS: [SecretStr(url)]}, WebUI(None, "default"))
    telling = TellingActivities(None, channels, lambda token: client.get_async_activity_handle(task_token=token))
    activities = [validate_commit, record_result, telling.notify]
    await Worker(client, task_queue=conventions.BROKER_QUEUE, activities=activities).run()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_broker_that_is_killed_while_it_tells_has_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 between sending and answering: the next broker finds the mark, sends nothing, and says `perhaps`."""
    monkeypatch.setattr(conventions, "NOTIFY_HEARTBEAT_TIMEOUT", timedelta(seconds=2))
    with endpoint() as service:
        url = f"json://127.0.0.1:{service.port}/ops"
        async with real_server() as client, world(client, notify_ops=url) as around:
            await around.run_worker(
                Worker(client, task_queue=conventions.BROKER_QUEUE, workflows=WORKFLOWS, workflow_runner=SANDBOX)
            )
            handle = await around.commit("c" * 40)
            broker = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                HANGING_BROKER,
                client.service_client.config.target_host,
                url,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=asyncio.subprocess.PIPE,
            )
            try:
                assert broker.stdout is not None
                assert await asyncio.wait_for(broker.stdout.readline(), 60) == b"sent\n"
            finally:
                broker.kill()
                await broker.wait()
            channels = Notifications(around.settings.channels, WebUI(None, "default"))
            telling = TellingActivities(
                around.people, channels, lambda token: client.get_async_activity_handle(task_token=token)
            )
            await around.run_worker(Worker(client, task_queue=conventions.BROKER_QUEUE, activities=[telling.notify]))
            result = await asyncio.wait_for(handle.result(), 60)
        assert result.summary.endswith("; not told: ops by channel 1: perhaps")
        assert [asked.path for asked in service.asked] == ["/ops"]


async def test_the_real_server_forgets_a_mark_that_was_taken_back() -> None:
    """A service that refuses twice and then takes it has it once; its URL, which holds a token, is in no history."""
    with endpoint() as service:
        answers = iter([Answer(503), Answer(503)])
        service.answer = lambda _: next(answers, Answer())
        url = f"json://olga:hunter2@127.0.0.1:{service.port}/ops"
        async with real_server() as client, world(client, notify_ops=url) as around:
            channels = Notifications(around.settings.channels, WebUI(None, "default"))
            telling = TellingActivities(
                around.people, channels, lambda token: client.get_async_activity_handle(task_token=token)
            )
            await around.start_broker(notify=telling.notify)
            sha = around.registry.push(registry(WORKERS), MANIFEST)
            result = await around.result(sha)
            handle = client.get_workflow_handle(conventions.commit_workflow_id(REGISTRY, sha))
            history = b"".join(event.SerializeToString() for event in (await handle.fetch_history()).events)
        assert "not told" not in result.summary
        assert len(service.asked) == 3
        assert b"MANIFEST_INVALID" in history
        assert b"hunter2" not in history
