"""What one deployment takes of one device, and its place there in the ledger."""

from __future__ import annotations

from datetime import datetime

from longshore.schemas.base import Message
from longshore.schemas.cards import Resources
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.quantities import format_memory, parse_memory


class Demand(Message):
    """What one replica reserves: bytes of memory, cores, GPUs."""

    memory: int = 0
    cpu: float = 0.0
    gpu: int = 0

    @classmethod
    def of(cls, resources: Resources) -> Demand:
        return cls(memory=parse_memory(resources.memory), cpu=resources.cpu, gpu=resources.gpu)

    def __add__(self, other: Demand) -> Demand:
        return Demand(memory=self.memory + other.memory, cpu=self.cpu + other.cpu, gpu=self.gpu + other.gpu)

    def at_least(self, other: Demand) -> Demand:
        """Return the larger of both, resource by resource."""
        return Demand(memory=max(self.memory, other.memory), cpu=max(self.cpu, other.cpu), gpu=max(self.gpu, other.gpu))

    def __str__(self) -> str:
        gpu = f", {self.gpu} GPU" if self.gpu else ""
        return f"{format_memory(self.memory)} memory, {self.cpu:g} CPU{gpu}"


class Slot(Message):
    """One deployment's place on one device: reserved from the plan on, freed when its UNLOAD is confirmed."""

    deployment_id: str
    worker_id: str
    generation: int
    version: str
    digest: str
    priority: int
    demand: Demand
    state: ModelState
    """LOADING/RELOADING/UNLOADING from the plan until the device has answered, then READY or FAILED."""
    previous_version: str | None = None
    previous_digest: str | None = None
    """What still runs there while a RELOAD is under way."""
    previous_demand: Demand | None = None
    """Reserved on top of `demand` until the old runner has gone (DESIGN §5 Memory)."""
    serving_demand: Demand | None = None
    """What the version before takes by itself, where `previous_demand` is the largest of several."""
    code: str | None = None
    """The failure code of a FAILED slot, or of a RELOAD that left the old version serving."""
    before: ModelState | None = None
    """While a command is under way: the settled state before it, to which an UNLOAD that never began goes back."""
    failures: int = 0
    """How often this digest has ended FAILED here, the device's own tries counting as one. A commit sets it to 0."""
    failed_at: datetime | None = None
    """When it failed last, by the ledger's clock."""
    replaced: bool = False
    """It has failed, or its device has, and others took over: not counted, and governed by the reports alone."""
    instead_of: tuple[str, ...] = ()
    """Deployments that are evicted from this device for it: while their slots are there, it takes only what is more."""
    recreate: bool = False
    """A RELOAD that takes the old version down first: the two are never there together."""
    reason: str = ""
    """Why it is here, in the words of the plan that put it here."""

    @property
    def spent(self) -> bool:
        """Whether it was given up here and others took over: nothing of it is on the device."""
        return self.state is ModelState.FAILED and self.replaced

    @property
    def models(self) -> int:
        """How many models the device counts for it: none where only the traces of what was given up are to go."""
        nothing = self.spent or (self.state is ModelState.UNLOADING and self.reserved == Demand())
        return 0 if nothing else 1

    @property
    def reserved(self) -> Demand:
        """All that this slot takes of its device, not looking at what it is there instead of."""
        if self.spent:
            return Demand()
        beside = self.previous_demand or Demand()
        return self.demand.at_least(beside) if self.recreate else self.demand + beside
