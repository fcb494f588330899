"""A plan as an operator reads it."""

from __future__ import annotations

from collections.abc import Iterator

from longshore.schemas.plans import Deferred, DeploymentPlan, Plan, PlannedCommand

# A commit is recognised by its first seven digits, as git shows it.
_SHORT_SHA = 7


def render(plan: Plan) -> str:
    """Return the plan as text: what changes and why, what is commanded and why there, what waits, what has no place."""
    head = f"plan of {plan.sha[:_SHORT_SHA]}, generation {plan.generation}"
    lines = list(_fleet(plan))
    if not plan.deployments and not lines:
        return f"{head}: nothing to do\n"
    return "\n".join([head, *lines, *(line for deployment in plan.deployments for line in _deployment(deployment)), ""])


def _fleet(plan: Plan) -> Iterator[str]:
    if plan.cause is not None:
        by = f" ({plan.cause.by})" if plan.cause.by else ""
        yield f"because {plan.cause.words}{by}"
    for one in plan.suspects:
        silent = f"{one.unhealthy} of {one.alive_before} devices of pool {one.pool} are silent at once"
        yield f"! FLEET_SUSPECT: {silent}; nothing lost there is replaced, nothing is evicted"
    for slot in plan.adopted:
        yield f"found {slot.deployment_id} {slot.version} on {slot.worker_id}, {slot.state}"
    if not plan.deployments:
        yield "nothing to do"


def _deployment(deployment: DeploymentPlan) -> Iterator[str]:
    yield ""
    yield f"{deployment.deployment_id} (priority {deployment.priority})"
    for change in deployment.changes:
        yield f"  {change.type}: {change.reason}"
    names = [*(c.worker_id for c in deployment.commands), *(d.worker_id for d in deployment.deferred)]
    width = max(map(len, names), default=0)
    for command in deployment.commands:
        yield from _command(command, width)
    for later in deployment.deferred:
        yield _later(later, width)
    if deployment.held:
        yield f"  held: {deployment.held}"
    if deployment.unplaced:
        wanted = f"{deployment.replicas} wanted replicas"
        lack = "are held back from" if deployment.held else "find no place for"
        yield f"  ! {deployment.unplaced} of {wanted} {lack} {deployment.version}"
    for rejection in deployment.rejections:
        yield f"    {rejection.worker_id}: {'; '.join(rejection.reasons)}"
    if deployment.truncated:
        yield f"    and {deployment.truncated} more"


def _command(command: PlannedCommand, width: int) -> Iterator[str]:
    yield f"  {command.action:<6} {command.worker_id:<{width}}  {command.reason}"
    if command.gap is not None:
        yield f"         {command.gap}"
    if command.after:
        waits = ", ".join(awaited.deployment_id for awaited in command.after)
        yield f"         after UNLOAD {waits} on {command.worker_id}"


def _later(later: Deferred, width: int) -> str:
    return f"  later  {later.worker_id:<{width}}  {later.action} once {later.waits_for}: {later.reason}"
