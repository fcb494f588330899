"""`longshore explain DEPLOYMENT`: why it is where it is, and why it is not where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longshore.cli.orders import Deployment
from longshore.cli.plan import PlanSettings, State, telling_why
from longshore.cli.settings import run_with_settings
from longshore.schemas.wording import counted

if TYPE_CHECKING:
    from longshore.planning.explain import Explanation

_ORDER = ("runs", "could", "held", "cannot")


@run_with_settings(PlanSettings)
async def main(
    settings: PlanSettings,
    deployment: Deployment,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder of the registry, a clone of it.")] = Path(),
    *,
    json: Annotated[bool, typer.Option("--json", help="Print the same facts as one JSON document.")] = False,
    state: State = None,
) -> None:
    """Say why a deployment is where it is, and why it is not elsewhere.

    One verdict for each device, by the commit that is applied: PATH is a clone that has it.
    """
    from longshore.activities.planner import upon  # noqa: PLC0415 (`--help` needs none of these)
    from longshore.cli.proposal import read_applied  # noqa: PLC0415
    from longshore.cli.recorded import look  # noqa: PLC0415
    from longshore.planning.explain import explain  # noqa: PLC0415
    from longshore.schemas.fleet import PlanRequest  # noqa: PLC0415

    with telling_why():
        seen = await look(settings, settings.registry_name, state)
        registry = await read_applied(path, seen, settings)
    request = PlanRequest(request_id="", registry=seen.view.registry, sha=registry.desired.sha)
    asked = upon(seen.view, request, seen.at)
    asked = asked.model_copy(update={"facts": await seen.facts(tuple(registry.desired.workers))})
    explanation = explain(deployment.strip(), asked, registry.desired)
    print(explanation.model_dump_json(indent=2) if json else _as_text(explanation))


def _as_text(explanation: Explanation) -> str:
    one = explanation
    wanted = f"{one.ready} of {counted(one.wanted, 'replica')} READY"
    lines = [f"{one.deployment_id} {one.version}: {wanted}" if one.version else f"{one.deployment_id}: not wanted"]
    if one.held:
        lines.append(f"  {one.held}")
    width = max((len(verdict.worker_id) for verdict in one.verdicts), default=0)
    lines += [
        f"  {verdict.kind:<6}  {verdict.worker_id:<{width}}  {'; '.join(verdict.reasons)}"
        for verdict in sorted(one.verdicts, key=lambda v: (_ORDER.index(v.kind), v.rank or 0, v.worker_id))
    ]
    lines += [
        f"  later   {later.worker_id:<{width}}  {later.action} once {later.waits_for}: {later.reason}"
        for later in one.deferred
    ]
    if one.unplaced:
        lines.append(f"  ! {one.unplaced} of {one.wanted} wanted replicas find no place")
    if one.given_up:
        lines.append(f"  ! {one.given_up} of {one.wanted} wanted replicas cannot run {one.version}: given up")
    if one.last_failure is not None:
        failure = one.last_failure
        when = f", {failure.at:%Y-%m-%d %H:%M:%S} UTC" if failure.at else ""
        lines.append(f"  last failure: {failure.version} on {failure.worker_id}: {failure.code}{when}")
    return "\n".join(lines)
