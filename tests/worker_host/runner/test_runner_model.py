"""How the model's own code is called, and what its errors cost."""

from __future__ import annotations

import asyncio

import pytest

from longshore.worker_host.stores import interpreters


async def _ask(bench, instance, *values):
    """Send each value on a connection of its own, all before the model begins, and return the answers in order."""
    blocker = await bench.connect(instance)
    blocker.post({"x": "wait"})
    await bench.begun(instance)
    async with bench.client(instance) as client:
        wires = []
        for number, value in enumerate(values):
            wires.append(await bench.connect(instance))
            wires[-1].post({"x": value})
            await bench.until(lambda number=number: _in_flight(client, number + 2))
    bench.open_gate(instance)
    answers = [await wire.answer() for wire in (blocker, *wires)]
    for wire in (blocker, *wires):
        wire.close()
    return [(status, document) for status, _, document in answers[1:]]


async def _in_flight(client, expected):
    return (await client.get("/-/identity")).json()["in_flight"] == expected


async def test_what_waits_is_answered_in_batches_each_caller_its_own_answer(bench):
    """Twenty that came while the model was busy go in batches of eight, and no answer goes astray."""
    instance = await bench.serve()
    answers = await _ask(bench, instance, *range(20))
    assert [document["y"] for _, document in answers] == list(range(20))
    assert [document["batch"] for _, document in answers] == [8] * 16 + [4] * 4


async def test_many_connections_each_get_their_own_answers_in_their_order(bench):
    """Thirty clients that ask without a pause never see each other's answers."""
    instance = await bench.serve()

    async def client(number):
        wire = await bench.connect(instance)
        for step in range(40):
            wire.post({"x": number * 1000 + step})
            _, _, document = await wire.answer()
            assert document["y"] == number * 1000 + step
        wire.close()

    await asyncio.gather(*(client(number) for number in range(30)))


async def test_one_bad_item_does_not_fail_its_batch(bench):
    """Each stage's failure is answered to whoever caused it, and names the stage; the others get their answers."""
    instance = await bench.serve(card={"preprocessing": {"config": {"refuses": "refused"}}})
    answers = await _ask(bench, instance, 1, "refused", 2, "unpredictable", 3, "nan", "breach", 4)
    assert [document["y"] for status, document in answers if status == 200] == [1, 2, 3, 4]
    failed = [(status, document["stage"], document["detail"]) for status, document in answers if status != 200]
    assert [status for status, _, _ in failed] == [500] * 4
    assert [stage for _, stage, _ in failed] == ["preprocessing", "predict", "output", "output"]
    assert "ValueError: will not take refused" in failed[0][2]
    assert "LookupError" in failed[1][2]
    assert "out of range" in failed[2][2].lower()
    assert '"y" is a required property' in failed[3][2]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("return batch + [1]", "2 results for a batch of 1"),
        ("return None", "NoneType"),
        ("return [{1, 2}]", "not JSON serializable"),
        ("return [float('inf')]", "not JSON compliant"),
        ("return ['\\ud800']", "surrogates"),
    ],
)
async def test_what_is_no_answer_is_an_error_with_the_version(bench, source, complaint):
    """Wrong counts and values that JSON has no word for are 500, never a broken document."""
    model = f"""
        class Model:
            def predict(self, batch):
                {source}

        def load(artifacts, config):
            return Model()
    """
    plain = "def wrap(value, config):\n    return value"
    files = {"src/model.py": model, "src/after.py": plain}
    instance = await bench.serve(files, card={"interface": {"output_schema": {}}})
    async with bench.client(instance) as client:
        response = await client.post("/infer/multiplier", json={"x": 1})
    assert response.status_code == 500
    assert response.headers["x-model-version"] == "1.2.3"
    assert complaint in response.json()["detail"]


async def test_a_models_error_is_in_its_log_with_a_traceback(bench):
    """The caller gets one line; whoever mends the model gets where."""
    instance = await bench.serve()
    async with bench.client(instance) as client:
        await client.post("/infer/multiplier", json={"x": "unpredictable"})
    log = bench.paths.log(instance.instance_id).read_text()
    assert "in predict" in log
    assert "inference_failed" in log


async def test_load_gets_the_artifacts_and_their_configuration(bench):
    """`load(artifacts, config)`: a folder, and what the file of config_path holds."""
    card = {"artifacts": {"config_path": "https://files.example.com/v1/settings.json"}}
    instance = bench.instance(card=card)
    bench.put_artifact(instance, "settings.json", '{"factor": 7}')
    await bench.supervisor.start(instance)
    async with bench.client(instance) as client:
        assert (await client.post("/infer/multiplier", json={"x": 6})).json()["y"] == 42


async def test_load_and_predict_run_on_the_main_thread(bench):
    """Libraries bind what load() makes to its thread."""
    model = """
        import threading

        class Model:
            def predict(self, batch):
                return [(threading.current_thread() is threading.main_thread() and self.main, 1) for _ in batch]

        def load(artifacts, config):
            model = Model()
            model.main = threading.current_thread() is threading.main_thread()
            return model
    """
    instance = await bench.serve({"src/model.py": model})
    async with bench.client(instance) as client:
        assert (await client.post("/infer/multiplier", json={"x": 1})).json()["y"] is True


async def test_a_package_of_the_same_name_does_not_hide_the_models_code(bench):
    """A regular package `src` in site-packages would win over the checkout's, which has no __init__.py."""
    packages = bench.root / "site-packages"
    foreign = packages / "src"
    foreign.mkdir(parents=True)
    (foreign / "__init__.py").write_text("raise RuntimeError('the wrong src')")
    model = f"""
        import sys
        sys.path.append({str(packages)!r})
        import src.helper

        class Model:
            def predict(self, batch):
                return [(src.helper.NAME, 1) for _ in batch]

        def load(artifacts, config):
            return Model()
    """
    instance = await bench.serve({"src/model.py": model, "src/helper.py": "NAME = 'the checkout'"})
    async with bench.client(instance) as client:
        assert (await client.post("/infer/multiplier", json={"x": 1})).json()["y"] == "the checkout"


async def test_the_path_is_library_checkout_packages_support(bench):
    """A model's module hides an installed package, never the standard library; ours comes last."""
    model = """
        import json.decoder
        import sys

        class Model:
            def predict(self, batch):
                return [(sys.path, 1) for _ in batch]

        def load(artifacts, config):
            return Model()
    """
    files = {"src/model.py": model, "json/__init__.py": "raise RuntimeError('not the standard library')"}
    instance = await bench.serve(files)
    async with bench.client(instance) as client:
        path = (await client.post("/infer/multiplier", json={"x": 1})).json()["y"]
    checkout = path.index(instance.checkout)
    packages = next(index for index, entry in enumerate(path) if entry.endswith("site-packages"))
    library = next(index for index, entry in enumerate(path) if entry.endswith("lib-dynload"))
    assert library < checkout < packages < len(path) - 1
    assert path[-1].startswith(str(bench.support))


async def test_the_environment_of_a_runner_holds_nothing_of_ours(bench, monkeypatch):
    """No credential of the host reaches model code; threads are capped by the card."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    model = """
        import os

        class Model:
            def predict(self, batch):
                return [(dict(os.environ), 1) for _ in batch]

        def load(artifacts, config):
            return Model()
    """
    instance = await bench.serve({"src/model.py": model}, card={"resources": {"cpu": 1.5}})
    async with bench.client(instance) as client:
        environment = (await client.post("/infer/multiplier", json={"x": 1})).json()["y"]
    assert "planted" not in environment.values()
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert environment["HOME"] == str(bench.paths.home(instance.instance_id))


async def test_it_runs_on_every_python_that_is_here(bench):
    """The model's interpreter may be older or newer than ours (older than 3.10 needs a package index, once)."""
    found = await interpreters.discover()
    for interpreter in found.values():
        if interpreter.version >= (3, 10, 0):
            instance = bench.instance().model_copy(update={"python": str(interpreter.path)})
            await bench.supervisor.start(instance)
            answer = await bench.supervisor.infer(instance.instance_id, {"x": 8})
            assert (answer.status, answer.body) == (200, b'{"y":8,"batch":1}')
            await bench.supervisor.stop(instance.instance_id)
