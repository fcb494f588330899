"""The acts: deploy, infer, read a plan, update under load, go back, lose a device, a bad push, disable.

Each raises DemoFailed when its promise breaks.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from longshore.cli.demo import loss, preview, rollout
from longshore.cli.demo.asking import (
    AROUND,
    CONNECTIONS,
    DIGITS,
    FIVE,
    NEW,
    OK,
    OLD,
    PAUSE,
    REVIEW,
    SENTIMENT,
    UNAVAILABLE,
    ask,
    expect,
)
from longshore.cli.demo.load import Load
from longshore.cli.demo.processes import DemoFailed
from longshore.cli.demo.report import load_facts
from longshore.cli.demo.stage import Stage


async def play(stage: Stage, set_up_until: float) -> None:
    """Play all acts. `set_up_until` is the screen's time at which the set-up ended."""
    await deploy(stage)
    await infer(stage)
    stage.report.first_answer_seconds = round(stage.screen.seconds - set_up_until, 3)
    announced = await preview.read_plan(stage)
    sha = await change_under_load(stage, f"Update sentiment to {NEW} under load", NEW, f"Deploy sentiment {NEW}")
    await preview.compare(stage, announced, sha)
    await change_under_load(stage, f"Go back to {OLD} under load", OLD, f"Back to sentiment {OLD}: a forward commit")
    await loss.lose(stage)
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
                expect(answer, OK, OLD)
                stage.screen.good(f"{worker_id} {deployment} {answer.headers['x-model-version']}: {answer.text}")


async def change_under_load(stage: Stage, title: str, version: str, message: str) -> str:
    """Push another version while every device is under load; return the commit.

    No request may fail, and only two versions answer.
    """
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

            sha = stage.registry.pin(SENTIMENT, version, message)
            await rollout.follow(stage, sha, step, tick)
            for load in loads:
                await load.more(AROUND)
        step.facts |= {"load": load_facts(*loads)}
        _tell_load(stage, step.facts["load"])
        for worker_id in workers:
            answer = await ask(stage.data_url(worker_id), SENTIMENT, REVIEW)
            expect(answer, OK, version)
            stage.screen.good(f"{worker_id} {SENTIMENT} {version}: {answer.text}")
    return sha


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
            expect(answer, UNAVAILABLE, None)
            stage.screen.good(f"{worker_id} {DIGITS}: {answer.status_code} {answer.json().get('type')}")


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
