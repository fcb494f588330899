"""Runners that serve: how they end, by themselves, asked to, or together with their daemon."""

from __future__ import annotations

import asyncio
import signal

import psutil
import pytest

from longshore.schemas.failures import LongshoreError
from longshore.worker_host import locks


def _pid(bench, instance):
    return locks.holder(bench.paths.lock(instance.instance_id))


async def _gone(bench):
    await bench.until(lambda: bench.processes() == [])
    assert bench.paths.present() == set()
    assert bench.store.all() == []
    assert bench.supervisor.running() == []


async def test_infer_asks_the_runner_past_envoy(bench):
    """The answer comes as it is, and a document that breaks the schema is an answer too."""
    instance = await bench.serve()
    good = await bench.supervisor.infer(instance.instance_id, {"x": 3})
    bad = await bench.supervisor.infer(instance.instance_id, {})
    assert (good.status, good.headers["x-model-version"], good.body) == (200, "1.2.3", b'{"y":3,"batch":1}')
    assert bad.status == 422
    with pytest.raises(LongshoreError, match="RUNNER_CRASHED"):
        await bench.supervisor.infer("0" * 10, {"x": 3})


async def test_memory_of_a_runner_counts_its_children(bench):
    """Resident bytes while it lives, zero when there is none."""
    instance = await bench.serve()
    assert bench.supervisor.memory_bytes(instance.instance_id) > 5_000_000
    await bench.supervisor.stop(instance.instance_id)
    assert bench.supervisor.memory_bytes(instance.instance_id) == 0


@pytest.mark.parametrize("adopted", [False, True])
async def test_a_killed_runner_is_reported_once_and_cleared_away(bench, adopted):
    """kill -9 from outside: on_exit with RUNNER_CRASHED, whoever spawned it."""
    instance = await bench.serve()
    if adopted:
        bench.supervisor.release()
        assert await bench.new_supervisor().adopt() == [instance]
    psutil.Process(_pid(bench, instance)).kill()
    await bench.until(lambda: bench.exits)
    [(told, failure)] = bench.exits
    assert told == instance
    assert failure.code == "RUNNER_CRASHED"
    assert ("SIGKILL" in failure.message) is not adopted
    await _gone(bench)


async def test_a_crash_in_predict_is_reported_with_the_log(bench):
    """The last lines that it wrote are the details, and what it had forked goes with it."""
    model = """
        import os
        import time

        class Model:
            def predict(self, batch):
                print("the disk of doom")
                os._exit(9)

        def load(artifacts, config):
            if os.fork() == 0:
                time.sleep(600)
            return Model()
    """
    instance = await bench.serve({"src/model.py": model})
    with pytest.raises(LongshoreError, match="RUNNER_CRASHED"):
        await bench.supervisor.infer(instance.instance_id, {"x": 1})
    await bench.until(lambda: bench.exits)
    [(_, failure)] = bench.exits
    assert "exited with status 9" in failure.message
    assert "the disk of doom" in failure.details
    await _gone(bench)


async def test_a_model_that_ends_itself_is_a_crash(bench):
    """sys.exit() in predict does not leave a process that answers nothing, whatever threads its libraries hold."""
    model = """
        import sys
        import threading
        import time

        class Model:
            def predict(self, batch):
                sys.exit(0)

        def load(artifacts, config):
            threading.Thread(target=time.sleep, args=(600,)).start()
            return Model()
    """
    instance = await bench.serve({"src/model.py": model})
    with pytest.raises(LongshoreError, match="RUNNER_CRASHED"):
        await bench.supervisor.infer(instance.instance_id, {"x": 1})
    await bench.until(lambda: bench.exits)
    assert "SystemExit" in bench.exits[0][1].details
    await _gone(bench)


async def test_a_drain_waits_for_the_last_connection(bench):
    """What is in flight is answered; the runner goes when Envoy has closed, and that is no crash."""
    instance = await bench.serve()
    wire = await bench.connect(instance)
    wire.post({"x": "wait"})
    draining = asyncio.create_task(bench.supervisor.drain(instance.instance_id))
    again = asyncio.create_task(bench.supervisor.drain(instance.instance_id))
    await asyncio.sleep(0.5)
    assert not draining.done()
    assert bench.supervisor.running() == [instance]
    bench.open_gate(instance)
    assert (await wire.answer())[0] == 200
    wire.post({"x": 2})
    assert (await wire.answer())[0] == 200
    wire.close()
    await asyncio.gather(draining, again)
    assert bench.supervisor.drains_cut == 0
    assert bench.exits == []
    await _gone(bench)


async def test_a_drain_that_takes_too_long_is_cut_and_counted(bench):
    """After the drain timeout the runner is killed, in-flight or not."""
    bench.new_supervisor(drain_timeout=0.5)
    instance = await bench.serve()
    wire = await bench.connect(instance)
    wire.post({"x": "wait"})
    await bench.supervisor.drain(instance.instance_id)
    assert bench.supervisor.drains_cut == 1
    assert bench.exits == []
    await _gone(bench)


async def test_a_drain_goes_on_when_its_caller_is_cancelled(bench):
    """A command that is cancelled after its route flip leaves no runner behind."""
    instance = await bench.serve()
    draining = asyncio.create_task(bench.supervisor.drain(instance.instance_id))
    await asyncio.sleep(0)
    draining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await draining
    await bench.until(lambda: not bench.supervisor.running())
    await _gone(bench)


async def test_sigterm_answers_what_is_in_work_and_refuses_the_rest(bench):
    """Told to end, a runner finishes; a request that comes later hears that it is draining."""
    instance = await bench.serve()
    first = await bench.connect(instance)
    first.post({"x": "wait"})
    await bench.begun(instance)
    psutil.Process(_pid(bench, instance)).send_signal(signal.SIGTERM)

    async def refused():
        # The signal's handler runs in the thread that predict() occupies: what comes before it waits with the first.
        wire = await bench.connect(instance)
        wire.post({"x": 1})
        try:
            status, _, problem = await asyncio.wait_for(wire.answer(), 0.2)
        except TimeoutError:
            return False
        return (status, problem["type"]) == (503, "urn:longshore:problem:draining")

    await bench.until(refused)
    bench.open_gate(instance)
    assert (await first.answer())[0] == 200
    assert await first.closed()


async def test_stop_of_nothing_is_done_already(bench):
    """Unknown ids have gone, whatever is asked of them."""
    await bench.supervisor.stop("0" * 10)
    await bench.supervisor.drain("0" * 10)
    instance = await bench.serve()
    await bench.supervisor.stop_all()
    await bench.supervisor.stop(instance.instance_id)
    assert bench.exits == []
    await _gone(bench)


async def test_a_runner_that_ignores_sigterm_is_killed(bench, monkeypatch):
    """The model's code has no say in whether it goes."""
    monkeypatch.setattr("longshore.worker_host.runners.supervisor._TERM_GRACE_SECONDS", 0.3)
    model = """
        import signal

        class Model:
            def predict(self, batch):
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                return [(0, 1) for _ in batch]

        def load(artifacts, config):
            return Model()
    """
    instance = await bench.serve({"src/model.py": model})
    await bench.supervisor.infer(instance.instance_id, {"x": 1})
    await bench.supervisor.stop(instance.instance_id)
    assert bench.exits == []
    await _gone(bench)


async def test_a_released_runner_serves_on_and_is_adopted(bench):
    """Handover: requests on an open connection go on, and the next daemon drains it as its own."""
    instance = await bench.serve()
    wire = await bench.connect(instance)
    wire.post({"x": 1})
    await wire.answer()
    bench.supervisor.release()
    assert bench.supervisor.running() == []
    wire.post({"x": 2})
    assert (await wire.answer())[2]["y"] == 2
    successor = bench.new_supervisor()
    assert await successor.adopt() == [instance]
    assert successor.running() == [instance]
    wire.post({"x": 3})
    assert (await wire.answer())[2]["y"] == 3
    wire.close()
    await successor.drain(instance.instance_id)
    await _gone(bench)


async def test_only_what_the_journal_names_is_adopted(bench):
    """A living runner of another digest, or one that the journal does not know, is killed; the right one stays."""
    right, other, unknown = [await bench.serve() for _ in range(3)]
    bench.supervisor.release()
    changed = other.spec.model_copy(update={"digest": "f" * 64})
    bench.store.save(other.model_copy(update={"spec": changed}))
    bench.store.forget(unknown.instance_id)
    assert await bench.new_supervisor().adopt() == [right]
    assert bench.store.all() == [right]
    assert bench.paths.present() == {right.instance_id}
    await bench.until(lambda: len(bench.processes()) == 1)
    assert bench.exits == []


async def test_stray_files_are_removed_and_others_files_are_not(bench):
    """The run directory is shared with Envoy: only names of runners are the supervisor's business."""
    for name in ("0123456789.sock", "0123456789.lock", "0123456789.words", "ads.sock", "envoy.lock"):
        (bench.paths.root / name).touch()
    bench.paths.home("0123456789").mkdir()
    dead = bench.instance()
    bench.store.save(dead)
    assert await bench.supervisor.adopt() == []
    assert sorted(path.name for path in bench.paths.root.iterdir()) == ["ads.sock", "envoy.lock"]
    assert bench.store.all() == []


async def test_a_runner_that_was_still_loading_is_not_adopted(bench):
    """Its command is delivered again and starts a new one."""
    model = """
        import time

        def load(artifacts, config):
            (artifacts / "begun").touch()
            time.sleep(600)
    """
    instance = bench.instance({"src/model.py": model})
    starting = asyncio.create_task(bench.supervisor.start(instance))
    await bench.begun(instance)
    assert await bench.new_supervisor().adopt() == []
    with pytest.raises(LongshoreError, match="RUNNER_CRASHED"):
        await starting
    await _gone(bench)


async def test_a_start_that_is_cancelled_after_the_release_is_not_handed_over(bench):
    """In whatever order a daemon leaves: a runner that is still loading belongs to the start, and ends with it."""
    model = """
        import time

        def load(artifacts, config):
            (artifacts / "begun").touch()
            time.sleep(600)
    """
    instance = bench.instance({"src/model.py": model})
    starting = asyncio.create_task(bench.supervisor.start(instance))
    await bench.begun(instance)
    bench.supervisor.release()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await _gone(bench)


async def test_a_log_does_not_grow_for_ever(bench, monkeypatch):
    """Beyond its limit it begins anew, while the runner goes on writing."""
    monkeypatch.setattr("longshore.worker_host.runners.supervisor._LOG_LIMIT_BYTES", 10_000)
    monkeypatch.setattr("longshore.worker_host.runners.supervisor._HOUSEKEEPING_SECONDS", 0.05)
    instance = await bench.serve()
    log = bench.paths.log(instance.instance_id)
    sizes = [0]

    async def cut():
        await bench.supervisor.infer(instance.instance_id, {"x": "unpredictable"})
        sizes.append(log.stat().st_size)
        return sizes[-1] < sizes[-2]

    await bench.until(cut)
    assert sizes[-1] < 10_000
