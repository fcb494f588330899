"""A plan that is read before it is pushed, and then carried out as it was read."""

from __future__ import annotations

import shlex

from longshore.cli import exits
from longshore.cli.demo.asking import NEW, SENTIMENT
from longshore.cli.demo.processes import DemoFailed
from longshore.cli.demo.stage import Stage
from longshore.schemas.commands import Action

Announced = set[tuple[str, str]]
"""Commands: action and device."""


async def read_plan(stage: Stage) -> Announced:
    """Edit a manifest, print what `longshore plan` says of it, and return the commands that it announces."""
    stage.screen.act(f"Read a plan first: a manifest is edited to sentiment {NEW}, and nothing is pushed yet")
    with stage.report.step("read a plan: edited → printed") as step:
        stage.registry.edit(SENTIMENT, NEW)
        stage.screen.say(f"$ longshore {shlex.join(stage.plan_arguments())}")
        text = await stage.processes.says(*stage.plan_arguments(), code=exits.CHANGES)
        for line in text.splitlines():
            stage.screen.plain(f"{line and '           '}{line}")
        announced = commands(text)
        step.facts["commands"] = len(announced)
        if not announced:
            raise DemoFailed("the plan announces no command")
    return announced


def commands(text: str) -> Announced:
    """Return the commands in the text of a plan of one deployment."""
    starts = (line.split()[:2] for line in text.splitlines() if line.startswith("  "))
    return {(words[0], words[1]) for words in starts if words and words[0] in set(Action)}


async def compare(stage: Stage, announced: Announced, sha: str) -> None:
    """Raise DemoFailed unless the push of `sha` was carried out as announced."""
    plan = await stage.watcher.plan(sha)
    done = {(str(c.action), c.worker_id) for d in plan.deployments for c in d.commands} if plan else set()
    if done != announced:
        raise DemoFailed(f"announced were {sorted(announced)}, carried out {sorted(done)}")
    stage.screen.good(f"carried out as it was read: {len(done)} commands, none more and none fewer")
