"""Which devices take a replica, and why not the others (PRD §5.3 phases 1, 2, 4, 5; 3 is eviction)."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from longshore.planning.eviction import Eviction, Veto, choose, claim, evicting
from longshore.planning.fleet import Fleet
from longshore.planning.occupancy import Occupancy, Usage, amount
from longshore.schemas.commands import Action
from longshore.schemas.devices import Health
from longshore.schemas.ledger import reserved
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import DeploymentPlan, PlannedCommand, Rejection, Shortfall
from longshore.schemas.slots import Demand, Slot
from longshore.schemas.wording import counted

# Trust, then room: the smaller, the better. Devices that fit in one zone are compared by it.
Rank = tuple[int, float, float, int, int, str]


@dataclass(frozen=True)
class Placed:
    commands: tuple[PlannedCommand, ...]
    unfit: tuple[str, ...]
    """The candidates that could not take a replica; `rejection` says why."""


def place(target: DeploymentPlan, candidates: tuple[str, ...], schema_version: str, count: int, fleet: Fleet) -> Placed:
    """Choose the best `count` of `candidates` for a LOAD of `target`, and reserve them in the fleet's occupancy.

    The order is total: trust, fewest replicas of it in the zone, free memory, free CPU, fewer models, fewer failures
    of the device within a day, and the id at the end. Only where too few have room is any made by eviction: then
    trust, the least priority of what goes, the fewest that go, and the same order again.
    """
    occupancy = fleet.occupancy
    held, demand = occupancy.of(target.deployment_id), target.demand
    fitting: defaultdict[str, list[Rank]] = defaultdict(list)
    full: list[str] = []
    unfit: list[str] = []
    takers, away, reputes = fleet.takers(schema_version), occupancy.away(target.deployment_id), fleet.reputes
    for worker_id in candidates:
        if worker_id not in takers or worker_id in away:
            unfit.append(worker_id)
            continue
        usage = occupancy.usage(worker_id)
        need, models = _need(target, worker_id, fleet) if worker_id in held else (demand, 1)
        if usage.fits(need, models):
            trust, failures, zone = reputes[worker_id]
            fitting[zone].append((trust, *usage.room, failures, worker_id))
        else:
            full.append(worker_id)
    zones = Counter(reputes[w].zone for w, slot in held.items() if _counts(slot, fleet))
    total, several = sum(len(ranks) for ranks in fitting.values()), len(fitting) > 1
    commands: list[PlannedCommand] = []
    for number, (worker_id, in_zone) in enumerate(_best(fitting, zones, count), start=1):
        reason = f"rank {number} of {total} that fit: {_room(occupancy.usage(worker_id))}"
        if several:
            reason += f", {_spread(in_zone, reputes[worker_id].zone)}"
        command = PlannedCommand(action=Action.LOAD, worker_id=worker_id, reason=reason)
        occupancy.put(reserved(held.get(worker_id), target, command))
        commands.append(command)
    if len(commands) < count:
        more = _with_evictions(target, full, count - len(commands), zones, fleet)
        commands.extend(more)
        taken = {command.worker_id for command in more}
        full = [worker_id for worker_id in full if worker_id not in taken]
    return Placed(tuple(commands), tuple(sorted((*unfit, *full))))


def _counts(slot: Slot, fleet: Fleet) -> bool:
    """Tell whether a replica is one for which another zone is preferred."""
    return slot.state is not ModelState.UNLOADING and fleet.health(slot.worker_id) is not Health.FAILED


def _best(fitting: Mapping[str, list[Rank]], zones: Counter[str], count: int) -> Iterator[tuple[str, int]]:
    """Yield the best `count` devices, and how many replicas their zone had before; counts them in `zones`."""
    for ranks in fitting.values():
        heapq.heapify(ranks)
    for _ in range(count):
        heads = [(ranks[0][0], zones[zone], ranks[0], zone) for zone, ranks in fitting.items() if ranks]
        if not heads:
            return
        _, in_zone, (*_, worker_id), zone = min(heads)
        heapq.heappop(fitting[zone])
        zones[zone] += 1
        yield str(worker_id), in_zone


def _with_evictions(
    target: DeploymentPlan, full: Iterable[str], count: int, zones: Counter[str], fleet: Fleet
) -> list[PlannedCommand]:
    """Return at most `count` LOADs on devices where something of less priority goes first, or is going already."""
    occupancy = fleet.occupancy
    options: dict[str, Eviction] = {}
    for worker_id in full:
        chosen = choose(worker_id, target, *_need(target, worker_id, fleet), fleet)
        if isinstance(chosen, Eviction):
            options[worker_id] = chosen
    reputes = fleet.reputes

    def order(worker_id: str) -> tuple[object, ...]:
        victims = options[worker_id].victims
        dearest = max((fleet.priorities[slot.deployment_id] for slot in victims), default=0)
        trust, failures, zone = reputes[worker_id]
        room = occupancy.usage(worker_id).room
        return (trust, dearest, len(victims), zones[zone], *room, failures, worker_id)

    commands: list[PlannedCommand] = []
    while options and len(commands) < count:
        worker_id = min(options, key=order)
        eviction = options.pop(worker_id)
        command = PlannedCommand(
            action=Action.LOAD,
            worker_id=worker_id,
            reason=f"makes room: {evicting(eviction, worker_id, fleet)}",
            after=claim(eviction, target, fleet),
        )
        occupancy.put(reserved(occupancy.of(target.deployment_id).get(worker_id), target, command))
        zones[reputes[worker_id].zone] += 1
        commands.append(command)
    return commands


def shortage(slot: Slot, target: DeploymentPlan, command: PlannedCommand, fleet: Fleet) -> Rejection | None:
    """Return why `command` does not fit where the deployment has `slot`; None where it does."""
    occupancy = fleet.occupancy
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
    absence, newcomer = fleet.absence(worker_id), occupancy.claims(worker_id).get(target.deployment_id)
    if shortfalls and worker_id in fleet.takers(schema_version) and newcomer is None:
        chosen = choose(worker_id, target, need, models, fleet)
        reasons.extend(chosen.reasons if isinstance(chosen, Veto) else ())
    if not fleet.supports(worker_id, schema_version):
        reasons.insert(0, unsupported(worker_id, schema_version, fleet))
    if newcomer is not None:
        reasons.insert(0, f"makes room there for {newcomer}")
    if absence:
        reasons.insert(0, absence)
    return Rejection(worker_id=worker_id, reasons=tuple(reasons), shortfalls=shortfalls)


def _need(target: DeploymentPlan, worker_id: str, fleet: Fleet) -> tuple[Demand, int]:
    held = fleet.occupancy.of(target.deployment_id).get(worker_id)
    load = PlannedCommand(action=Action.LOAD, worker_id=worker_id, reason="")
    return fleet.occupancy.need(reserved(held, target, load))


def _lacks(shortfall: Shortfall, worker_id: str, occupancy: Occupancy) -> str:
    what = shortfall.resource
    wanted, used, capacity = (amount(what, n) for n in (shortfall.requested, shortfall.used, shortfall.capacity))
    freed = getattr(occupancy.being_unloaded(worker_id), what, 0)
    hint = f" ({amount(what, freed)} of it is being unloaded)" if freed else ""
    return f"{what}: {wanted} wanted, {used} of {capacity} taken{hint}"


def _room(usage: Usage) -> str:
    return f"{usage.free_memory:.0%} of memory and {usage.free_cpu:.0%} of CPU free, {counted(usage.models, 'model')}"


def _spread(in_zone: int, zone: str) -> str:
    where = f"in zone {zone}" if zone else "outside of zones"
    return f"{in_zone or 'none'} of its replicas {where} before"
