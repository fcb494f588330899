"""What is reserved on each device: a working copy of the ledger that a plan fills as it goes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from longshore.schemas.lifecycle import IN_FLIGHT, ModelState
from longshore.schemas.plans import Shortfall
from longshore.schemas.quantities import format_memory
from longshore.schemas.slots import Demand, Slot
from longshore.schemas.workers import WorkerConfig

# Cores are summed as floats: a tenth of a thousandth of a core is noise, and less than any card may ask for (0.1).
_CPU_NOISE = 1e-4

# Sums are rounded to so many digits: otherwise their noise, and with it a plan, would depend on the order of the slots.
_CPU_DIGITS = 9


@dataclass(slots=True)
class Usage:
    """One device: what its configuration offers, and how much of that the slots reserve (bytes, cores, GPUs)."""

    max_memory: int
    max_cpu: float
    max_gpu: int
    max_models: int
    memory: int = 0
    cpu: float = 0.0
    gpu: int = 0
    models: int = 0
    _room: tuple[float, float, int] | None = None

    @property
    def room(self) -> tuple[float, float, int]:
        """Return what ranks the device: the smaller, the freer, first by memory, then by CPU, then by models."""
        if self._room is None:  # every deployment asks every device, and few devices have changed in between
            self._room = (-self.free_memory, -self.free_cpu, self.models)
        return self._room

    @property
    def free_memory(self) -> float:
        """Return the free share of the memory; negative where a device was shrunk below what it holds."""
        return 1 - self.memory / self.max_memory if self.max_memory else 0.0

    @property
    def free_cpu(self) -> float:
        return 1 - self.cpu / self.max_cpu

    @property
    def utilisation(self) -> float:
        """Return the mean of the used shares of memory and CPU."""
        return 1 - (self.free_memory + self.free_cpu) / 2

    def fits(self, need: Demand, models: int) -> bool:
        """Tell whether `need` and `models` can be had on top. What is not asked for is not looked at."""
        return not (
            (need.memory > 0 and self.memory + need.memory > self.max_memory)
            or (need.cpu > 0 and self.cpu + need.cpu > self.max_cpu + _CPU_NOISE)
            or (need.gpu > 0 and self.gpu + need.gpu > self.max_gpu)
            or (models > 0 and self.models + models > self.max_models)
        )

    def shortfalls(self, need: Demand, models: int) -> tuple[Shortfall, ...]:
        """Return every resource that does not suffice, not only the first."""
        rows = (
            ("memory", need.memory, self.memory, self.max_memory, 0.0),
            ("cpu", need.cpu, self.cpu, self.max_cpu, _CPU_NOISE),
            ("gpu", need.gpu, self.gpu, self.max_gpu, 0.0),
            ("models", models, self.models, self.max_models, 0.0),
        )
        return tuple(
            Shortfall(resource=name, requested=wanted, used=used, capacity=capacity)
            for name, wanted, used, capacity, noise in rows
            if wanted > 0 and used + wanted > capacity + noise
        )

    def take(self, demand: Demand, models: int, sign: int = 1) -> None:
        self.memory += sign * demand.memory
        self.cpu = round(self.cpu + sign * demand.cpu, _CPU_DIGITS)
        self.gpu += sign * demand.gpu
        self.models += sign * models
        self._room = None

    def reset(self, demand: Demand, models: int) -> None:
        """Replace what is reserved."""
        self.memory, self.cpu, self.gpu, self.models = demand.memory, round(demand.cpu, _CPU_DIGITS), demand.gpu, models
        self._room = None


class Occupancy:
    """The slots by deployment and device, and the usage of each configured device.

    A slot on a device that is not configured reserves nothing: the device has left git. Only what is under way there
    is remembered, for nobody will ever confirm it.

    A slot that is there instead of others begins when they have gone. So until then it takes only what is more than
    theirs: at no step is there more on the device than that.
    """

    def __init__(self, workers: Mapping[str, WorkerConfig], slots: Iterable[Slot]) -> None:
        self._usage = {
            worker_id: Usage(
                max_memory=worker.capacity.memory_bytes,
                max_cpu=worker.capacity.max_cpu,
                max_gpu=worker.capacity.max_gpu,
                max_models=worker.capacity.max_models,
            )
            for worker_id, worker in workers.items()
        }
        self._by_deployment: defaultdict[str, dict[str, Slot]] = defaultdict(dict)
        self._by_worker: defaultdict[str, dict[str, Slot]] = defaultdict(dict)
        self._unreachable: defaultdict[str, list[Slot]] = defaultdict(list)
        self._shared: set[str] = set()  # the few devices where the sum of the slots may not be what they take
        for slot in slots:
            if slot.worker_id in self._usage:
                self.put(slot)
            elif slot.state in IN_FLIGHT:
                self._unreachable[slot.deployment_id].append(slot)

    def deployments(self) -> frozenset[str]:
        """Return the ids of the deployments that have slots, unreachable ones among them."""
        by_deployment = (*self._by_deployment.items(), *self._unreachable.items())
        return frozenset(name for name, slots in by_deployment if slots)

    def unreachable(self, deployment_id: str) -> tuple[Slot, ...]:
        """Return the slots of one deployment that wait for a device which has left git."""
        return tuple(sorted(self._unreachable[deployment_id], key=lambda slot: slot.worker_id))

    def usage(self, worker_id: str) -> Usage:
        return self._usage[worker_id]

    def of(self, deployment_id: str) -> dict[str, Slot]:
        """Return the slots of one deployment, by worker id."""
        return dict(sorted(self._by_deployment[deployment_id].items()))

    def on(self, worker_id: str) -> Mapping[str, Slot]:
        """Return the slots of one device, by deployment id."""
        return self._by_worker[worker_id]

    def claims(self, worker_id: str) -> dict[str, str]:
        """Return whose place on a device is promised, and to which deployment: until that has begun, none returns."""
        if worker_id not in self._shared:
            return {}
        return {gone: slot.deployment_id for slot in self._by_worker[worker_id].values() for gone in _instead_of(slot)}

    def away(self, deployment_id: str) -> frozenset[str]:
        """Return the devices where a deployment makes room for another."""
        if not self._shared:
            return frozenset()
        return frozenset(worker_id for worker_id in self._shared if deployment_id in self.claims(worker_id))

    def put(self, slot: Slot) -> None:
        """Reserve `slot`, in place of what this deployment had on that device."""
        usage = self._usage[slot.worker_id]
        before = self._by_deployment[slot.deployment_id].get(slot.worker_id)
        self._by_deployment[slot.deployment_id][slot.worker_id] = slot
        self._by_worker[slot.worker_id][slot.deployment_id] = slot
        if slot.instead_of or slot.worker_id in self._shared:
            self._shared.add(slot.worker_id)
            usage.reset(*_sum(self._by_worker[slot.worker_id]))
            return
        if before is not None:
            usage.take(_reserved(before), before.models, sign=-1)
        usage.take(_reserved(slot), slot.models)

    def vacate(self, slot: Slot) -> None:
        """Give back what `slot` reserves, until it is put again: it runs nothing, and is to ask for its room anew."""
        del self._by_deployment[slot.deployment_id][slot.worker_id]
        there = self._by_worker[slot.worker_id]
        del there[slot.deployment_id]
        self._usage[slot.worker_id].reset(*_sum(there))

    def need(self, slot: Slot) -> tuple[Demand, int]:
        """Return what `slot` takes on top of what this deployment has on that device, and how many models."""
        if slot.instead_of or slot.worker_id in self._shared:
            there = self._by_worker[slot.worker_id]
            after, models = _sum({**there, slot.deployment_id: slot})
            had, models_had = _sum(there)
            return _difference(after, had), models - models_had
        before = self._by_deployment[slot.deployment_id].get(slot.worker_id)
        if before is None:
            return slot.reserved, slot.models
        return _difference(slot.reserved, before.reserved), slot.models - before.models

    def being_unloaded(self, worker_id: str) -> Demand:
        """Return what UNLOADs that are under way will free there."""
        freed = Demand()
        for slot in self._by_worker[worker_id].values():
            if slot.state is ModelState.UNLOADING:
                freed += slot.reserved
        return freed


def amount(resource: str, number: float) -> str:
    """Return an amount of a resource as people write it."""
    return format_memory(int(number)) if resource == "memory" else f"{number:g}"


def _reserved(slot: Slot) -> Demand:
    """Return `slot.reserved`, without making a sum of one: most slots have nothing beside them."""
    return slot.demand if slot.previous_demand is None and not slot.replaced else slot.reserved


def _instead_of(slot: Slot) -> tuple[str, ...]:
    """Return whom `slot` still may wait for: what is READY has begun."""
    return () if slot.state is ModelState.READY else slot.instead_of


def _sum(slots: Mapping[str, Slot]) -> tuple[Demand, int]:
    """Return what the slots of one device take, by deployment id, and how many models they are."""
    demand, models = Demand(), 0
    for slot in slots.values():
        taken, more = _taken(slot, slots)
        demand, models = demand + taken, models + more
    return demand, models


def _taken(slot: Slot, slots: Mapping[str, Slot]) -> tuple[Demand, int]:
    going = [slots[gone] for gone in _instead_of(slot) if gone in slots]
    if not going:
        return slot.reserved, slot.models
    own, beside = slot.reserved, slot.previous_demand or Demand()
    freed = sum((one.reserved for one in going), start=Demand())
    # What of its own stands beside the others counts in full; all else takes their place.
    models = max(1 - sum(one.models for one in going), int(slot.previous_demand is not None))
    return _difference(own, freed).at_least(beside), models


def _difference(one: Demand, other: Demand) -> Demand:
    cpu = round(one.cpu - other.cpu, _CPU_DIGITS)
    return Demand(memory=one.memory - other.memory, cpu=cpu, gpu=one.gpu - other.gpu)
