"""One performance: the set-up, the acts, the report; then the curtain stays up until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import sys
from pathlib import Path
from urllib.parse import quote

from longshore.cli.demo import rollout, story
from longshore.cli.demo.asking import REVIEW, SENTIMENT
from longshore.cli.demo.processes import DemoFailed
from longshore.cli.demo.report import Report, show
from longshore.cli.demo.screen import Screen
from longshore.cli.demo.stage import REGISTRY, Stage, prepared
from longshore.workflows import conventions

CHECK = 1.0  # seconds between two looks whether all processes still run


async def perform(state: Path, report: Report, *, stay: bool) -> None:
    """Play the demo in the folder `state` and fill in `report`. What goes wrong is told and leaves `ok` false."""
    screen = Screen()
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, _current_task().cancel)
    try:
        async with prepared(state, screen, report) as stage:
            await _play(stage)
            screen.act("Stay")
            screen.plain(f"  Everything stays up until Ctrl-C. Logs are in {state / 'logs'}." if stay else "  (--once)")
            while stay:
                stage.processes.check()
                await asyncio.sleep(CHECK)
    except (DemoFailed, OSError, TimeoutError) as error:
        report.ok = False
        report.error = str(error) or type(error).__name__
        screen.bad(report.error)
        if (state / "logs").is_dir():
            screen.plain(f"Logs are in {state / 'logs'}.")


async def _play(stage: Stage) -> None:
    screen, report = stage.screen, stage.report
    screen.act("Set up")
    await stage.set_up()
    set_up_until = screen.seconds
    screen.act("Start: every part a process of its own")
    await stage.start()
    await story.play(stage, set_up_until)
    report.ok = True
    report.urls = _urls(stage)
    show(report, screen)
    screen.act("What the registry tells now (git log)")
    for line in stage.registry.history():
        screen.plain(f"  {line}")
    screen.act("Ask the models yourself")
    for line in await paste_lines(stage):
        screen.plain(line)


def _urls(stage: Stage) -> dict[str, str]:
    devices = {worker_id: stage.data_url(worker_id) for worker_id in stage.watcher.workers}
    sha = stage.registry.repository.git("rev-parse", "HEAD")
    mended = next(step.facts["reconciliation"] for step in stage.report.steps if "reconciliation" in step.facts)
    return {
        "Temporal Web UI": stage.ui_url,
        "the last commit's story": _story(stage, conventions.commit_workflow_id(REGISTRY, sha)),
        "the lost device's story": _story(stage, conventions.reconciliation_workflow_id(REGISTRY, mended)),
        **{f"{worker_id} (Envoy)": url for worker_id, url in devices.items()},
        "artifact store (S3)": stage.storage.url,
        "registry": stage.registry.repository.url,
    }


def _story(stage: Stage, workflow_id: str) -> str:
    return f"{stage.ui_url}/namespaces/default/workflows/{quote(workflow_id, safe='')}"


async def paste_lines(stage: Stage) -> list[str]:
    """Return lines that work when they are pasted into a shell."""
    device = stage.data_url((await rollout.holders(stage, SENTIMENT))[0])
    path, host = "/v1/classify", "sentiment.example.com"
    longshore = Path(sys.executable).with_name("longshore")
    return [
        _curl(f"{device}/infer/{SENTIMENT}", REVIEW),
        _curl(f"{device}{path}", REVIEW, "-H", f"host: {host}"),
        _curl(f"{device}/infer/{SENTIMENT}", {"txt": "a wrong field: 422 says which"}),
        f"{shlex.quote(str(longshore))} status --temporal {stage.temporal}",
        f"{shlex.quote(str(longshore))} {shlex.join(stage.plan_arguments())}",
    ]


def _curl(url: str, document: object, *more: str) -> str:
    return shlex.join(["curl", "-si", url, "-H", "content-type: application/json", *more, "-d", json.dumps(document)])


def _current_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("not in a task")
    return task
