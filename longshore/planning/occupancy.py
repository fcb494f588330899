"""What is reserved on each device: a working copy of the ledger that a plan fills as it goes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from longshore.planning.diff import IN_FLIGHT
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import Shortfall
from longshore.schemas.slots import Demand, Slot
from longshore.schemas.workers import WorkerConfig

# Cores are summed as floats: a tenth of a thousandth of a core is noise, and less than any card may ask for (0.1).
_CPU_NOISE = 1e-4


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
        self.cpu += sign * demand.cpu
        self.gpu += sign * demand.gpu
        self.models += sign * models


class Occupancy:
    """The slots by deployment and device, and the usage of each configured device.

    A slot on a device that is not configured reserves nothing: the device has left git. Only what is under way there
    is remembered, for nobody will ever confirm it.
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

    def put(self, slot: Slot) -> None:
        """Reserve `slot`, in place of what this deployment had on that device."""
        usage = self._usage[slot.worker_id]
        before = self._by_deployment[slot.deployment_id].get(slot.worker_id)
        if before is not None:
            usage.take(before.reserved, 1, sign=-1)
        usage.take(slot.reserved, 1)
        self._by_deployment[slot.deployment_id][slot.worker_id] = slot
        self._by_worker[slot.worker_id][slot.deployment_id] = slot

    def need(self, slot: Slot) -> tuple[Demand, int]:
        """Return what `slot` takes on top of what this deployment has on that device, and how many models."""
        before = self._by_deployment[slot.deployment_id].get(slot.worker_id)
        if before is None:
            return slot.reserved, 1
        after, had = slot.reserved, before.reserved
        return Demand(memory=after.memory - had.memory, cpu=after.cpu - had.cpu, gpu=after.gpu - had.gpu), 0

    def being_unloaded(self, worker_id: str) -> Demand:
        """Return what UNLOADs that are under way will free there."""
        freed = Demand()
        for slot in self._by_worker[worker_id].values():
            if slot.state is ModelState.UNLOADING:
                freed += slot.reserved
        return freed
