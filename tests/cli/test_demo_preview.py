"""What the demo takes from the text of a plan."""

from __future__ import annotations

from longshore.cli.demo.preview import commands
from longshore.planning.render import render
from longshore.schemas.commands import Action
from longshore.schemas.plans import Change, ChangeType, Deferred, DeploymentPlan, Plan, PlannedCommand


def test_the_commands_of_a_printed_plan_are_found_in_its_text():
    """Each command is one, with its device; what comes later, and what names a command in passing, is none."""
    wanted = {(Action.RELOAD, "worker-a"), (Action.LOAD, "worker-bb")}
    deployment = DeploymentPlan(
        deployment_id="m",
        generation=1,
        version="1.1.0",
        digest="d" * 64,
        replicas=2,
        changes=(Change(type=ChangeType.VERSION_UPDATE, deployment_id="m", reason="1.0.0 → 1.1.0 on 1 worker"),),
        commands=tuple(PlannedCommand(action=a, worker_id=w, reason="LOAD worker-c") for a, w in sorted(wanted)),
        deferred=(Deferred(action=Action.UNLOAD, worker_id="worker-c", reason="moves", waits_for="1 other is READY"),),
    )
    assert commands(render(Plan(sha="", generation=1, deployments=(deployment,)))) == wanted
