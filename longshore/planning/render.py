"""A plan as an operator reads it."""

from __future__ import annotations

from collections.abc import Iterator

from longshore.schemas.plans import DeploymentPlan, Plan, PlannedCommand

# A commit is recognised by its first seven digits, as git shows it.
_SHORT_SHA = 7


def render(plan: Plan) -> str:
    """Return the plan as text: what changes and why, what is commanded and why there, what finds no place."""
    head = f"plan of {plan.sha[:_SHORT_SHA]}, generation {plan.generation}"
    if not plan.deployments:
        return f"{head}: nothing to do\n"
    return "\n".join([head, *(line for deployment in plan.deployments for line in _deployment(deployment)), ""])


def _deployment(deployment: DeploymentPlan) -> Iterator[str]:
    yield ""
    yield f"{deployment.deployment_id} (priority {deployment.priority})"
    for change in deployment.changes:
        yield f"  {change.type}: {change.reason}"
    width = max((len(command.worker_id) for command in deployment.commands), default=0)
    for command in deployment.commands:
        yield _command(command, width)
    if deployment.unplaced:
        wanted = f"{deployment.replicas} wanted replicas"
        yield f"  ! {deployment.unplaced} of {wanted} find no place for {deployment.version}"
    for rejection in deployment.rejections:
        yield f"    {rejection.worker_id}: {'; '.join(rejection.reasons)}"
    if deployment.truncated:
        yield f"    and {deployment.truncated} more"


def _command(command: PlannedCommand, width: int) -> str:
    return f"  {command.action:<6} {command.worker_id:<{width}}  {command.reason}"
