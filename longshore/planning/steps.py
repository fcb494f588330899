"""What holds between the deployments of a plan: who waits for whom, and what a device holds at each step."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from longshore.schemas.commands import Action, UnloadReason
from longshore.schemas.ledger import Key, key_of
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import DeploymentPlan, Plan, PlannedCommand
from longshore.schemas.registries import RegistrySnapshot
from longshore.schemas.slots import Slot

# Summed cores are floats; so much is noise.
_NOISE = 1e-3


def evictions(plan: Plan, before: Iterable[Slot]) -> Iterator[str]:
    """Yield where a command waits in vain, for something too important, or for what another waits for as well."""
    ledger = {key_of(slot): slot for slot in before}
    plans = {deployment.deployment_id: deployment for deployment in plan.deployments}
    commands = {(d.deployment_id, command.worker_id): command for d in plan.deployments for command in d.commands}
    promised: Counter[Key] = Counter(
        (gone, slot.worker_id)
        for key, slot in ledger.items()
        if slot.state is not ModelState.READY and key not in commands
        for gone in slot.instead_of
    )
    for (name, worker_id), command in sorted(commands.items()):
        for gone in command.after:
            key = (gone.deployment_id, gone.worker_id)
            promised[key] += 1
            where = f"{name}: {command.action} on {worker_id} waits for {gone.deployment_id} on {gone.worker_id}"
            for why in _vain(command, gone.worker_id, ledger.get(key), commands.get(key)):
                yield f"{where}, {why}"
            evicted = _is_evicted(commands.get(key), ledger.get(key))
            if evicted and _too_important(plans.get(gone.deployment_id), plans[name]):
                yield f"{where}, whose priority is not below {plans[name].priority}"
    for (name, worker_id), times in sorted(promised.items()):
        if times > 1:
            yield f"{name} on {worker_id} makes room for several"
    yield from _needless(commands, ledger, promised)


def capacity(before: Iterable[Slot], after: Iterable[Slot], desired: RegistrySnapshot) -> Iterator[str]:
    """Compare the most that is on each device at any step: whatever has answered, whatever has begun.

    What was above its limit before the plan may stay there, but nothing may be added.
    """
    was, now = _peaks(before), _peaks(after)
    for worker_id, worker in sorted(desired.workers.items()):
        limits = {
            "memory": worker.capacity.memory_bytes,
            "cpu": worker.capacity.max_cpu,
            "gpu": worker.capacity.max_gpu,
            "models": worker.capacity.max_models,
        }
        for resource, limit in limits.items():
            taken = now[worker_id][resource]
            if taken > limit + _NOISE and taken > was[worker_id][resource] + _NOISE:
                yield f"{worker_id}: {taken:g} {resource} reserved, the limit is {limit:g}"


def _peaks(slots: Iterable[Slot]) -> defaultdict[str, Counter[str]]:
    """Return the most that each device holds at any step, by resource.

    Everything may be there at once, but for what waits: that is there or those for which it waits, never both.
    """
    ledger = {key_of(slot): slot for slot in slots}
    peaks: defaultdict[str, Counter[str]] = defaultdict(Counter)
    awaited: set[Key] = set()
    for slot in ledger.values():
        keys = [(gone, slot.worker_id) for gone in slot.instead_of if (gone, slot.worker_id) in ledger]
        if keys and slot.state is not ModelState.READY:
            awaited.update(keys)
            then, first = _amounts(slot), _beside(slot)
            for key in keys:
                first.update(_amounts(ledger[key]))
            peaks[slot.worker_id].update({resource: max(then[resource], first[resource]) for resource in then | first})
            awaited.add(key_of(slot))
    for key, slot in ledger.items():
        if key not in awaited:
            peaks[slot.worker_id].update(_amounts(slot))
    return peaks


def _vain(command: PlannedCommand, worker_id: str, slot: Slot | None, going: PlannedCommand | None) -> Iterator[str]:
    if command.action is Action.UNLOAD:
        yield "though it frees room itself"
    if worker_id != command.worker_id:
        yield "another device"
    if slot is None:
        yield "which does not hold it"
    elif going is None and slot.state is not ModelState.UNLOADING:
        yield "which nothing unloads"
    elif going is not None and going.action is not Action.UNLOAD:
        yield f"where a {going.action} is commanded"


def _is_evicted(command: PlannedCommand | None, slot: Slot | None) -> bool:
    """Tell whether this plan lets something go for another. What goes for its own reason is free for anybody."""
    going = slot is not None and slot.state is ModelState.UNLOADING
    return command is not None and command.unload_reason is UnloadReason.EVICTED and not going


def _too_important(victim: DeploymentPlan | None, newcomer: DeploymentPlan) -> bool:
    return victim is not None and victim.digest is not None and victim.priority >= newcomer.priority


def _needless(
    commands: Mapping[Key, PlannedCommand], ledger: Mapping[Key, Slot], promised: Mapping[Key, int]
) -> Iterator[str]:
    for key, command in sorted(commands.items()):
        carried_on = key in ledger and ledger[key].state is ModelState.UNLOADING
        if command.unload_reason is UnloadReason.EVICTED and not carried_on and not promised.get(key):
            yield f"{key[0]} on {key[1]} is evicted for nobody"


def _amounts(slot: Slot) -> Counter[str]:
    taken = slot.reserved
    return Counter({"memory": taken.memory, "cpu": taken.cpu, "gpu": taken.gpu, "models": slot.models})


def _beside(slot: Slot) -> Counter[str]:
    """Return what of its own a slot has on its device while it waits: the version before."""
    old = slot.previous_demand
    if old is None:
        return Counter()
    return Counter({"memory": old.memory, "cpu": old.cpu, "gpu": old.gpu, "models": 1})
