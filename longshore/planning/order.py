"""A plan as each device sees it: its commands in the order in which it takes them (DESIGN §3)."""

from __future__ import annotations

from collections import defaultdict

from longshore.schemas.commands import Action, UnloadReason
from longshore.schemas.plans import Plan, PlannedCommand

_UNLOADS = {UnloadReason.DISABLED: 0, UnloadReason.EVICTED: 2}
_OTHER_UNLOADS = 1
_FILLS = {Action.RELOAD: 3, Action.LOAD: 4}


def by_device(plan: Plan) -> dict[str, tuple[tuple[str, PlannedCommand], ...]]:
    """Return each commanded device's commands with their deployments, by worker id.

    DISABLE, UNLOAD, EVICT, RELOAD, LOAD, as the device's own queue ranks them; of one rank by priority, then by id.
    """
    ordered: defaultdict[str, list[tuple[tuple[int, int, str], PlannedCommand]]] = defaultdict(list)
    for deployment in plan.deployments:
        for command in deployment.commands:
            key = (_rank(command), -deployment.priority, deployment.deployment_id)
            ordered[command.worker_id].append((key, command))
    return {
        worker_id: tuple((name, command) for (_, _, name), command in sorted(commands, key=lambda one: one[0]))
        for worker_id, commands in sorted(ordered.items())
    }


def _rank(command: PlannedCommand) -> int:
    if command.unload_reason is not None:
        return _UNLOADS.get(command.unload_reason, _OTHER_UNLOADS)
    return _FILLS[command.action]
