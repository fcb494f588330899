"""Presence: when the device answers, and what it does with a token that nobody knows any more."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from device_fakes import WORKER_ID, Device, load, unload, until
from temporalio.client import AsyncActivityCancelledError
from temporalio.service import RPCError, RPCStatusCode

from longshore.schemas.devices import DeviceStatus, PresenceRequest
from longshore.schemas.failures import Failure, LongshoreError
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.slots import Demand


class FakeServer:
    """Temporal's side of the tokens."""

    def __init__(self):
        self.completed = {}
        self.beats = []
        self.error = None

    def handle(self, token):
        return FakeHandle(self, token)


class FakeHandle:
    def __init__(self, server, token):
        self.server, self.token = server, token

    async def complete(self, result, **_):
        if isinstance(self.server.error, RPCError):
            raise self.server.error
        self.server.completed[self.token] = result

    async def heartbeat(self, *details, **_):
        if self.server.error:
            raise self.server.error
        self.server.beats.append((self.token, *details))


@pytest.fixture
def server():
    return FakeServer()


@pytest.fixture
async def device(tmp_path, server):
    device = Device(tmp_path, options={"presence_interval": timedelta(milliseconds=20)})
    device.tasks = [asyncio.create_task(device.host.presence.run(server.handle))]
    yield device
    for task in device.tasks:
        task.cancel()
    await asyncio.gather(*device.tasks, return_exceptions=True)
    device.journal.close()


def ask(seen=None, *, hold=True):
    return PresenceRequest(worker_id=WORKER_ID, seen_digest=seen, hold=hold)


async def first_digest(device, server):
    await device.host.hold_presence(ask(), b"first")
    await until(lambda: b"first" in server.completed)
    return server.completed[b"first"].digest


async def test_a_digest_that_differs_is_answered_at_once(device, server):
    """Whoever has not seen the present report gets it."""
    await device.host.hold_presence(ask("another"), b"token")
    await until(lambda: b"token" in server.completed)
    assert server.completed[b"token"].worker_id == WORKER_ID


async def test_a_ping_is_answered_at_once(device, server):
    """hold=False never waits."""
    digest = await first_digest(device, server)
    await device.host.hold_presence(ask(digest, hold=False), b"ping")
    await until(lambda: b"ping" in server.completed)


async def test_an_unchanged_device_heartbeats_until_something_happens(device, server):
    """A held token carries full reports as heartbeats, and is completed by the next material change."""
    digest = await first_digest(device, server)
    await device.host.hold_presence(ask(digest), b"held")
    await until(lambda: len(server.beats) >= 2)
    assert b"held" not in server.completed
    await device.execute(load())
    await until(lambda: b"held" in server.completed)
    states = {model.state for model in server.completed[b"held"].models}
    assert states <= {ModelState.LOADING, ModelState.READY}


async def test_an_overtaken_token_is_answered_too(device, server):
    """Two presences at a time leave nobody waiting."""
    digest = await first_digest(device, server)
    await device.host.hold_presence(ask(digest), b"old")
    await device.host.hold_presence(ask(digest), b"new")
    await until(lambda: b"old" in server.completed)
    assert b"new" not in server.completed


async def test_a_restarted_daemon_answers_the_token_of_its_predecessor(device, server):
    """The token is in the journal, and the new boot id is news."""
    digest = await first_digest(device, server)
    await device.host.hold_presence(ask(digest), b"held")
    device.tasks[0].cancel()
    device.restart()
    device.tasks.append(asyncio.create_task(device.host.presence.run(server.handle)))
    await until(lambda: b"held" in server.completed)
    assert server.completed[b"held"].boot_id != server.completed[b"first"].boot_id


@pytest.mark.parametrize(
    "error", [RPCError("gone", RPCStatusCode.NOT_FOUND, b""), AsyncActivityCancelledError()], ids=["gone", "cancelled"]
)
async def test_a_token_of_no_use_is_forgotten(device, server, error):
    """A server that no longer knows the token is not asked again."""
    digest = await first_digest(device, server)
    server.error = error
    await device.host.hold_presence(ask(digest), b"held")
    await until(lambda: device.journal.note("presence") == "[]")


async def test_a_server_that_is_away_is_asked_again(device, server):
    """An unreachable server is no reason to forget the token."""
    server.error = RPCError("away", RPCStatusCode.UNAVAILABLE, b"")
    await device.host.hold_presence(ask(), b"held")
    await asyncio.sleep(0.05)
    server.error = None
    await until(lambda: b"held" in server.completed)


async def test_a_goodbye_tells_which(device, server):
    """A host that stops on purpose answers what it holds with its last status."""
    digest = await first_digest(device, server)
    await device.host.hold_presence(ask(digest), b"held")
    device.host.reporter.say(DeviceStatus.LEAVING)
    await device.host.presence.say_goodbye(server.handle)
    assert server.completed[b"held"].status is DeviceStatus.LEAVING


async def test_reports_count_what_envoy_has_answered(device):
    """Request counts and reservations are in the report; the sequence counts up."""
    await device.execute(load())
    [instance] = device.runners.running()
    device.counters[instance.instance_id] = type("Stats", (), {"requests": 7})
    first, second = await device.host.reporter.report(), await device.host.reporter.report()
    [model] = second.models
    assert (model.request_count, model.memory_bytes, model.version) == (7, 1000, "1.0.0")
    assert second.sequence == first.sequence + 1
    assert (second.capacity.used_memory, second.capacity.loaded_models) == (2**30, 1)
    assert second.digest == first.digest


async def test_reports_say_what_plans_need(device):
    """What a model takes and took to bring here, what the caches hold, and the highest generation of anything."""
    await device.execute(load(generation=3))
    await device.execute(load(generation=8, deployment_id="gone"))
    await device.execute(unload(9, deployment_id="gone"))
    report = await device.host.reporter.report()
    [model] = report.models
    assert (model.deployment_id, model.reserved) == ("echo", Demand(memory=2**30, cpu=1.0))
    assert model.load_seconds >= model.fetch_seconds >= 0
    assert (report.highest_generation, report.cached, report.draining) == (9, ("0123456789ab",), False)


async def test_a_model_whose_runner_died_keeps_what_it_needs(device):
    """While nothing of it runs, a model that is on its way back says what it will take."""
    await device.execute(load())
    [instance] = device.runners.running()
    device.runners.gate.clear()
    await device.runners.stop(instance.instance_id)
    device.host.recovery.runner_exited(instance, Failure(code="RUNNER_CRASHED", message="killed"))
    [model] = (await device.host.reporter.report()).models
    assert (model.state, model.reserved) == (ModelState.LOADING, Demand(memory=2**30, cpu=1.0))
    await device.host.recovery.stop()


async def test_a_full_disk_does_not_silence_the_device(device, server, monkeypatch):
    """Neither counts nor tokens can be written: reports go on."""

    def refuse(*_):
        raise LongshoreError("DISK_FULL", "full")

    digest = await first_digest(device, server)
    await device.host.hold_presence(ask(digest), b"held")
    monkeypatch.setattr(device.journal, "count", refuse)
    monkeypatch.setattr(device.journal, "write_note", refuse)
    before = len(server.beats)
    await until(lambda: len(server.beats) > before)
    device.host.reporter.say(DeviceStatus.LEAVING)
    await until(lambda: b"held" in server.completed)
    assert not device.tasks[0].done()
