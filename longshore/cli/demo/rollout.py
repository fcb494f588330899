"""Follow one push from the webhook to the end of its workflow, and tell each thing when it happens."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from longshore.cli.demo.processes import DemoFailed
from longshore.cli.demo.report import Step
from longshore.cli.demo.stage import Stage
from longshore.schemas.commits import CommitOutcome, CommitResult
from longshore.schemas.devices import ModelReport
from longshore.schemas.issues import Severity
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import Plan

BEGIN_TIMEOUT = 30.0  # seconds from the webhook to a workflow, or from the workflow to its plan
END_TIMEOUT = 600.0  # seconds; a first load downloads the model's packages
AGREE_TIMEOUT = 30.0  # seconds between the end of the workflow and the devices' own reports
LOOK = 0.1  # seconds between two looks at the devices

Seen = dict[tuple[str, str], tuple[str, str]]
Tick = Callable[[], None]


async def follow(stage: Stage, sha: str, step: Step, tick: Tick = lambda: None) -> CommitResult:
    """Announce the push of `sha` and return its workflow's result. Raises DemoFailed unless it was applied.

    `tick` is called at every look. The step's facts are filled with the seconds from the push to each event.
    """
    began = time.monotonic()
    result = await _carried_out(stage, sha, step, tick)
    _judge(result)
    await _agree(stage)
    step.facts["devices_agree"] = round(time.monotonic() - began, 3)
    stage.screen.good(f"commit {sha[:10]}: {result.summary}")
    return result


async def refused(stage: Stage, sha: str, step: Step) -> CommitResult:
    """Announce the push of `sha` and return its workflow's result. Raises DemoFailed unless it was rejected."""
    result = await _carried_out(stage, sha, step, lambda: None)
    if result.outcome is not CommitOutcome.REJECTED:
        raise DemoFailed(f"commit {sha[:10]} should have been rejected: {result.summary}")
    stage.screen.good(f"commit {sha[:10]}: {result.summary}")
    for issue in result.issues:
        stage.screen.say(f"{issue.severity} {issue}")
        if issue.severity is Severity.ERROR:
            stage.screen.say(f"      → {issue.remedy}")
    return result


async def _carried_out(stage: Stage, sha: str, step: Step, tick: Tick) -> CommitResult:
    began = time.monotonic()
    screen, watcher = stage.screen, stage.watcher
    status = await stage.announce()
    if not 200 <= status < 300:  # noqa: PLR2004 (RFC 9110: success)
        raise DemoFailed(f"the broker's webhook answered {status} to a signed push")
    screen.good(f"pushed {sha[:10]}; the webhook answered {status}")

    async def begun() -> bool:
        return await watcher.has_begun(sha)

    await stage.processes.until("the commit's workflow begins", begun, BEGIN_TIMEOUT)
    step.facts["workflow_began"] = round(time.monotonic() - began, 3)
    ending = asyncio.create_task(watcher.result(sha))
    try:
        with screen.bars():
            await _watch(stage, sha, ending, tick)
        result = await ending
        step.facts["workflow_ended"] = round(time.monotonic() - began, 3)
    finally:
        ending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ending
    return result


async def _watch(stage: Stage, sha: str, ending: asyncio.Task[CommitResult], tick: Tick) -> None:
    """Tell the plan, then each change on a device, until the workflow has ended."""
    deadline = time.monotonic() + END_TIMEOUT
    seen: Seen = states(await stage.watcher.models())
    deployments: tuple[str, ...] | None = None
    while not ending.done():
        stage.processes.check()
        tick()
        if deployments is None and (plan := await stage.watcher.plan(sha)) is not None:
            deployments = tuple(d.deployment_id for d in plan.deployments)
            tell_plan(stage, plan)
        for deployment_id in deployments or ():
            for worker_id, progress in (await stage.watcher.progress(deployment_id)).items():
                stage.screen.bar(
                    f"{worker_id} {deployment_id}", progress.progress, f"{progress.step} {progress.detail}"
                )
        seen = tell_changes(stage, seen, await stage.watcher.models())
        if time.monotonic() > deadline:
            raise DemoFailed(f"the workflow of commit {sha[:10]} has not ended within {END_TIMEOUT:g} s")
        await asyncio.wait([ending], timeout=LOOK)
    tell_changes(stage, seen, await stage.watcher.models())


def tell_plan(stage: Stage, plan: Plan) -> None:
    for deployment in plan.deployments:
        name = deployment.deployment_id
        for command in deployment.commands:
            what = " ".join(filter(None, [command.action, deployment.version]))
            stage.screen.say(f"plan: {name}: {what} on {command.worker_id}: {command.reason}")
        for later in deployment.deferred:
            stage.screen.say(
                f"plan: {name}: {later.action} on {later.worker_id} once {later.waits_for}: {later.reason}"
            )
        if deployment.unplaced:
            stage.screen.say(f"plan: {name}: {deployment.unplaced} of {deployment.replicas} replicas find no place")


def states(models: dict[tuple[str, str], ModelReport]) -> Seen:
    return {key: (model.state, model.version or "") for key, model in models.items()}


def tell_changes(stage: Stage, before: Seen, models: dict[tuple[str, str], ModelReport]) -> Seen:
    """Tell what the devices report otherwise than `before`; return what they report now."""
    now = states(models)
    for (worker_id, deployment_id), (state, version) in sorted(now.items()):
        if before.get((worker_id, deployment_id)) == (state, version):
            continue
        model = models[worker_id, deployment_id]
        arriving = f" → {model.incoming_version}" if model.incoming_version else ""
        why = f": {model.error.code}: {model.error.message}" if model.error else ""
        stage.screen.say(f"{worker_id}  {deployment_id}  {state.upper():<10}{version}{arriving}{why}".rstrip())
        share = 1.0 if state == ModelState.READY else None
        stage.screen.bar(f"{worker_id} {deployment_id}", share, state)
    for worker_id, deployment_id in sorted(before.keys() - now.keys()):
        stage.screen.say(f"{worker_id}  {deployment_id}  gone")
    return now


def _judge(result: CommitResult) -> None:
    if result.outcome is CommitOutcome.APPLIED:
        return
    reasons = [str(issue) for issue in result.issues]
    reasons += [f"{answer.deployment_id}: {answer.outcome}: {answer.message}" for answer in result.answers]
    raise DemoFailed("\n".join([f"the commit was not applied: {result.summary}", *reasons]))


async def _agree(stage: Stage) -> None:
    async def agreed() -> bool:
        return await is_agreed(stage)

    await stage.processes.until("every device reports what the ledger wants of it", agreed, AGREE_TIMEOUT)


async def is_agreed(stage: Stage) -> bool:
    """Tell whether every device reports what the ledger has of it: each replica READY in its version."""
    fleet = await stage.watcher.fleet()
    models = await stage.watcher.models()
    wanted = {(s.worker_id, s.deployment_id): (s.state, s.version) for s in fleet.slots} if fleet else {}
    serving = {key: (m.state, m.version) for key, m in models.items() if m.state is not ModelState.IDLE}
    return fleet is not None and wanted == serving


async def holders(stage: Stage, deployment_id: str) -> list[str]:
    """Return the devices on which a deployment is READY."""
    models = await stage.watcher.models()
    return sorted(w for (w, d), model in models.items() if d == deployment_id and model.state is ModelState.READY)
