"""Presence: heard, suspect, failed, recovering; judged by the age of the last evidence."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fake_device import FakeDevice
from temporalio.client import AsyncActivityCancelledError
from workflow_world import REGISTRY, World, eventually, real_server, world

from longshore.activities.device_facts import facts_of
from longshore.schemas.devices import (
    DeviceFacts,
    DeviceInput,
    DeviceReport,
    DeviceStatus,
    DeviceView,
    Health,
    ModelReport,
    PresenceIntervals,
)
from longshore.schemas.failures import Failure
from longshore.schemas.lifecycle import ModelState
from longshore.telemetry import events
from longshore.workflows import conventions
from longshore.workflows.devices import DeviceWorkflow

# The PRD's tiers at a fortieth of their length: 30/60/120 s and a ping of 10 s.
QUICK = PresenceIntervals(
    heartbeat=timedelta(seconds=0.75),
    suspect_after=timedelta(seconds=1.5),
    failed_after=timedelta(seconds=3),
    ping_timeout=timedelta(seconds=0.25),
)


def test_the_tiers_are_the_prds() -> None:
    """PRD §5.5: beats every 30 s, suspect at 60 s, failed at 120 s."""
    tiers = PresenceIntervals()
    seconds = [t.total_seconds() for t in (tiers.heartbeat, tiers.suspect_after, tiers.failed_after)]
    assert seconds == [30, 60, 120]


class Watched:
    """One DeviceWorkflow, and what the fleet was told of the device."""

    def __init__(self, around: World) -> None:
        self.world = around
        self.mailbox: Any = None

    async def start(self) -> None:
        await self.world.start_broker()
        await self.world.open_mailboxes()
        self.mailbox = await self.world.mailbox(conventions.fleet_workflow_id(REGISTRY))
        await self.world.client.start_workflow(
            DeviceWorkflow.run,
            DeviceInput(worker_id="worker-a", registry=REGISTRY, intervals=QUICK),
            id=conventions.device_workflow_id("worker-a"),
            task_queue=conventions.BROKER_QUEUE,
        )

    async def view(self) -> DeviceView:
        return await self.world.entities.device("worker-a")

    async def becomes(self, health: Health) -> DeviceView:
        async def probe() -> DeviceView | None:
            view = await self.view()
            return view if view.health is health else None

        return await eventually(probe, f"the device becomes {health}")

    async def told(self) -> list[str]:
        """The healths that the fleet was told, repetitions left out."""
        healths = [record["health"] for record in await self.mailbox.query("told")]
        return [health for n, health in enumerate(healths) if n == 0 or healths[n - 1] != health]

    async def flagged(self, *codes: str) -> list[dict[str, Any]]:
        """Wait until the fleet's newest record of the device has these flags; return all that it was told."""

        async def probe() -> list[dict[str, Any]] | None:
            told: list[dict[str, Any]] = await self.mailbox.query("told")
            return told if told and told[-1]["flags"] == list(codes) else None

        return await eventually(probe, f"the fleet is told {codes or 'that nothing is odd'}")


@pytest.fixture
async def watched(real_world: World) -> Watched:
    made = Watched(real_world)
    await made.start()
    return made


async def test_a_device_is_unknown_until_it_is_heard(watched: Watched) -> None:
    """It may come at any time: the first report makes it healthy, and the fleet is told its slots."""
    assert (await watched.view()).health is Health.UNKNOWN
    device = await watched.world.device("worker-a")
    view = await watched.becomes(Health.HEALTHY)
    assert view.report is not None
    assert view.report.boot_id == device.boot_id
    assert await watched.told() == ["healthy"]


async def test_a_change_is_told_at_once(watched: Watched) -> None:
    """A model that appears on the device reaches the fleet's record without any beat in between."""
    device = await watched.world.device("worker-a")
    await watched.becomes(Health.HEALTHY)
    await _held(device)
    device.models["ten"] = ModelReport(
        deployment_id="ten", state=ModelState.READY, generation=7, version="1.0.0", digest="0123456789abcdef"
    )
    await device.say_something()

    async def told() -> bool:
        records = await watched.mailbox.query("told")
        return records[-1]["slots"] == {"ten": "ready:7:01234567"}

    await eventually(told, "the fleet knows the slot")


async def test_silence_makes_suspect_then_failed_then_recovering(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    """The whole circle: healthy, suspect, failed, and on return recovering; the log has the bad news (PRD §9.2)."""
    caplog.set_level(logging.DEBUG, "temporalio.workflow")
    device = await watched.world.device("worker-a")
    await watched.becomes(Health.HEALTHY)
    device.silent = True
    await watched.becomes(Health.SUSPECT)
    failed = await watched.becomes(Health.FAILED)
    assert failed.last_evidence is not None
    device.silent = False
    await watched.becomes(Health.RECOVERING)
    await watched.becomes(Health.HEALTHY)
    assert await watched.told() == ["healthy", "suspect", "failed", "recovering", "healthy"]
    marks = [record for record in caplog.records if record.getMessage().startswith("worker_marked")]
    assert [record.getMessage() for record in marks] == ["worker_marked_suspect", "worker_marked_failed"]
    reports = [record for record in caplog.records if record.getMessage() == "worker_heartbeat_received"]
    assert reports
    assert all(not events.missing_fields(record.getMessage(), record.context) for record in (*marks, *reports))


async def test_a_device_that_answers_the_ping_was_never_failed(watched: Watched) -> None:
    """Lost beats alone make nobody failed: the direct ping is answered, and it is healthy again."""
    device = await watched.world.device("worker-a")
    await watched.becomes(Health.HEALTHY)
    await _held(device)  # it holds the presence, and forgets to beat
    await watched.becomes(Health.SUSPECT)
    await watched.becomes(Health.HEALTHY)
    assert "failed" not in await watched.told()


async def test_heartbeats_are_evidence(watched: Watched) -> None:
    """A device that only beats stays healthy, and its last beat is taken into the view when it falls silent."""
    device = await watched.world.device("worker-a")
    await watched.becomes(Health.HEALTHY)
    await _held(device)
    device.boot_id = "boot-2"
    await device.beat()
    device.silent = True
    view = await watched.becomes(Health.SUSPECT)
    assert view.report is not None
    assert view.report.boot_id == "boot-2"


async def test_a_goodbye_is_believed_and_not_pinged(watched: Watched) -> None:
    """A leaving device is known to be away: it becomes failed when it stays away, without being suspect first."""
    device = await watched.world.device("worker-a")
    await watched.becomes(Health.HEALTHY)
    await _held(device)
    device.status = DeviceStatus.LEAVING
    await device.say_something()
    device.silent = True

    async def leaving() -> bool:
        report = (await watched.view()).report
        return report is not None and report.status is DeviceStatus.LEAVING

    await eventually(leaving, "the goodbye is heard")
    records = await watched.mailbox.query("told")
    assert records[-1]["status"] == "leaving"


async def test_a_missing_fleet_is_told_when_it_is_there(watched: Watched) -> None:
    """The record is not lost with the signal: it is sent again until a fleet has it."""
    await watched.mailbox.terminate()
    await watched.world.device("worker-a")
    await watched.becomes(Health.HEALTHY)
    watched.mailbox = await watched.world.mailbox(conventions.fleet_workflow_id(REGISTRY))

    async def told() -> list[str]:
        return await watched.told()

    assert await eventually(told, "the new fleet is told") == ["healthy"]


@pytest.fixture
async def short_lived() -> AsyncIterator[Watched]:
    """A server that suggests continue-as-new after 30 events instead of 4,096."""
    suggest = ("--dynamic-config-value", "limit.historyCount.suggestContinueAsNew=30")
    async with real_server(*suggest) as client, world(client) as around:
        made = Watched(around)
        await made.start()
        yield made


async def test_a_new_run_keeps_what_was_heard(short_lived: Watched) -> None:
    """Continue-as-new falls between two presences: health, report and what the fleet knows go on."""
    device = await short_lived.world.device("worker-a")
    await short_lived.becomes(Health.HEALTHY)
    handle = short_lived.world.client.get_workflow_handle(conventions.device_workflow_id("worker-a"))
    first_run = (await handle.describe()).run_id

    async def renewed() -> bool:
        device.boot_id += "x"
        await device.say_something()
        return (await handle.describe()).run_id != first_run

    await eventually(renewed, "the device's workflow continues as a new run")
    view = await short_lived.view()
    assert view.health is Health.HEALTHY
    assert view.report is not None
    assert await short_lived.told() == ["healthy"]


async def test_changed_intervals_reach_a_device_that_runs(watched: Watched) -> None:
    """What the settings say reaches a presence that is being held by the old ones, without a wrong word meanwhile."""
    device = await watched.world.device("worker-a")
    await watched.becomes(Health.HEALTHY)
    await _held(device)
    handle = watched.world.client.get_workflow_handle(conventions.device_workflow_id("worker-a"))
    patient = QUICK.model_copy(update={"suspect_after": timedelta(minutes=1)})
    await handle.signal(DeviceWorkflow.configure, patient)

    async def withdrawn() -> bool:
        try:
            await device.beat()
        except AsyncActivityCancelledError:
            return True
        return False

    await eventually(withdrawn, "the old presence is withdrawn")
    await device.say_something()

    async def asked_anew() -> bool:
        [pending] = (await handle.describe()).raw_description.pending_activities or [None]
        return pending is not None and pending.activity_options.heartbeat_timeout.ToTimedelta() == timedelta(minutes=1)

    await eventually(asked_anew, "the new presence goes by the new intervals")
    assert await watched.told() == ["healthy"]


class NewerReport(DeviceReport):
    """What a later release might say, and this one cannot read."""

    status: str  # type: ignore[assignment]


async def test_replies_that_cannot_be_read_are_no_evidence(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    """FAULTS 65: bad replies and heartbeats make one device suspect, by a name of their own; mended ones are heard."""
    device = await watched.world.device("worker-a")
    await watched.becomes(Health.HEALTHY)
    await _held(device)
    plain = device.report
    device.report = lambda: NewerReport.model_validate({**plain().model_dump(), "status": "hibernating"})  # type: ignore[method-assign]
    await device.beat()
    device.silent = True
    await watched.becomes(Health.SUSPECT)
    device.silent = False
    await watched.flagged("DEVICE_REPLY_INVALID")
    device.report = plain  # type: ignore[method-assign]
    await watched.flagged()
    await watched.becomes(Health.HEALTHY)
    [odd] = [record.context for record in caplog.records if record.getMessage() == "device_report_odd"]
    assert odd["codes"] == ("DEVICE_REPLY_INVALID",)
    assert "hibernating" in odd["error"]


async def test_the_fleet_is_told_what_the_device_knows(watched: Watched) -> None:
    """Its draining, the highest generation it has seen, why a model fails, and what is odd about its reports."""
    device = await watched.world.device("worker-a")
    error = Failure(code="RUNNER_OOM", message="killed")
    device.models["ten"] = ModelReport(deployment_id="ten", state=ModelState.FAILED, generation=7, error=error)
    plain = device.report

    def odd() -> DeviceReport:
        more = {"draining": True, "highest_generation": 9, "timestamp": datetime(2001, 1, 1, tzinfo=UTC)}
        return plain().model_copy(update=more)

    device.report = odd  # type: ignore[method-assign]  # what it says, in its own words
    [record] = await watched.flagged("CLOCK_SKEW")
    assert (record["draining"], record["generation"], record["slots"]) == (True, 9, {"ten": "failed:7::RUNNER_OOM"})


async def test_facts_are_read_from_the_last_heartbeat(watched: Watched) -> None:
    """What no material change has told (the last request, the caches) is in the heartbeats; who is away is left out."""
    device = await watched.world.device("worker-a")
    device.models["ten"] = ModelReport(deployment_id="ten", state=ModelState.READY, generation=7, load_seconds=40.0)
    await watched.becomes(Health.HEALTHY)
    await _held(device)
    asked = datetime(2026, 1, 1, tzinfo=UTC)
    device.models["ten"] = device.models["ten"].model_copy(update={"last_inference": asked})
    await device.beat()
    workers = ("worker-a", "worker-b")

    async def facts() -> DeviceFacts | None:
        ids = {worker_id: conventions.device_workflow_id(worker_id) for worker_id in workers}
        found = await facts_of(watched.world.client, ids)
        assert found.keys() == {"worker-a"}
        return found["worker-a"] if found["worker-a"].last_inference else None

    told = await eventually(facts, "the heartbeat is read")
    assert (told.last_inference, told.load_seconds) == ({"ten": asked}, {"ten": 40.0})
    # So does the state in git, which would otherwise call a healthy device's last heartbeat as old as its last change.
    view = await watched.world.entities.device("worker-a")
    assert view.report is not None
    assert view.report.models[0].last_inference == asked


async def _held(device: FakeDevice) -> None:
    """Wait until the device holds a presence that it has nothing to say to."""

    async def probe() -> bool:
        return device._held is not None

    await eventually(probe, "the device holds a presence")
