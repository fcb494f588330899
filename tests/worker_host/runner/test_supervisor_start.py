"""Starts that fail: what the operator reads, and that nothing is left."""

from __future__ import annotations

import asyncio
import json

import pytest

from longshore.schemas.failures import LongshoreError


async def _fails(bench, files=None, card=None, **changes):
    """Start a model that cannot, and return its failure; check that nothing of it is left."""
    supervisor = bench.new_supervisor(**changes) if changes else bench.supervisor
    instance = bench.instance(files, card)
    with pytest.raises(LongshoreError) as caught:
        await supervisor.start(instance)
    _nothing_left(bench)
    return caught.value.failure


def _nothing_left(bench):
    assert bench.processes() == []
    assert bench.paths.present() == set()
    assert bench.store.all() == []
    assert bench.supervisor.running() == []
    assert bench.exits == []


async def test_load_that_raises_is_told_with_its_traceback(bench):
    """The failure holds what load() raised, and where."""
    failure = await _fails(bench, {"src/model.py": "def load(artifacts, config):\n    raise OSError('no weights')"})
    assert failure.code == "MODEL_LOAD_FAILED"
    assert "OSError: no weights" in failure.message
    assert "line 2, in load" in failure.details


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("import no_such_package", "No module named 'no_such_package'"),
        ("def load(:", "SyntaxError"),
        ("x = 1", "has no function load"),
        ("def load(artifacts): pass", "has no function load"),
        ("def load(artifacts, config): return object()", "no predict"),
    ],
)
async def test_an_entrypoint_that_breaks_its_promise(bench, source, complaint):
    """It must import, offer load(artifacts, config), and give something with predict."""
    failure = await _fails(bench, {"src/model.py": source})
    assert failure.code == "ENTRYPOINT_INVALID"
    assert complaint in failure.message


async def test_an_entrypoint_that_is_not_there(bench):
    """The module is looked for in the model's repository only, never in ours."""
    failure = await _fails(bench, card={"code": {"entrypoint": "longshore.nowhere"}})
    assert failure.code == "ENTRYPOINT_INVALID"
    assert "No module named 'longshore' in the model's repository" in failure.message


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("import no_such_package", "No module named"),
        ("unwrap = 3", "is not a function"),
        ("x = 1", "is not a function"),
        ("def unwrap(value): pass", "must take (value, config)"),
    ],
)
async def test_a_processing_function_that_breaks_its_promise(bench, source, complaint):
    """It must import, be there, be callable and take (value, config)."""
    failure = await _fails(bench, {"src/before.py": source})
    assert failure.code == "PROCESSING_INVALID"
    assert complaint in failure.message


async def test_a_schema_that_is_none(bench):
    """A card whose schema cannot be compiled, or refers to the network, says so."""
    for schema in ({"type": "number-ish"}, {"$ref": "http://127.0.0.1:9/schema.json"}):
        failure = await _fails(bench, card={"interface": {"input_schema": schema}})
        assert failure.code == "CARD_INVALID"
        assert "interface.input_schema" in failure.message


async def test_without_entrypoint_the_module_is_model_in_the_cards_path(bench):
    """PRD §2.2's layout needs no entrypoint in the card."""
    instance = await bench.serve(card={"code": {"entrypoint": None, "path": "src/"}})
    assert instance.spec.card.code.entrypoint_module == "src.model"


@pytest.mark.parametrize("source", ["import os\nos._exit(7)", "import os\nos.abort()"])
async def test_a_model_that_takes_the_process_with_it(bench, source):
    """Exit status or signal is in the message, and what it had printed in the details."""
    failure = await _fails(bench, {"src/model.py": "print('about to go')\n" + source})
    assert failure.code == "RUNNER_CRASHED"
    assert "status 7" in failure.message or "SIGABRT" in failure.message
    assert "about to go" in failure.details


async def test_sys_exit_in_load_is_a_failure_to_load(bench):
    """SystemExit is no way to be ready."""
    failure = await _fails(bench, {"src/model.py": "import sys\ndef load(a, c):\n    sys.exit(0)"})
    assert (failure.code, failure.message) == ("MODEL_LOAD_FAILED", "SystemExit: 0")


async def test_a_model_that_loads_too_long(bench):
    """The deadline holds although load() ignores everything, and what it printed is told."""
    model = "import time\nprint('still reading', flush=True)\ndef load(a, c):\n    time.sleep(600)"
    failure = await _fails(bench, {"src/model.py": model}, start_timeout=1.0)
    assert failure.code == "LOAD_TIMEOUT"
    assert "still reading" in failure.details


async def test_a_python_that_is_not_there(bench):
    """An environment that has vanished is an error with its path, before anything is written."""
    instance = bench.instance().model_copy(update={"python": "/nonexistent/bin/python"})
    with pytest.raises(LongshoreError) as caught:
        await bench.supervisor.start(instance)
    assert "python" in str(caught.value)
    _nothing_left(bench)


async def test_memory_kills_are_told_apart_from_other_ends(bench, monkeypatch):
    """SIGKILL while the kernel's count of OOM kills rose is RUNNER_OOM; without that it is a crash."""
    model = "import os, signal\ndef load(a, c):\n    os.kill(os.getpid(), signal.SIGKILL)"
    assert (await _fails(bench, {"src/model.py": model})).code == "RUNNER_CRASHED"
    bench.new_supervisor()
    counted = iter(range(1000))
    monkeypatch.setattr("longshore.worker_host.runners.oom.kills", lambda: next(counted))
    failure = await _fails(bench, {"src/model.py": model})
    assert failure.code == "RUNNER_OOM"
    assert "256Mi" in failure.message


@pytest.mark.parametrize("loading", [False, True])
async def test_a_cancelled_start_leaves_no_process(bench, loading):
    """Whether Python is still starting or the model is loading and has forked."""
    model = """
        import os, time

        def load(artifacts, config):
            if os.fork() == 0:
                time.sleep(600)
            (artifacts / "begun").touch()
            time.sleep(600)
    """
    instance = bench.instance({"src/model.py": model})
    starting = asyncio.create_task(bench.supervisor.start(instance))
    await bench.until(bench.paths.present)
    if loading:
        await bench.begun(instance)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await bench.until(lambda: bench.processes() == [])
    _nothing_left(bench)


async def test_the_journal_knows_an_instance_before_its_process_exists(bench, monkeypatch):
    """A daemon that dies right after the spawn leaves an entry that its successor reads."""

    def spawn(instance, *_):
        assert bench.store.all() == [instance]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("longshore.worker_host.runners.runner_process.spawn", spawn)
    failure = await _fails(bench)
    assert failure.code == "DISK_FULL"


async def test_last_words_are_json_for_whoever_comes_later(bench):
    """An adopted process has no exit status: its reason is in a file."""
    instance = bench.instance({"src/model.py": "def load(a, c):\n    raise KeyError('x')"})
    kept = {}
    forget = bench.supervisor._forget

    def look(instance_id):
        kept.update(json.loads(bench.paths.last_words(instance_id).read_text()))
        forget(instance_id)

    bench.supervisor._forget = look
    with pytest.raises(LongshoreError):
        await bench.supervisor.start(instance)
    assert kept["code"] == "MODEL_LOAD_FAILED"
    assert "KeyError" in kept["traceback"]
