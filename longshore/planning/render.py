"""A plan as an operator reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from longshore.planning.costs import CapacityRow, Cost
from longshore.planning.explain import Verdict
from longshore.schemas.ledger import Key
from longshore.schemas.plans import Deferred, DeploymentPlan, Plan, PlannedCommand
from longshore.schemas.quantities import format_memory
from longshore.schemas.wording import counted

# A commit is recognised by its first seven digits, as git shows it.
_SHORT_SHA = 7

# Of the devices that a plan did not choose, so many are compared; `explain` has them all.
_NOT_CHOSEN = 5


def render(
    plan: Plan, costs: Mapping[Key, Cost] | None = None, not_chosen: Mapping[str, tuple[Verdict, ...]] | None = None
) -> str:
    """Return the plan as text: what changes and why, what is commanded and why there, what waits, what has no place.

    With `costs` (`costs.preview`) each command says what it fetches and how long it takes, with `not_chosen`
    (`explain.why_not`) each deployment which devices it does not go to.
    """
    head = f"plan of {plan.sha[:_SHORT_SHA] or 'the files as they lie there'}, generation {plan.generation}"
    lines = list(_fleet(plan))
    if not plan.deployments and not lines:
        return f"{head}: nothing to do\n"
    if not plan.deployments and not plan.put_off:
        lines.append("nothing to do")
    for deployment in plan.deployments:
        lines += _deployment(deployment, costs or {}, (not_chosen or {}).get(deployment.deployment_id, ()))
    return "\n".join([head, *lines, ""])


def capacities(rows: Iterable[CapacityRow]) -> str:
    """Return a table of what each changed device holds before and after, as amounts of what it has."""
    rows = tuple(rows)
    changed = [row for row in rows if row.before != row.after]
    table = [("device", "memory", "CPU", "GPU", "models"), *(_cells(row) for row in changed)] if changed else []
    if not any(row.capacity.gpu for row in changed):
        table = [(device, memory, cpu, models) for device, memory, cpu, _, models in table]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    left_out = len(rows) - len(changed)
    if left_out:
        lines.append(f"{counted(left_out, 'device')} as before")
    return "\n".join([*lines, ""])


def summary(plan: Plan) -> str:
    """Return the plan in one line."""
    commands = [command for deployment in plan.deployments for command in deployment.commands]
    parts = [
        f"{counted(len(plan.deployments), 'deployment')} {'changes' if len(plan.deployments) == 1 else 'change'}",
        f"{counted(len(commands), 'command')} on {counted(len({c.worker_id for c in commands}), 'device')}",
    ]
    deferred, unplaced, given_up = (
        sum(len(deployment.deferred) for deployment in plan.deployments),
        sum(deployment.without_place for deployment in plan.deployments),
        sum(deployment.given_up for deployment in plan.deployments),
    )
    if deferred:
        parts.append(f"{counted(deferred, 'command')} later")
    if unplaced:
        parts.append(f"{counted(unplaced, 'replica')} without a place")
    if given_up:
        parts.append(f"{counted(given_up, 'replica')} given up")
    return ", ".join(parts)


def _cells(row: CapacityRow) -> tuple[str, ...]:
    before, after, capacity = row.before, row.after, row.capacity
    return (
        row.worker_id,
        _moves(format_memory(before.memory), format_memory(after.memory), format_memory(capacity.memory)),
        _moves(f"{before.cpu:g}", f"{after.cpu:g}", f"{capacity.cpu:g}"),
        _moves(f"{before.gpu}", f"{after.gpu}", f"{capacity.gpu}"),
        _moves(f"{before.models}", f"{after.models}", f"{capacity.models}"),
    )


def _moves(before: str, after: str, capacity: str) -> str:
    return f"{after} of {capacity}" if before == after else f"{before} → {after} of {capacity}"


def _fleet(plan: Plan) -> Iterator[str]:
    if plan.cause is not None:
        by = f" ({plan.cause.by})" if plan.cause.by else ""
        yield f"because {plan.cause.words}{by}"
    for one in plan.suspects:
        silent = f"{one.unhealthy} of {one.alive_before} devices of pool {one.pool} are silent at once"
        yield f"! FLEET_SUSPECT: {silent}; nothing lost there is replaced, nothing is evicted"
    for slot in plan.adopted:
        yield f"found {slot.deployment_id} {slot.version} on {slot.worker_id}, {slot.state}"
    for name in plan.put_off:
        yield f"{name} is left alone until what is under way has ended: there is more to do then"


def _deployment(
    deployment: DeploymentPlan, costs: Mapping[Key, Cost], not_chosen: tuple[Verdict, ...]
) -> Iterator[str]:
    yield ""
    yield f"{deployment.deployment_id} (priority {deployment.priority})"
    for change in deployment.changes:
        yield f"  {change.type}: {change.reason}"
    names = [*(c.worker_id for c in deployment.commands), *(d.worker_id for d in deployment.deferred)]
    width = max(map(len, names), default=0)
    for command in deployment.commands:
        yield from _command(command, width, costs.get((deployment.deployment_id, command.worker_id)))
    if sum(command.recreate for command in deployment.commands) > 1:
        yield f"  at most {deployment.max_unavailable} of them at once"
    told = {rejection.worker_id for rejection in deployment.rejections}
    yield from _others([one for one in not_chosen if one.worker_id not in told], width)
    for later in deployment.deferred:
        yield _later(later, width)
    if deployment.held:
        yield f"  held: {deployment.held}"
    wanted = f"{deployment.replicas} wanted replicas"
    if deployment.without_place:
        lack = "are held back from" if deployment.held else "find no place for"
        yield f"  ! {deployment.without_place} of {wanted} {lack} {deployment.version}"
    if deployment.given_up:
        yield f"  ! {deployment.given_up} of {wanted} cannot run {deployment.version}: given up"
    for rejection in deployment.rejections:
        yield f"    {rejection.worker_id}: {'; '.join(rejection.reasons)}"
    if deployment.truncated:
        yield f"    and {deployment.truncated} more"


def _command(command: PlannedCommand, width: int, cost: Cost | None) -> Iterator[str]:
    price = f" ({_price(cost)})" if cost is not None and _price(cost) else ""
    yield f"  {command.action:<6} {command.worker_id:<{width}}  {command.reason}{price}"
    if command.gap is not None:
        yield f"         {command.gap}"
    if command.after:
        waits = ", ".join(awaited.deployment_id for awaited in command.after)
        yield f"         after UNLOAD {waits} on {command.worker_id}"


def _later(later: Deferred, width: int) -> str:
    return f"  later  {later.worker_id:<{width}}  {later.action} once {later.waits_for}: {later.reason}"


def _others(not_chosen: list[Verdict], width: int) -> Iterator[str]:
    ranked = sorted(not_chosen, key=lambda one: (one.rank is None, one.rank, one.worker_id))
    for one in ranked[:_NOT_CHOSEN]:
        yield f"  not    {one.worker_id:<{width}}  {'; '.join(one.reasons)}"
    if len(ranked) > _NOT_CHOSEN:
        yield f"  not    {len(ranked) - _NOT_CHOSEN} more"


def _price(cost: Cost) -> str:
    parts = []
    if cost.bytes is not None:
        parts.append(f"fetches {_size(cost.bytes)}" if cost.bytes else "nothing to fetch")
    if cost.seconds is not None:
        parts.append(_time(cost.seconds))
    if cost.rollback_seconds is not None:
        parts.append(f"back in {_time(cost.rollback_seconds)}")
    return ", ".join(parts)


def _time(seconds: float) -> str:
    return f"about {seconds:.0f} s" if seconds >= 1 else "under 1 s"


def _size(amount: int) -> str:
    """Return bytes as file sizes are written: powers of ten."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if amount >= size:
            return f"{amount / size:.1f} {unit}"
    return f"{amount} B"
