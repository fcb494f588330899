"""What must go from one device so that something more important fits there (PRD §5.3 phase 3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from longshore.planning.fleet import Fleet
from longshore.planning.occupancy import Usage, amount
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import Awaited, DeploymentPlan, Shortfall
from longshore.schemas.slots import Demand, Slot
from longshore.schemas.wording import listed

# Who was never asked, or of whom it is not known, was asked longest ago.
_NEVER = datetime.min.replace(tzinfo=UTC)

# A sentence names the few that stand in the way, the least important first.
_NAMED = 3

_NOUNS = {"memory": "memory", "cpu": "CPU", "gpu": "GPU", "models": "models"}


@dataclass(frozen=True)
class Eviction:
    """The smallest set of slots whose going makes the room."""

    victims: tuple[Slot, ...]
    """To be unloaded, the least valuable first."""
    leaving: tuple[Slot, ...] = ()
    """Being unloaded already, and waited for by nobody else."""


@dataclass(frozen=True)
class Veto:
    """Why no eviction makes the room."""

    reasons: tuple[str, ...]
    shortfalls: tuple[Shortfall, ...] = ()
    """What would be missing still with all gone that may be evicted."""


def evictable(worker_id: str, target: DeploymentPlan, fleet: Fleet) -> tuple[Slot, ...]:
    """Return the slots of a device that an eviction for `target` may unload, in the order in which they go.

    By priority, then (`strategy: lru`) the one that was asked longest ago, or (`priority`) the largest, then by id.
    Not those that are waited for or wait themselves, and not those whose own deployment this plan does not command.
    """
    policy = fleet.workers[worker_id].eviction_policy
    if not policy.enable_auto_eviction or fleet.suspicion(worker_id) is not None:
        return ()
    below = [
        slot
        for name, slot in fleet.occupancy.on(worker_id).items()
        if fleet.priorities.get(name, target.priority) < target.priority and slot.state is not ModelState.UNLOADING
    ]
    if not below:
        return ()
    promised = fleet.occupancy.claims(worker_id)
    waiting = set(promised.values())
    free = [s for s in below if not {s.deployment_id} & (promised.keys() | waiting | fleet.paused)]
    facts = fleet.facts.get(worker_id)
    asked = facts.last_inference if facts is not None and policy.strategy == "lru" else {}

    def order(slot: Slot) -> tuple[object, ...]:
        name = slot.deployment_id
        within = -slot.reserved.memory if policy.strategy == "priority" else asked.get(name, _NEVER)
        return (fleet.priorities[name], within, name)

    return tuple(sorted(free, key=order))


def choose(worker_id: str, target: DeploymentPlan, need: Demand, models: int, fleet: Fleet) -> Eviction | Veto:
    """Choose what goes from a device so that `need` and `models` more fit there; changes nothing.

    Takes from a copy, in order, until it fits; then puts back, the most valuable first, each that turns out not to be
    needed. What is being unloaded already, and waited for by nobody, goes first of all: it costs nothing.
    """
    leaving = _leaving(worker_id, target, fleet)
    order = (*leaving, *evictable(worker_id, target, fleet))
    usage = replace(fleet.occupancy.usage(worker_id))
    taken: list[Slot] = []
    for slot in order:
        if usage.fits(need, models):
            break
        usage.take(slot.reserved, slot.models, sign=-1)
        taken.append(slot)
    shortfalls = usage.shortfalls(need, models)
    if shortfalls:
        return Veto(_reasons(worker_id, target, shortfalls, fleet), shortfalls)
    kept: list[Slot] = []
    for slot in reversed(taken):
        usage.take(slot.reserved, slot.models)
        if not usage.fits(need, models):
            usage.take(slot.reserved, slot.models, sign=-1)
            kept.insert(0, slot)
    victims = tuple(slot for slot in kept if slot.state is not ModelState.UNLOADING)
    _wonder(worker_id, victims, order[len(leaving) :], fleet)
    return Eviction(victims, tuple(slot for slot in kept if slot.state is ModelState.UNLOADING))


def claim(eviction: Eviction, target: DeploymentPlan, fleet: Fleet) -> tuple[Awaited, ...]:
    """Mark the victims as evicted for `target`, and return what its command must wait for."""
    for slot in eviction.victims:
        fleet.evicted[slot.deployment_id, slot.worker_id] = target.deployment_id
    going = [
        *((slot, slot.generation) for slot in eviction.leaving),
        *((slot, target.generation) for slot in eviction.victims),
    ]
    return tuple(
        Awaited(deployment_id=slot.deployment_id, worker_id=slot.worker_id, generation=generation)
        for slot, generation in going
    )


def evicting(eviction: Eviction, worker_id: str, fleet: Fleet) -> str:
    """Say what goes, and for whom nobody has asked for how long."""
    parts = []
    if eviction.victims:
        parts.append(f"evicts {listed([_victim(slot, worker_id, fleet) for slot in eviction.victims])}")
    if eviction.leaving:
        are = "is" if len(eviction.leaving) == 1 else "are"
        parts.append(f"{listed([slot.deployment_id for slot in eviction.leaving])} {are} being unloaded already")
    return ", ".join(parts)


def _victim(slot: Slot, worker_id: str, fleet: Fleet) -> str:
    priority, facts = f"priority {fleet.priorities[slot.deployment_id]}", fleet.facts.get(worker_id)
    if facts is None:
        return f"{slot.deployment_id} ({priority})"
    asked = facts.last_inference.get(slot.deployment_id)
    when = "never asked" if asked is None else f"last asked {asked:%Y-%m-%d %H:%M} UTC"
    return f"{slot.deployment_id} ({priority}, {when})"


def _leaving(worker_id: str, target: DeploymentPlan, fleet: Fleet) -> tuple[Slot, ...]:
    slots = fleet.occupancy.on(worker_id).values()
    going = [s for s in slots if s.state is ModelState.UNLOADING and s.deployment_id != target.deployment_id]
    if not going:
        return ()
    promised = fleet.occupancy.claims(worker_id)
    taken = promised.keys() | set(promised.values())
    return tuple(sorted((s for s in going if s.deployment_id not in taken), key=lambda s: s.deployment_id))


def _wonder(worker_id: str, victims: Iterable[Slot], order: Iterable[Slot], fleet: Fleet) -> None:
    """Note that the device's news would help: some of one priority go, some stay, and nobody knows who was asked."""
    if worker_id in fleet.facts or fleet.workers[worker_id].eviction_policy.strategy != "lru":
        return
    going = {slot.deployment_id for slot in victims}
    priorities = {fleet.priorities[name] for name in going}
    if any(s.deployment_id not in going and fleet.priorities[s.deployment_id] in priorities for s in order):
        fleet.wondered.add(worker_id)


def _reasons(
    worker_id: str, target: DeploymentPlan, shortfalls: tuple[Shortfall, ...], fleet: Fleet
) -> tuple[str, ...]:
    """Say why not, where `shortfalls` remain with all gone that may go."""
    suspicion = fleet.suspicion(worker_id)
    if any(shortfall.requested > shortfall.capacity for shortfall in shortfalls):
        return ("no eviction helps: the device is too small",)
    if not fleet.workers[worker_id].eviction_policy.enable_auto_eviction:
        return ("nothing is evicted: enable_auto_eviction is false",)
    if suspicion is not None:
        silent = f"{suspicion.unhealthy} of {suspicion.alive_before}"
        return (f"nothing is evicted: {silent} devices of pool {suspicion.pool} are silent at once",)
    freed = _freed(fleet.occupancy.usage(worker_id), shortfalls)
    why = ", ".join(_in_the_way(worker_id, target, fleet))
    return (f"evicting would free {freed}: {why}" if why else f"evicting would free {freed}",)


def _freed(now: Usage, shortfalls: tuple[Shortfall, ...]) -> str:
    """Return how much of what is missing would be had, for each resource that would still not suffice."""
    parts = []
    for shortfall in shortfalls:
        what, used = shortfall.resource, getattr(now, shortfall.resource)
        missing = used + shortfall.requested - shortfall.capacity
        parts.append(f"{amount(what, used - shortfall.used)} of {amount(what, missing)} {_NOUNS[what]}")
    return " and ".join(parts)


def _in_the_way(worker_id: str, target: DeploymentPlan, fleet: Fleet) -> Iterator[str]:
    """Name what stays, and why."""
    promised = fleet.occupancy.claims(worker_id)
    may_go = {s.deployment_id for s in (*_leaving(worker_id, target, fleet), *evictable(worker_id, target, fleet))}
    stay = [
        s for name, s in sorted(fleet.occupancy.on(worker_id).items()) if name not in {*may_go, target.deployment_id}
    ]
    above = [(fleet.priorities.get(s.deployment_id, s.priority), s.deployment_id) for s in stay]
    above = sorted((priority, name) for priority, name in above if priority >= target.priority)
    if above:
        named = [f"{name} (priority {priority})" for priority, name in above]
        are = "is" if len(above) == 1 else "are"
        yield f"{listed(named, _NAMED)} {are} not below {target.priority}"
    for name in sorted({s.deployment_id for s in stay} - {name for _, name in above}):
        if name in promised:
            yield f"{name} makes room for {promised[name]}"
        elif name in promised.values():
            yield f"{name} waits for room itself"
        elif name in fleet.paused:
            yield f"{name} is paused"
