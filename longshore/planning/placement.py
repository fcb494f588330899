"""Which devices take a replica, and why not the others (PRD §5.3 phases 1, 2, 4 and 5)."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from longshore.planning.fleet import Fleet
from longshore.planning.occupancy import Occupancy, Usage
from longshore.schemas.commands import Action
from longshore.schemas.devices import Health
from longshore.schemas.ledger import reserved
from longshore.schemas.plans import DeploymentPlan, PlannedCommand, Rejection, Shortfall
from longshore.schemas.quantities import format_memory
from longshore.schemas.slots import Demand

# A device that is heard goes before one that may be in trouble, and both before one that was never heard.
_TRUST = {Health.HEALTHY: 0, Health.RECOVERING: 1, Health.SUSPECT: 1, Health.UNKNOWN: 2, Health.FAILED: 3}


@dataclass(frozen=True)
class Placed:
    commands: tuple[PlannedCommand, ...]
    unfit: tuple[str, ...]
    """The candidates that could not take a replica; `rejection` says why."""


def place(target: DeploymentPlan, candidates: tuple[str, ...], schema_version: str, count: int, fleet: Fleet) -> Placed:
    """Choose the best `count` of `candidates` for a LOAD of `target`, and reserve them in the fleet's occupancy.

    The order is total: trust, free memory, free CPU, fewer models, and the id at the end.
    """
    occupancy = fleet.occupancy
    held = occupancy.of(target.deployment_id)
    fitting: list[tuple[object, ...]] = []
    unfit: list[str] = []
    for worker_id in candidates:
        usage = occupancy.usage(worker_id)
        need, models = _need(target, worker_id, fleet) if worker_id in held else (target.demand, 1)
        if fleet.absence(worker_id) or not fleet.supports(worker_id, schema_version) or not usage.fits(need, models):
            unfit.append(worker_id)
        else:
            trust = _TRUST[fleet.health(worker_id)]
            fitting.append((trust, -usage.free_memory, -usage.free_cpu, usage.models, worker_id))
    commands = []
    for rank, best in enumerate(heapq.nsmallest(count, fitting), start=1):
        worker_id = str(best[-1])
        reason = f"rank {rank} of {len(fitting)} that fit: {_room(occupancy.usage(worker_id))}"
        command = PlannedCommand(action=Action.LOAD, worker_id=worker_id, reason=reason)
        occupancy.put(reserved(held.get(worker_id), target, command))
        commands.append(command)
    return Placed(tuple(commands), tuple(unfit))


def shortage(target: DeploymentPlan, command: PlannedCommand, fleet: Fleet) -> Rejection | None:
    """Return why `command` does not fit on a device that holds the deployment already; None where it does."""
    occupancy = fleet.occupancy
    slot = occupancy.of(target.deployment_id)[command.worker_id]
    need, models = occupancy.need(reserved(slot, target, command))
    shortfalls = occupancy.usage(command.worker_id).shortfalls(need, models)
    if not shortfalls:
        return None
    reasons = [_lacks(shortfall, command.worker_id, occupancy) for shortfall in shortfalls]
    if command.action is Action.RELOAD:
        reasons.insert(0, f"no room for {target.version} beside {command.previous_version}, which stays")
    return Rejection(worker_id=command.worker_id, reasons=tuple(reasons), shortfalls=shortfalls)


def unsupported(worker_id: str, schema_version: str, fleet: Fleet) -> str:
    supported = ", ".join(fleet.workers[worker_id].supported_schema_versions)
    return f"supports schema {supported}, the card is {schema_version}"


def rejection(target: DeploymentPlan, worker_id: str, schema_version: str, fleet: Fleet) -> Rejection:
    """Return every reason why `worker_id` cannot take a replica."""
    occupancy = fleet.occupancy
    need, models = _need(target, worker_id, fleet)
    shortfalls = occupancy.usage(worker_id).shortfalls(need, models)
    reasons = [_lacks(shortfall, worker_id, occupancy) for shortfall in shortfalls]
    if not fleet.supports(worker_id, schema_version):
        reasons.insert(0, unsupported(worker_id, schema_version, fleet))
    absence = fleet.absence(worker_id)
    if absence:
        reasons.insert(0, absence)
    return Rejection(worker_id=worker_id, reasons=tuple(reasons), shortfalls=shortfalls)


def _need(target: DeploymentPlan, worker_id: str, fleet: Fleet) -> tuple[Demand, int]:
    held = fleet.occupancy.of(target.deployment_id).get(worker_id)
    load = PlannedCommand(action=Action.LOAD, worker_id=worker_id, reason="")
    return fleet.occupancy.need(reserved(held, target, load))


def _lacks(shortfall: Shortfall, worker_id: str, occupancy: Occupancy) -> str:
    what = shortfall.resource
    wanted, used, capacity = (_amount(what, n) for n in (shortfall.requested, shortfall.used, shortfall.capacity))
    freed = getattr(occupancy.being_unloaded(worker_id), what, 0)
    hint = f" ({_amount(what, freed)} of it is being unloaded)" if freed else ""
    return f"{what}: {wanted} wanted, {used} of {capacity} taken{hint}"


def _amount(resource: str, number: float) -> str:
    return format_memory(int(number)) if resource == "memory" else f"{number:g}"


def _room(usage: Usage) -> str:
    models = "1 model" if usage.models == 1 else f"{usage.models} models"
    return f"{usage.free_memory:.0%} of memory and {usage.free_cpu:.0%} of CPU free, {models}"
