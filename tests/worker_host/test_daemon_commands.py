"""LOAD, RELOAD and UNLOAD on a device whose outside is in memory."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from device_fakes import CARD, Device, FakeLease, load, reload, spec, unload, until, worker

from longshore.activities.devices import CommandFailed
from longshore.schemas.commands import BEFORE_TAKE_DOWN, UnloadReason
from longshore.schemas.failures import LongshoreError
from longshore.schemas.lifecycle import ModelState
from longshore.worker_host.commands.execution import AT_ONCE
from longshore.worker_host.commands.steps import LOAD, RECREATE, RELOAD, UNLOAD, timings
from longshore.worker_host.proxy import routes
from longshore.worker_host.runners.instances import RunPaths


@pytest.fixture
def device(tmp_path):
    device = Device(tmp_path)
    yield device
    device.journal.close()


async def fails(device, command, lease=None):
    with pytest.raises(CommandFailed) as failed:
        await device.execute(command, lease)
    return failed.value


async def test_a_load_ends_with_traffic_and_every_step_timed(device):
    """After a LOAD the model is READY, its callers reach it, and each of the PRD's steps has its seconds."""
    result = await device.execute(load())
    assert (result.state, result.version, result.already_done) == (ModelState.READY, "1.0.0", False)
    assert set(result.step_seconds) == set(LOAD)
    assert device.traffic.serving() == "1.0.0"
    assert device.record().loaded_at is not None


def test_fetching_at_once_is_counted_once():
    """Code, packages and files arrive side by side: the longest of them is what a load waited for."""
    seconds = {"code_checkout": 1.0, "environment_preparation": 30.0, "artifact_download": 20.0}
    assert timings({**seconds, "model_initialization": 5.0}) == {"load_seconds": 35.0, "fetch_seconds": 30.0}


async def test_a_new_generation_of_what_runs_keeps_its_timings(device):
    """A command that brought nothing up says nothing of how long that takes."""
    await device.execute(load())
    took = device.record().load_seconds
    await device.execute(load(generation=2))
    assert took is not None
    assert device.record().load_seconds == took


async def test_progress_only_grows_and_names_the_steps(device):
    """The heartbeats of a LOAD tell where it is."""
    lease = FakeLease()
    await device.execute(load(), lease)
    shares = [beat.progress for beat in lease.beats]
    assert shares == sorted(shares)
    assert {"code_checkout", "model_validation", "route_flip"} <= {beat.step for beat in lease.beats}
    assert any(beat.detail == "1 of 2 MiB" for beat in lease.beats)


async def test_a_reload_serves_the_new_version_and_drains_the_old(device):
    """Blue-green: the route moves from one READY version to the other, then the old runner goes."""
    await device.execute(load("1.0.0"))
    result = await device.execute(reload("2.0.0", 2, "1.0.0"))
    assert [route.backends[0].version for route in device.traffic.history] == ["1.0.0", "2.0.0"]
    assert device.runners.drained == [device.runners.started[0].instance_id]
    assert (result.version, device.record().state) == ("2.0.0", ModelState.READY)
    assert set(result.step_seconds) == set(RELOAD)


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        (UnloadReason.DISABLED, "disabled"),
        (UnloadReason.SCALED_DOWN, "not-loaded"),
        (UnloadReason.EVICTED, "not-loaded"),
        (UnloadReason.REMOVED, None),
    ],
)
async def test_an_unload_tells_callers_why(device, reason, told):
    """What callers get afterwards depends on why the model went."""
    await device.execute(load())
    result = await device.execute(unload(2, reason))
    assert (result.state, result.version) == (ModelState.IDLE, None)
    assert device.traffic.serving() == told
    assert device.runners.running() == []
    assert set(result.step_seconds) == set(UNLOAD)


async def test_unloading_nothing_succeeds(device):
    """An UNLOAD of what was never loaded is done when its callers are told."""
    result = await device.execute(unload(1, UnloadReason.DISABLED))
    assert result.state is ModelState.IDLE
    assert device.traffic.serving() == "disabled"


async def test_a_repeated_delivery_is_answered_from_the_journal(device):
    """The same generation and content again is already done, also after a restart of the host."""
    await device.execute(load())
    device.restart()
    result = await device.execute(load())
    assert result.already_done
    assert len(device.runners.started) == 1


async def test_a_lower_generation_is_refused(device):
    """What came late never undoes what is newer."""
    await device.execute(load("2.0.0", generation=5))
    failed = await fails(device, load("1.0.0", generation=4))
    assert (failed.code, failed.retry_in) == ("STALE_GENERATION", None)
    assert device.traffic.serving() == "2.0.0"


async def test_a_command_for_another_device_is_refused(device):
    """Two hosts with one id, or a mixed-up queue, change nothing."""
    failed = await fails(device, load().model_copy(update={"worker_id": "worker-other"}))
    assert failed.code == "WRONG_DEVICE"
    assert device.runners.started == []


async def test_a_new_generation_of_what_runs_starts_nothing(device):
    """A LOAD of the digest that serves is done at once, under its new generation."""
    await device.execute(load(generation=1))
    result = await device.execute(load(generation=2))
    assert (result.generation, result.already_done) == (2, False)
    assert len(device.runners.started) == 1


async def test_a_load_over_another_version_replaces_it_without_a_gap(device):
    """A plan that did not know of the running version still gets what it wants, blue-green."""
    await device.execute(load("1.0.0"))
    await device.execute(load("2.0.0", generation=2))
    assert [route.unavailable for route in device.traffic.history] == [None, None]
    assert device.traffic.serving() == "2.0.0"


async def test_a_reload_of_nothing_loads(device):
    """A RELOAD whose old version never came up brings the new one."""
    result = await device.execute(reload("2.0.0", 1, "1.0.0"))
    assert result.version == "2.0.0"


async def test_retriable_failures_back_off_and_end_after_four(device):
    """PRD §8.2: 30, 60 and 120 s between four attempts, remembered with their errors over a restart."""
    device.artifacts.errors = [LongshoreError("STORAGE_UNAVAILABLE", "503") for _ in range(4)]
    delays = []
    for _ in range(4):
        failed = await fails(device, load())
        delays.append(failed.retry_in and failed.retry_in.total_seconds())
        device.restart()
    assert delays == [30, 60, 120, None]
    record = device.record()
    assert (record.state, record.retry.attempts, record.retry.next_attempt) == (ModelState.FAILED, 4, None)
    assert [error.step for error in record.retry.errors] == ["artifact_download"] * 4


async def test_a_new_generation_counts_anew(device):
    """A new commit gets its own four tries."""
    device.code.errors = [LongshoreError("GIT_UNREACHABLE", "down") for _ in range(2)]
    await fails(device, load(generation=1))
    failed = await fails(device, load(generation=2))
    assert failed.retry_in == timedelta(seconds=30)


async def test_failures_that_nobody_can_wait_out_are_not_retried(device):
    """A bad checksum fails at once, in the step that the PRD gives it."""
    device.artifacts.errors = [LongshoreError("CHECKSUM_MISMATCH", "differs")]
    failed = await fails(device, load())
    assert (failed.retry_in, failed.failure.step) == (None, "checksum_validation")
    assert device.record().error.code == "CHECKSUM_MISMATCH"


async def test_a_failed_reload_keeps_the_old_version(device):
    """The old version serves on, READY, with the error of the RELOAD beside it."""
    await device.execute(load("1.0.0"))
    device.runners.start_errors = [LongshoreError("MODEL_LOAD_FAILED", "raised", details="Traceback")]
    failed = await fails(device, reload("2.0.0", 2, "1.0.0"))
    record = device.record()
    assert failed.retry_in is None
    assert (record.state, record.spec.version, record.error.code) == (ModelState.READY, "1.0.0", "MODEL_LOAD_FAILED")
    assert device.traffic.serving() == "1.0.0"


async def test_an_unproved_model_gets_no_traffic(device):
    """A runner that answers its sample wrongly is stopped before Envoy hears of it."""
    device.runners.status = 500
    failed = await fails(device, load())
    assert (failed.code, failed.failure.step) == ("VALIDATION_FAILED", "model_validation")
    assert device.runners.running() == []
    assert device.traffic.history == []


async def test_a_defect_fails_the_command_with_its_traceback(device):
    """An exception that nobody expected is reported as ours, and the host lives on."""
    device.code.errors = [ZeroDivisionError("oops")]
    failed = await fails(device, load())
    assert (failed.code, failed.retry_in) == ("INTERNAL_ERROR", timedelta(seconds=30))
    assert "ZeroDivisionError" in failed.failure.details
    assert (await device.execute(load())).state is ModelState.READY


async def test_a_fenced_attempt_starts_nothing(device):
    """An attempt that has lost its lease while it waited does not begin."""
    failed = await fails(device, load(), FakeLease(confirmations=0))
    assert failed.code == "FENCED"
    assert device.code.asked == 0


async def test_a_lease_lost_before_the_flip_leaves_the_old_route(device):
    """The last confirmation is asked right before the route changes."""
    await device.execute(load("1.0.0"))
    failed = await fails(device, reload("2.0.0", 2, "1.0.0"), FakeLease(confirmations=1))
    assert failed.code == "FENCED"
    assert device.traffic.serving() == "1.0.0"
    assert [instance.version for instance in device.runners.running()] == ["1.0.0"]


async def test_a_newer_command_overtakes_a_running_one(device):
    """A higher generation cancels the lower one here, without waiting for anyone."""
    device.environments.gate.clear()
    older = asyncio.create_task(fails(device, load("1.0.0", generation=1)))
    await device.environments.entered.wait()
    device.environments.gate.set()
    newer = asyncio.create_task(device.execute(load("2.0.0", generation=2)))
    failed = await older
    assert (failed.code, failed.retry_in) == ("SUPERSEDED", None)
    assert (await newer).version == "2.0.0"
    assert [instance.version for instance in device.runners.running()] == ["2.0.0"]


async def test_an_unload_is_remembered_before_its_turn(device):
    """While an UNLOAD waits, no LOAD in backoff comes back, not even after a power loss."""
    await device.execute(load("1.0.0", generation=1))
    device.traffic.errors = [LongshoreError("ENVOY_WARM_TIMEOUT", "no answer")]
    await fails(device, unload(3))
    device.restart()
    assert (await fails(device, load("1.0.0", generation=2))).code == "STALE_GENERATION"


async def test_cancelled_before_the_flip_is_as_if_never_begun(device):
    """A cancelled LOAD leaves no runner and an idle model, and is no failure."""
    device.code.gate.clear()
    attempt = asyncio.create_task(device.execute(load()))
    await device.code.entered.wait()
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    record = device.record()
    assert (record.state, record.retry, device.runners.running()) == (ModelState.IDLE, None, [])


async def test_cancelled_after_the_flip_completes(device):
    """A RELOAD that has moved the traffic finishes, and says so."""
    await device.execute(load("1.0.0"))
    draining, gate = asyncio.Event(), asyncio.Event()
    drain = device.runners.drain

    async def slow_drain(instance_id):
        draining.set()
        await gate.wait()
        await drain(instance_id)

    device.runners.drain = slow_drain
    attempt = asyncio.create_task(device.execute(reload("2.0.0", 2, "1.0.0")))
    await draining.wait()
    attempt.cancel()
    await asyncio.sleep(0)
    gate.set()
    assert (await attempt).version == "2.0.0"
    assert device.record().state is ModelState.READY


async def test_four_restarts_do_not_exhaust_a_load(device):
    """A host that stops during a LOAD answers HOST_RESTART, at once and uncounted; the next one does it."""
    for _ in range(4):
        device.code.gate.clear()
        device.code.entered.clear()
        attempt = asyncio.create_task(fails(device, load()))
        await device.code.entered.wait()
        await device.host.commands.stop()
        failed = await attempt
        assert (failed.code, failed.retry_in) == ("HOST_RESTART", AT_ONCE)
        device.restart()
    device.code.gate.set()
    assert (await device.execute(load())).state is ModelState.READY
    assert device.record().retry is None


async def test_a_stopping_host_takes_no_command(device):
    """What the last poll still brought goes back at once."""
    await device.host.commands.stop()
    assert (await fails(device, load())).code == "HOST_RESTART"


@pytest.mark.parametrize(
    ("resources", "short"),
    [
        ({"memory": "5Gi", "cpu": 1.0}, "memory: 5Gi of 4Gi"),
        ({"memory": "1Gi", "cpu": 4.5}, "cpu: 4.5 of 4"),
        ({"memory": "1Gi", "cpu": 1.0, "gpu": 1}, "gpu: 1 of 0"),
    ],
)
async def test_what_does_not_fit_is_refused_with_the_shortfall(device, resources, short):
    """The device checks its own capacity, whatever the plan believed."""
    failed = await fails(device, load(resources=resources))
    assert (failed.code, failed.failure.step) == ("CAPACITY_INSUFFICIENT", "command_validation")
    assert short in failed.failure.message
    assert device.record().state is ModelState.FAILED


async def test_a_reload_needs_room_for_both_versions(tmp_path):
    """Old and new run side by side; where they do not fit, the old one serves on."""
    device = Device(tmp_path, worker=worker(max_memory="1536Mi"))
    await device.execute(load("1.0.0"))
    failed = await fails(device, reload("2.0.0", 2, "1.0.0"))
    assert failed.code == "CAPACITY_INSUFFICIENT"
    assert (device.record().state, device.traffic.serving()) == (ModelState.READY, "1.0.0")


@pytest.fixture
def narrow(tmp_path):
    """A device that serves the only model that it can hold."""
    device = Device(tmp_path, worker=worker(max_memory="1Gi"))
    yield device
    device.journal.close()


async def test_a_recreation_takes_the_old_version_down_first(narrow):
    """Where both do not fit: fetched before, then nobody is sent there, the old one drains, and the new one starts."""
    await narrow.execute(load("1.0.0"))
    [old] = narrow.runners.running()
    result = await narrow.execute(reload("2.0.0", 2, "1.0.0", recreate=True))
    told = [route.unavailable or route.backends[0].version for route in narrow.traffic.history]
    assert told == ["1.0.0", "not-loaded", "2.0.0"]
    assert narrow.runners.drained == [old.instance_id]
    assert [instance.version for instance in narrow.runners.running()] == ["2.0.0"]
    assert (result.version, narrow.record().state) == ("2.0.0", ModelState.READY)
    assert set(result.step_seconds) == set(RECREATE)
    assert narrow.record().load_seconds is not None


async def test_a_recreation_that_cannot_fetch_keeps_the_old_version(narrow):
    """Nothing is taken down before what replaces it is here."""
    await narrow.execute(load("1.0.0"))
    narrow.artifacts.errors.append(LongshoreError("ARTIFACT_MISSING", "no such object"))
    failed = await fails(narrow, reload("2.0.0", 2, "1.0.0", recreate=True))
    assert failed.failure.step in BEFORE_TAKE_DOWN
    assert (narrow.record().state, narrow.traffic.serving()) == (ModelState.READY, "1.0.0")


async def test_a_recreation_that_does_not_fit_alone_keeps_the_old_version(narrow):
    """What needs more than the whole device is refused while the old version serves."""
    await narrow.execute(load("1.0.0"))
    large = spec(version="2.0.0", resources={"cpu": 1.0, "memory": "2Gi"})
    command = reload("2.0.0", 2, "1.0.0", recreate=True).model_copy(update={"spec": large})
    assert (await fails(narrow, command)).code == "CAPACITY_INSUFFICIENT"
    assert narrow.traffic.serving() == "1.0.0"


async def test_a_recreation_that_fails_in_its_gap_leaves_nothing_until_its_next_try(narrow):
    """The old version has gone: FAILED says so, and a try that succeeds serves."""
    await narrow.execute(load("1.0.0"))
    narrow.runners.start_errors.append(LongshoreError("RUNNER_CRASHED", "killed"))
    command = reload("2.0.0", 2, "1.0.0", recreate=True)
    failed = await fails(narrow, command)
    assert failed.failure.step not in BEFORE_TAKE_DOWN
    assert failed.retry_in == timedelta(seconds=30)
    assert (narrow.record().state, narrow.record().serving) == (ModelState.FAILED, None)
    assert narrow.traffic.serving() == "not-loaded"
    await narrow.execute(command)
    assert narrow.traffic.serving() == "2.0.0"


async def test_a_recreation_is_overtaken_in_its_gap(narrow):
    """A newer command need not wait for a load that nobody wants any more."""
    await narrow.execute(load("1.0.0"))
    narrow.runners.gate.clear()
    begun = asyncio.create_task(fails(narrow, reload("2.0.0", 2, "1.0.0", recreate=True)))
    await until(lambda: narrow.runners.starting == 2)
    await narrow.execute(unload(3, UnloadReason.DISABLED))
    assert (await begun).code == "SUPERSEDED"
    assert (narrow.record().state, narrow.traffic.serving()) == (ModelState.IDLE, "disabled")


async def test_a_recreation_whose_lease_is_lost_takes_nothing_down(narrow):
    """A zombie's command may have fetched what it likes: the old version serves on."""
    await narrow.execute(load("1.0.0"))
    failed = await fails(narrow, reload("2.0.0", 2, "1.0.0", recreate=True), FakeLease(confirmations=1))
    assert (failed.code, narrow.traffic.serving()) == ("FENCED", "1.0.0")


def test_a_recreation_takes_down_after_the_steps_that_keep():
    """What the broker reads from a failure's step is the device's own order."""
    assert RECREATE[: RECREATE.index("state_unloading")] == BEFORE_TAKE_DOWN


async def test_an_unknown_schema_version_is_refused(device):
    """A worker runs only the schema versions that it declares."""
    failed = await fails(device, load(spec=spec(schemaVersion="9.0.0")))
    assert failed.code == "SCHEMA_INCOMPATIBLE"


async def test_two_loads_of_two_deployments_run_side_by_side(device):
    """Different deployments wait for the number of places only."""
    device.code.gate.clear()
    loads = [
        asyncio.create_task(device.execute(load(deployment_id=name, resources={"memory": "256Mi", "cpu": 0.1})))
        for name in ("a", "b", "c")
    ]
    await until(lambda: device.code.asked == 2)
    device.code.gate.set()
    await asyncio.gather(*loads)
    assert device.code.asked == 3


async def test_a_model_without_a_sample_is_refused(device):
    """A model that cannot be tried does not serve; the remedy is in the card."""
    interface = {**CARD["interface"], "input_schema": {"not": {}}}
    assert (await fails(device, load(interface=interface))).code == "NO_SAMPLE_INPUT"


async def test_silence_after_the_flip_leaves_the_candidate_alive(device):
    """Envoy may have been sent there: the candidate lives on, and the next try takes it up."""
    await device.execute(load("1.0.0"))
    device.traffic.late_errors = [LongshoreError("ENVOY_WARM_TIMEOUT", "silent")]
    failed = await fails(device, reload("2.0.0", 2, "1.0.0"))
    assert (failed.code, device.record().state) == ("ENVOY_WARM_TIMEOUT", ModelState.READY)
    assert [instance.version for instance in device.runners.running()] == ["1.0.0", "2.0.0"]
    assert (await device.execute(reload("2.0.0", 2, "1.0.0"))).version == "2.0.0"
    assert [instance.version for instance in device.runners.started] == ["1.0.0", "2.0.0"]


async def test_a_candidate_that_dies_before_its_flip_gets_no_traffic(device):
    """The old version serves on, although the new one had proved itself."""
    await device.execute(load("1.0.0"))
    lease = FakeLease()

    async def confirm():
        lease.confirmed += 1
        if lease.confirmed == 2:
            device.runners.crash(device.runners.started[-1].instance_id)

    lease.confirm = confirm
    failed = await fails(device, reload("2.0.0", 2, "1.0.0"), lease)
    assert failed.code == "RUNNER_CRASHED"
    assert (device.traffic.serving(), device.record().state) == ("1.0.0", ModelState.READY)


async def test_an_endpoint_that_is_no_address_is_refused_and_forgotten(device):
    """No runner is started for it, and the next daemon can make its routes."""
    wrong = spec().model_copy(update={"endpoint": "http://[half/of/an/address"})
    assert (await fails(device, load(spec=wrong))).code == "MANIFEST_INVALID"
    assert device.runners.starting == 0
    device.restart()
    routes.table(device.host.models.all(), set(), RunPaths(device.folder))
