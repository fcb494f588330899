"""Every error that Envoy answers by itself is a problem document (RFC 9457), and names the version where one stands."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from envoy_backends import until

from longshore.xds.listeners import MAX_REQUEST_BYTES
from longshore.xds.routing import Backend, Route, Unavailable

pytestmark = pytest.mark.envoy


def problem_of(answer) -> dict:
    """Check what all problems share and return the document."""
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == answer.status_code
    assert document["title"]
    assert document["detail"]
    return document


async def test_reasons_differ_in_type(plane):
    """Disabled, not loaded and draining are three problems; those that pass by themselves say when to ask again."""
    await plane.start(*(Route(f"m-{reason}", None, unavailable=reason) for reason in Unavailable))

    answers = {reason: await plane.ask(f"/infer/m-{reason}", json={}) for reason in Unavailable}

    assert {answer.status_code for answer in answers.values()} == {503}
    for reason, answer in answers.items():
        document = problem_of(answer)
        assert document["type"] == f"urn:longshore:problem:{reason}"
        assert document["deployment_id"] == f"m-{reason}"
        assert ("retry-after" in answer.headers) == (reason is not Unavailable.DISABLED)


async def test_unknown_deployment_and_wrong_method(plane):
    """What nobody knows is 404; what is asked for wrongly is 405 with the right method."""
    _, backend = await plane.runner("1.0.0")
    await plane.start(Route("sentiment", None, (backend,)))

    unknown = await plane.ask("/infer/nobody", json={})
    below = await plane.ask("/infer/sentiment/deeper", json={})
    wrong = await plane.ask("/infer/sentiment", method="GET")

    assert problem_of(unknown)["type"] == "urn:longshore:problem:unknown-deployment"
    assert unknown.status_code == below.status_code == 404
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "POST"
    problem_of(wrong)


async def test_endpoint_is_another_address_of_the_deployment(plane):
    """The manifest's host and path lead to the model, whatever the port; another host or path does not."""
    _, backend = await plane.runner("1.0.0")
    await plane.start(Route("sentiment", "https://Models.example.com/v1/sentiment", (backend,)))

    async def status(host: str, path: str) -> int:
        return (await plane.ask(path, json={}, headers={"host": host})).status_code

    assert await status("models.example.com", "/v1/sentiment") == 200
    assert await status("MODELS.example.com:8443", "/v1/sentiment?trace=1") == 200
    assert await status("models.example.com", "/infer/sentiment") == 200
    assert await status("models.example.com", "/v1/other") == 404
    assert await status("other.example.com", "/v1/sentiment") == 404


async def test_full_runner(plane):
    """Beyond `max_requests` a request is refused at once, with the version and the time to come back."""
    runner, backend = await plane.runner("1.0.0", max_requests=2)
    await plane.start(Route("sentiment", None, (backend,)))
    runner.hold.clear()
    held = [asyncio.create_task(plane.ask("/infer/sentiment", json={})) for _ in range(2)]
    await until(lambda: runner.requests == 2)

    refused = await plane.ask("/infer/sentiment", json={})
    stats = (await plane.envoy.stats())[backend.cluster]
    runner.hold.set()

    assert refused.status_code == 503
    assert problem_of(refused)["type"] == "urn:longshore:problem:overloaded"
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["x-model-version"] == "1.0.0"
    assert stats.in_flight == 2
    assert [answer.status_code for answer in await asyncio.gather(*held)] == [200, 200]


async def test_runner_that_is_gone(plane):
    """Nobody listens on the runner's socket: 503 with the version that should have answered."""
    await plane.start(Route("sentiment", None, (Backend("d" * 10, str(plane.root / "gone.sock"), "1.0.0", 4),)))

    answer = await plane.ask("/infer/sentiment", json={})

    assert answer.status_code == 503
    assert problem_of(answer)["type"] == "urn:longshore:problem:unreachable"
    assert answer.headers["x-model-version"] == "1.0.0"


async def test_body_that_is_too_large(plane):
    """A body over the limit is refused before it reaches a runner."""
    runner, backend = await plane.runner("1.0.0")
    await plane.start(Route("sentiment", None, (backend,)))

    answer = await plane.ask("/infer/sentiment", content=b"x" * (MAX_REQUEST_BYTES + 1))

    assert answer.status_code == 413
    assert problem_of(answer)["type"] == "urn:longshore:problem:too-large"
    assert answer.headers["x-model-version"] == "1.0.0"
    assert runner.requests == 0


async def test_slow_model(plane, monkeypatch):
    """A model that takes longer than a request may is 504, with its version."""
    monkeypatch.setattr("longshore.xds.resources.REQUEST_TIMEOUT", timedelta(seconds=0.2))
    runner, backend = await plane.runner("1.0.0")
    runner.hold.clear()
    await plane.start(Route("sentiment", None, (backend,)))

    answer = await plane.ask("/infer/sentiment", json={})

    assert answer.status_code == 504
    assert problem_of(answer)["type"] == "urn:longshore:problem:timeout"
    assert answer.headers["x-model-version"] == "1.0.0"


async def test_clients_cannot_steer_the_proxy(plane):
    """Envoy's own request headers, such as a shorter time-out, are of no effect."""
    runner, backend = await plane.runner("1.0.0")
    await plane.start(Route("sentiment", None, (backend,)))
    runner.hold.clear()
    steering = {"x-envoy-upstream-rq-timeout-ms": "1", "x-envoy-retry-on": "5xx", "x-envoy-max-retries": "3"}
    asked = asyncio.create_task(plane.ask("/infer/sentiment", json={}, headers=steering))
    await until(lambda: runner.requests)
    await plane.eventually_answers("/infer/nobody", 404)
    runner.hold.set()

    assert (await asked).status_code == 200


async def test_malformed_request(plane):
    """What Envoy itself finds wrong with a request is a problem document as well."""
    await plane.start()

    answer = await plane.ask("/infer/x", json={}, headers={"x-long": "x" * 70_000})

    assert answer.status_code == 431
    assert problem_of(answer)["type"] == "urn:longshore:problem:proxy"
