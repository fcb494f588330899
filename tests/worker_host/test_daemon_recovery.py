"""What comes back by itself: after a crash of a runner, and after one of the whole device."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from device_fakes import Device, load, reload, spec, until, worker

from longshore.schemas.failures import LongshoreError
from longshore.schemas.lifecycle import ModelState
from longshore.worker_host.proxy import routes
from longshore.worker_host.runners.instances import RunPaths


@pytest.fixture
async def device(tmp_path):
    device = Device(tmp_path)
    yield device
    await device.host.recovery.stop()
    device.journal.close()


def alive(device):
    return {instance.instance_id for instance in device.runners.running()}


def start(device):
    """Do what the daemon does before and after it binds its socket."""
    device.host.recovery.resume(alive(device))
    device.traffic.table = routes.table(device.host.models.all(), alive(device), RunPaths(device.folder))
    device.host.recovery.start()


async def ready(device):
    await until(lambda: device.record().state is ModelState.READY)


async def test_a_crashed_runner_comes_back_as_a_new_instance(device):
    """The route ends at another instance, READY, from what lies in the caches."""
    await device.execute(load())
    [first] = alive(device)
    device.runners.crash(first)
    assert device.record().state is ModelState.LOADING
    assert device.record().error.code == "RUNNER_CRASHED"
    await ready(device)
    assert device.traffic.history[-1].backends[0].instance_id in alive(device) - {first}
    assert device.code.asked == 1


async def test_too_many_crashes_make_it_failed(tmp_path):
    """A model that dies again and again stops being started, and says why."""
    device = Device(tmp_path, options={"restart_limit": 3})
    await device.execute(load())
    for crashes in (1, 2):
        device.runners.crash(alive(device).pop())
        await until(lambda crashes=crashes: len(device.runners.started) == crashes + 1)
        await ready(device)
    device.runners.crash(alive(device).pop())
    await until(lambda: device.traffic.serving() == "not-loaded")
    record = device.record()
    assert (record.state, record.error.code, record.serving) == (ModelState.FAILED, "RUNNER_CRASHED", None)


async def test_a_command_takes_over_from_a_restart(device):
    """A RELOAD that arrives while the old version is being restarted brings the new one."""
    await device.execute(load("1.0.0"))
    device.runners.gate.clear()
    device.runners.crash(alive(device).pop())
    await until(lambda: device.runners.starting == 2)
    reloading = asyncio.create_task(device.execute(reload("2.0.0", 2, "1.0.0")))
    await until(lambda: device.runners.starting == 3)
    device.runners.gate.set()
    assert (await reloading).version == "2.0.0"
    assert [instance.version for instance in device.runners.running()] == ["2.0.0"]


async def test_a_failed_command_gives_the_old_version_back(device):
    """Where the old version had crashed and its RELOAD fails, the old version is brought back."""
    await device.execute(load("1.0.0"))
    device.code.gate.clear()
    device.runners.crash(alive(device).pop())
    device.code.errors = [LongshoreError("REF_NOT_FOUND", "no such commit")]
    device.code.gate.set()
    with pytest.raises(LongshoreError):
        await device.execute(reload("2.0.0", 2, "1.0.0"))
    await ready(device)
    assert device.traffic.serving() == "1.0.0"


async def test_an_adopted_runner_serves_at_once(device):
    """A daemon that was killed finds its runner alive: routes lead there from the first snapshot on."""
    await device.execute(load())
    device.restart()
    start(device)
    assert device.traffic.serving() == "1.0.0"
    assert len(device.runners.started) == 1


async def test_after_a_reboot_everything_is_started_again_from_the_caches(device):
    """No runner survives a reboot; what served serves again, and no store is asked."""
    await device.execute(load())
    device.runners._running.clear()
    device.restart()
    start(device)
    assert device.traffic.serving() == "not-loaded"
    await ready(device)
    assert device.traffic.serving() == "1.0.0"
    assert device.code.asked == 1


async def test_a_candidate_of_a_killed_daemon_is_used_by_the_next_delivery(device):
    """A kill between start and flip costs no second start."""
    await device.execute(load("1.0.0"))
    candidate = {"instance_id": "ffffffffff", "spec": spec(version="2.0.0")}
    device.runners.adopt(device.runners.started[0].model_copy(update=candidate))
    device.restart()
    start(device)
    assert device.traffic.serving() == "1.0.0"
    await device.execute(reload("2.0.0", 2, "1.0.0"))
    assert alive(device) == {"ffffffffff"}
    assert [instance.version for instance in device.runners.started] == ["1.0.0"]


async def test_what_nobody_asks_for_again_is_stopped(device):
    """A candidate whose command never comes back does not keep its memory."""
    await device.execute(load())
    stranger = device.runners.started[0].model_copy(update={"instance_id": "ffffffffff", "deployment_id": "gone"})
    device.runners.adopt(stranger)
    await device.host.recovery.stop_unclaimed()
    assert device.runners.stopped == ["ffffffffff"]


async def test_an_interrupted_load_is_idle_again(device):
    """A daemon that was killed in the middle of a LOAD does not claim to be loading."""
    device.host.models.fire("echo", "load", incoming_version="1.0.0")
    device.restart()
    start(device)
    assert device.record().state is ModelState.IDLE


async def test_a_restart_that_failed_past_its_flip_yields_to_a_command(device):
    """Envoy was silent about the new route: the restart waits for its next try, and a command does not wait for it."""
    device.host.recovery._backoff = replace(device.host.recovery._backoff, cap=timedelta(hours=1))
    await device.execute(load("1.0.0"))
    device.traffic.late_errors = [LongshoreError("ENVOY_WARM_TIMEOUT", "silent")]
    device.runners.crash(alive(device).pop())
    await until(lambda: device.record().error.code == "ENVOY_WARM_TIMEOUT")
    assert (await device.execute(reload("2.0.0", 2, "1.0.0"))).version == "2.0.0"
    assert [instance.version for instance in device.runners.running()] == ["2.0.0"]


async def test_a_defect_does_not_end_the_restarts(device):
    """Whatever goes wrong in a restart that nobody foresaw, the model comes back."""
    await device.execute(load())
    device.runners.start_errors = [ZeroDivisionError("oops")]
    device.runners.crash(alive(device).pop())
    await ready(device)
    assert len(alive(device)) == 1


async def test_a_host_that_stops_begins_no_restart(device):
    """A runner that dies while the host stops is the next daemon's to bring back."""
    await device.execute(load())
    await device.host.recovery.stop()
    device.runners.crash(alive(device).pop())
    assert device.runners.starting == 1
    device.restart()
    start(device)
    await ready(device)


async def test_what_a_killed_daemon_left_takes_no_room_from_the_next_command(tmp_path):
    """Room for two: the version that was being drained when the daemon was killed makes way for the next one."""
    device = Device(tmp_path, worker=worker(max_memory="2Gi"))
    await device.execute(load("1.0.0"))
    old = device.runners.started[0]
    await device.execute(reload("2.0.0", 2, "1.0.0"))
    device.runners.adopt(old)
    device.restart()
    start(device)
    assert (await device.execute(reload("3.0.0", 3, "2.0.0"))).version == "3.0.0"
    assert [instance.version for instance in device.runners.running()] == ["3.0.0"]
    device.journal.close()


async def test_a_full_disk_keeps_a_crash_from_nobody(device, monkeypatch):
    """The journal cannot be written when a runner dies: the model is back as soon as it can."""
    await device.execute(load())
    with monkeypatch.context() as full:
        full.setattr(device.journal, "put", refuse)
        with pytest.raises(LongshoreError, match="DISK_FULL"):
            device.runners.crash(alive(device).pop())
    device.host.recovery.start()
    await until(lambda: len(device.runners.started) == 2)
    await ready(device)


def refuse(_record):
    raise LongshoreError("DISK_FULL", "full")


async def test_a_full_disk_makes_no_model_failed(device):
    """What served comes back when there is room again, however long that takes."""
    await device.execute(load())
    device.runners.start_errors = [LongshoreError("DISK_FULL", "full") for _ in range(9)]
    device.runners.crash(alive(device).pop())
    await until(lambda: len(alive(device)) == 1)
    await ready(device)
