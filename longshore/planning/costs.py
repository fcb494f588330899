"""What a plan would cost, and what its devices would hold then: for people who look before they push."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from longshore.planning.occupancy import Occupancy
from longshore.schemas.base import Message
from longshore.schemas.commands import Action
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.devices import DeviceFacts
from longshore.schemas.fleet import PlanningInput, SlotSettled
from longshore.schemas.ledger import Key, reserve, settle
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import Plan, PlannedCommand
from longshore.schemas.registries import RegistrySnapshot
from longshore.schemas.slots import Slot

# A device reports what it has in its cache by so many digits of the checksum.
_CACHED_DIGITS = 12


class Cost(Message):
    """One LOAD or RELOAD. None stands for "not known"."""

    bytes: int | None
    """To be fetched: what the card says, or 0 where the device has it in its cache."""
    seconds: float | None
    """From command to READY, as it took this device last time, else the median of the others'."""
    rollback_seconds: float | None
    """Only for a RELOAD: the way back, when nothing need be fetched."""


class Amounts(Message):
    memory: int
    """Bytes."""
    cpu: float
    gpu: int
    models: int


class CapacityRow(Message):
    worker_id: str
    capacity: Amounts
    before: Amounts
    after: Amounts
    """With every command of the plan carried out; what an earlier plan has under way is as it was."""


@dataclass(frozen=True)
class Preview:
    costs: dict[Key, Cost]
    """By deployment and worker id; an UNLOAD costs nothing."""
    capacity: tuple[CapacityRow, ...]
    """Every configured device, by id."""


def preview(plan: Plan, asked: PlanningInput, desired: RegistrySnapshot) -> Preview:
    """Return what `plan`, made for `asked` and `desired`, costs; `asked.facts` is what the devices have told."""
    costs = {
        (deployment.deployment_id, command.worker_id): _cost(
            command, desired.specs[deployment.deployment_id], asked.facts
        )
        for deployment in plan.deployments
        for command in deployment.commands
        if command.action is not Action.UNLOAD
    }
    before = Occupancy(desired.workers, asked.slots)
    after = Occupancy(desired.workers, _carried_out(asked.slots, plan))
    rows = (
        CapacityRow(
            worker_id=worker_id,
            capacity=Amounts(
                memory=worker.capacity.memory_bytes,
                cpu=worker.capacity.max_cpu,
                gpu=worker.capacity.max_gpu,
                models=worker.capacity.max_models,
            ),
            before=_amounts(before, worker_id),
            after=_amounts(after, worker_id),
        )
        for worker_id, worker in sorted(desired.workers.items())
    )
    return Preview(costs, tuple(rows))


def _cost(command: PlannedCommand, spec: DeploymentSpec, facts: dict[str, DeviceFacts]) -> Cost:
    own, artifacts = facts.get(command.worker_id, DeviceFacts()), spec.card.artifacts
    cached = artifacts.checksum is not None and artifacts.checksum[:_CACHED_DIGITS] in own.cached

    def seen(seconds: Callable[[DeviceFacts], float | None]) -> float | None:
        mine = seconds(own)
        return mine if mine is not None else _median(map(seconds, facts.values()))

    whole = seen(lambda one: one.load_seconds.get(spec.deployment_id))
    unfetched = seen(lambda one: _unfetched(one, spec.deployment_id))
    return Cost(
        bytes=0 if cached else artifacts.size_bytes,
        seconds=unfetched if cached else whole,
        rollback_seconds=unfetched if command.action is Action.RELOAD else None,
    )


def _unfetched(facts: DeviceFacts, deployment_id: str) -> float | None:
    """Return how long the last load took without what it fetched."""
    whole, fetching = facts.load_seconds.get(deployment_id), facts.fetch_seconds.get(deployment_id)
    return None if whole is None or fetching is None else max(0.0, whole - fetching)


def _median(seconds: Iterable[float | None]) -> float | None:
    known = [one for one in seconds if one is not None]
    return median(known) if known else None


def _carried_out(slots: tuple[Slot, ...], plan: Plan) -> tuple[Slot, ...]:
    """Return the slots as they are when every command of `plan` has ended well."""
    ended: list[Slot] = []
    commanded = {(d.deployment_id, command.worker_id) for d in plan.deployments for command in d.commands}
    for slot in reserve(slots, plan):
        if (slot.deployment_id, slot.worker_id) not in commanded:
            ended.append(slot)
            continue
        event = SlotSettled(
            deployment_id=slot.deployment_id,
            worker_id=slot.worker_id,
            generation=slot.generation,
            state=ModelState.IDLE if slot.state is ModelState.UNLOADING else ModelState.READY,
            digest=None if slot.state is ModelState.UNLOADING else slot.digest,
        )
        ended.extend(settle((slot,), event))
    return tuple(ended)


def _amounts(occupancy: Occupancy, worker_id: str) -> Amounts:
    usage = occupancy.usage(worker_id)
    return Amounts(memory=usage.memory, cpu=usage.cpu, gpu=usage.gpu, models=usage.models)
