"""The acts: deploy, infer, update under load, go back, a bad push, disable.

Each raises DemoFailed when its promise breaks.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import httpx2

from longshore.cli.demo import rollout
from longshore.cli.demo.load import Load
from longshore.cli.demo.processes import DemoFailed
from longshore.cli.demo.report import load_facts
from longshore.cli.demo.stage import Stage, client

SENTIMENT, DIGITS = "sentiment-prod", "digits-prod"
OLD, NEW = "1.0.0", "1.1.0"
REVIEW = {"text": "The new release is laggy, but support was quick."}
FIVE = {
    "pixels": [
        *(0, 0, 12, 8, 8, 7, 0, 0, 0, 3, 16, 16, 11, 7, 0, 0, 0, 2, 14, 1, 0, 0, 0, 0, 0, 5, 14, 5, 0, 0, 0, 0),
        *(0, 2, 15, 16, 9, 0, 0, 0, 0, 0, 0, 2, 16, 2, 0, 0, 0, 0, 4, 8, 16, 4, 0, 0, 0, 0, 11, 14, 9, 0, 0, 0),
    ]
}
"""A handwritten five of scikit-learn's data set, row by row."""
CONNECTIONS = 3  # per device
PAUSE = 0.005  # seconds between two requests of a connection: a load, not a benchmark
AROUND = 200  # requests before the change begins and after it has ended
OK, UNAVAILABLE = 200, 503


async def play(stage: Stage, set_up_until: float) -> None:
    """Play all acts. `set_up_until` is the screen's time at which the set-up ended."""
    await deploy(stage)
    await infer(stage)
    stage.report.first_answer_seconds = round(stage.screen.seconds - set_up_until, 3)
    await change_under_load(stage, f"Update sentiment to {NEW} under load", NEW, f"Deploy sentiment {NEW}")
    await change_under_load(stage, f"Go back to {OLD} under load", OLD, f"Back to sentiment {OLD}: a forward commit")
    await refuse(stage)
    await disable(stage)


async def deploy(stage: Stage) -> None:
    stage.screen.act("Deploy: git push → READY on every device")
    with stage.report.step("deploy: push → every replica READY") as step:
        result = await rollout.follow(stage, stage.registry.deploy(), step)
        step.facts["commands"] = {
            f"{answer.deployment_id} on {slot.worker_id}": slot.step_seconds
            for answer in result.answers
            for slot in answer.results
        }


async def infer(stage: Stage) -> None:
    stage.screen.act("Infer: through each device's Envoy")
    with stage.report.step("infer: one request per replica"):
        for deployment, document in ((SENTIMENT, REVIEW), (DIGITS, FIVE)):
            for worker_id in await rollout.holders(stage, deployment):
                answer = await ask(stage.data_url(worker_id), deployment, document)
                _expect(answer, OK, OLD)
                stage.screen.good(f"{worker_id} {deployment} {answer.headers['x-model-version']}: {answer.text}")


async def change_under_load(stage: Stage, title: str, version: str, message: str) -> None:
    """Push another version while every device is under load. No request may fail, and only two versions answer."""
    stage.screen.act(title)
    workers = await rollout.holders(stage, SENTIMENT)
    urls = [f"{stage.data_url(worker_id)}/infer/{SENTIMENT}" for worker_id in workers]
    with stage.report.step(f"change to {version} under load: push → every replica READY") as step:
        async with AsyncExitStack() as stack:
            loads = [await stack.enter_async_context(Load(url, REVIEW, CONNECTIONS, pause=PAUSE)) for url in urls]
            for load in loads:
                await load.more(AROUND)
            stage.screen.say(f"load: {len(loads) * CONNECTIONS} connections to {len(loads)} devices, all answer")

            def tick() -> None:
                requests, failed = sum(load.total for load in loads), sum(load.failed for load in loads)
                stage.screen.bar("load", None, f"{requests} requests, {failed} failed")

            await rollout.follow(stage, stage.registry.pin(SENTIMENT, version, message), step, tick)
            for load in loads:
                await load.more(AROUND)
        step.facts |= {"load": load_facts(*loads)}
        _tell_load(stage, step.facts["load"])
        for worker_id in workers:
            answer = await ask(stage.data_url(worker_id), SENTIMENT, REVIEW)
            _expect(answer, OK, version)
            stage.screen.good(f"{worker_id} {SENTIMENT} {version}: {answer.text}")


async def refuse(stage: Stage) -> None:
    stage.screen.act("A bad push: refused as a whole, with every reason, and nothing that runs changes")
    before = await _running(stage)
    worker_id = (await rollout.holders(stage, SENTIMENT))[0]
    with stage.report.step("bad push: push → refused") as step:
        async with Load(f"{stage.data_url(worker_id)}/infer/{SENTIMENT}", REVIEW, CONNECTIONS, pause=PAUSE) as load:
            await load.more(AROUND)
            result = await rollout.refused(stage, stage.registry.blunder("Update both, quickly"), step)
            await load.more(AROUND)
        step.facts |= {"codes": sorted({issue.code for issue in result.issues}), "refused": load_facts(load)}
        stage.screen.good(f"written to git: errors/{stage.registry.errors()[-1]}")
        if load.failed or await _running(stage) != before:
            raise DemoFailed(f"a refused push changed what runs: {before} before, {await _running(stage)} after")
        stage.screen.good(f"as before: {len(before)} replicas; {load.total} requests meanwhile, {load.failed} failed")
    stage.registry.undo()


async def disable(stage: Stage) -> None:
    stage.screen.act("Disable digits: callers are told so")
    workers = await rollout.holders(stage, DIGITS)
    with stage.report.step("disable: push → no replica left") as step:
        await rollout.follow(stage, stage.registry.disable(DIGITS, "EMERGENCY: disable digits"), step)
        for worker_id in workers:
            answer = await ask(stage.data_url(worker_id), DIGITS, FIVE)
            _expect(answer, UNAVAILABLE, None)
            stage.screen.good(f"{worker_id} {DIGITS}: {answer.status_code} {answer.json().get('type')}")


async def ask(base: str, deployment: str, document: dict[str, Any]) -> httpx2.Response:
    async with client() as http:
        return await http.post(f"{base}/infer/{deployment}", json=document)


async def _running(stage: Stage) -> dict[tuple[str, str], tuple[object, ...]]:
    """Return what identifies each replica: a model that was loaded anew has another time."""
    models = await stage.watcher.models()
    return {key: (m.state, m.version, m.digest, m.generation, m.loaded_at) for key, m in models.items()}


def _tell_load(stage: Stage, facts: dict[str, Any]) -> None:
    by_version = ", ".join(f"{count} by {version}" for version, count in sorted(facts["versions"].items()))
    if facts["failed"] or not set(facts["versions"]) <= {OLD, NEW}:
        raise DemoFailed(f"requests failed under load: {facts['outcomes']}; answered: {by_version}")
    latency = f"p50 {facts['p50_ms']:g} ms, p99 {facts['p99_ms']:g} ms"
    stage.screen.good(f"{facts['requests']} requests, {facts['failed']} failed; {by_version}; {latency}")


def _expect(answer: httpx2.Response, status: int, version: str | None) -> None:
    told = answer.headers.get("x-model-version")
    if answer.status_code != status or (version is not None and told != version):
        raise DemoFailed(
            f"{answer.url} answered {answer.status_code} by version {told}, not {status} by {version}: {answer.text}"
        )
