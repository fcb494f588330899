"""docs/model-repository.md, held to the code."""

from __future__ import annotations

import re
from pathlib import Path

import httpx2
from ruamel.yaml import YAML

from longshore.schemas.failures import FAILURES
from longshore.worker_host.runners.instances import MAX_REQUESTS
from longshore.worker_host.runners.runner import PROBLEMS
from longshore.worker_host.runners.samples import conforming
from longshore.xds import problems
from longshore.xds.listeners import MAX_REQUEST_BYTES

TEXT = (Path(__file__).parents[3] / "docs" / "model-repository.md").read_text()


async def test_the_minimal_example_is_a_model_that_answers(bench):
    """What the page shows is what a runner serves."""
    files = dict(re.findall(r"^`(src/\w+\.py)`:\n\n```python\n(.*?)```", TEXT, re.MULTILINE | re.DOTALL))
    card = YAML(typ="safe", pure=True).load(re.search(r"```yaml\n(.*?)```", TEXT, re.DOTALL)[1])
    assert len(files) == 3
    instance = bench.instance(files, card, version="1.0.0")
    bench.put_artifact(instance, "factor.txt", "3")
    bench.put_artifact(instance, "config.json", '{"plus": 1}')
    await bench.supervisor.start(instance)
    answer = await bench.supervisor.infer(instance.instance_id, conforming(card["interface"]["input_schema"]))
    assert (answer.status, answer.body) == (httpx2.codes.OK, b'{"y":6.0}')


def test_every_problem_is_in_the_table():
    """Those of the runner, those of Envoy, each with its status."""
    rows = re.findall(r"\| (\d{3}) \| `urn:longshore:problem:([\w-]+)`", TEXT)
    documented = {name: int(status) for status, name in rows}
    envoy = [
        *problems.UNAVAILABLE.values(),
        problems.OVERLOADED,
        problems.TIMEOUT,
        problems.UNREACHABLE,
        problems.PROXY,
    ]
    expected = {name: status for name, (status, _) in PROBLEMS.items()} | {p.name: p.status for p in envoy}
    assert documented == expected


def test_codes_and_limits_are_those_of_the_code():
    """No code that does not exist, no number that has changed."""
    assert set(re.findall(r"`([A-Z]+_[A-Z_]+)`", TEXT)) - {"OMP_NUM_THREADS"} <= set(FAILURES)
    assert f"{MAX_REQUESTS:,} requests" in TEXT
    assert f"{MAX_REQUEST_BYTES // 1024**2} MiB" in TEXT


def test_runner_and_envoy_use_the_same_words():
    """A client cannot tell, and need not, which of the two refused it."""
    envoy = [
        *problems.UNAVAILABLE.values(),
        problems.UNKNOWN_DEPLOYMENT,
        problems.METHOD_NOT_ALLOWED,
        problems.OVERLOADED,
        problems.TOO_LARGE,
    ]
    for problem in envoy:
        if problem.name in PROBLEMS:
            assert PROBLEMS[problem.name] == (problem.status, problem.title)
