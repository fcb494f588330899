"""A linter of plans: reckons each plan again, from its commands alone, and names every rule that it breaks."""

from __future__ import annotations

from collections.abc import Iterator

from longshore.planning.draft import failing, serving, unavailable
from longshore.planning.fleet import Fleet
from longshore.planning.steps import capacity, evictions
from longshore.schemas.commands import Action, UnloadReason
from longshore.schemas.devices import Health
from longshore.schemas.fleet import PlanningInput, UpdateGap
from longshore.schemas.ledger import Key, reserve
from longshore.schemas.lifecycle import IN_FLIGHT, SERVING, ModelState
from longshore.schemas.plans import DeploymentPlan, Plan, PlannedCommand
from longshore.schemas.registries import RegistrySnapshot
from longshore.schemas.slots import Slot


def check(plan: Plan, observed: PlanningInput, desired: RegistrySnapshot) -> list[str]:
    """Return a sentence for each broken rule; a sound plan has none."""
    # What was found in reports is in the ledger before anything is commanded.
    before = reserve(observed.slots, plan.model_copy(update={"deployments": ()}))
    fleet = Fleet.of(observed.model_copy(update={"slots": before}), desired)
    commanded = {(d.deployment_id, command.worker_id) for d in plan.deployments for command in d.commands}
    broken = list(_generations(plan, observed))
    for deployment in plan.deployments:
        slots = fleet.occupancy.of(deployment.deployment_id)
        broken.extend(_twice(deployment))
        for command in deployment.commands:
            broken.extend(_fitting_action(deployment, command, slots.get(command.worker_id)))
            broken.extend(_right_device(deployment, command, slots, desired, fleet))
            broken.extend(_promised(deployment, command, slots, fleet, commanded))
        broken.extend(_silent(deployment, fleet))
        broken.extend(_serving(deployment, slots, fleet))
        broken.extend(_replicas(deployment, slots, fleet))
        broken.extend(_recreated(deployment, slots, fleet, observed))
        broken.extend(_held(deployment, slots, observed))
    broken.extend(evictions(plan, before))
    if not broken:
        broken.extend(capacity(before, reserve(observed.slots, plan), desired))
    return broken


def _generations(plan: Plan, observed: PlanningInput) -> Iterator[str]:
    seen = max((observed.generation, *(slot.generation for slot in observed.slots)))
    for deployment in plan.deployments:
        if deployment.generation <= seen:
            yield f"{deployment.deployment_id}: generation {deployment.generation} does not rise above {seen}"
        if deployment.generation != plan.generation:
            yield f"{deployment.deployment_id}: generation {deployment.generation} is not the plan's {plan.generation}"


def _twice(deployment: DeploymentPlan) -> Iterator[str]:
    workers = [command.worker_id for command in deployment.commands]
    for worker_id in sorted({w for w in workers if workers.count(w) > 1}):
        yield f"{deployment.deployment_id}: several commands for {worker_id}"


def _fitting_action(deployment: DeploymentPlan, command: PlannedCommand, slot: Slot | None) -> Iterator[str]:
    where = f"{deployment.deployment_id}: {command.action} on {command.worker_id}"
    if command.action is not Action.UNLOAD and deployment.digest is None:
        yield f"{where}, though nothing should run"
    if command.action is not Action.LOAD and slot is None:
        yield f"{where}, which does not hold it"
    if command.action is Action.LOAD and slot is not None and slot.state in SERVING:
        yield f"{where}, where {slot.version} serves"
    if (command.action is Action.UNLOAD) == (command.unload_reason is None):
        yield f"{where} and its unload reason {command.unload_reason} do not belong together"


def _right_device(
    deployment: DeploymentPlan,
    command: PlannedCommand,
    slots: dict[str, Slot],
    desired: RegistrySnapshot,
    fleet: Fleet,
) -> Iterator[str]:
    name, worker_id = deployment.deployment_id, command.worker_id
    if worker_id not in desired.workers:
        yield f"{name}: {command.action} on {worker_id}, which git does not configure"
    elif command.action is not Action.UNLOAD:
        slot = slots.get(worker_id)
        under_way = slot is not None and slot.state in IN_FLIGHT
        if worker_id not in fleet.matching(desired.manifests[name]) and not under_way:
            yield f"{name}: {command.action} on {worker_id}, which the selector does not match"
        if slot is not None and slot.digest == deployment.digest and slot.state is not ModelState.UNLOADING:
            return  # carried on, or tried again where it is: nothing new lands there
        if not fleet.supports(worker_id, desired.specs[name].card.schemaVersion):
            yield f"{name}: {command.action} on {worker_id}, which does not support its schema version"
        if slot is None and fleet.absence(worker_id):
            yield f"{name}: {command.action} on {worker_id}: {fleet.absence(worker_id)}"


def _promised(
    deployment: DeploymentPlan, command: PlannedCommand, slots: dict[str, Slot], fleet: Fleet, commanded: set[Key]
) -> Iterator[str]:
    """Nothing comes to where it makes room. A newcomer that is commanded anew says itself what it still waits for."""
    name, worker_id = deployment.deployment_id, command.worker_id
    slot = slots.get(worker_id)
    kept = slot is not None and slot.digest == deployment.digest and slot.state is not ModelState.UNLOADING
    newcomer = fleet.occupancy.claims(worker_id).get(name) if worker_id in fleet.workers else None
    if command.action is not Action.UNLOAD and not kept and newcomer and (newcomer, worker_id) not in commanded:
        yield f"{name}: {command.action} on {worker_id}, where it makes room for {newcomer}"


def _silent(deployment: DeploymentPlan, fleet: Fleet) -> Iterator[str]:
    for command in deployment.commands:
        if command.worker_id in fleet.workers and fleet.health(command.worker_id) is Health.FAILED:
            yield f"{deployment.deployment_id}: {command.action} on {command.worker_id}, which has failed"


def _serving(deployment: DeploymentPlan, slots: dict[str, Slot], fleet: Fleet) -> Iterator[str]:
    """What serves goes only while enough others are READY; what is evicted, or should not run at all, at once."""
    unloads = {c.worker_id: c for c in deployment.commands if c.action is Action.UNLOAD}
    ready = {
        w
        for w, slot in slots.items()
        if slot.state is ModelState.READY
        and slot.digest == deployment.digest
        and fleet.health(w) in (Health.HEALTHY, Health.UNKNOWN)
        and not fleet.leaving(w)
    }
    for worker_id, command in unloads.items():
        slot = slots.get(worker_id)
        served = slot is not None and slot.state in SERVING
        left = len(ready - unloads.keys())
        if served and command.unload_reason is UnloadReason.SCALED_DOWN and left < deployment.replicas:
            name = f"{deployment.deployment_id}: UNLOAD on {worker_id}"
            yield f"{name}, which serves, leaves {left} READY where {deployment.replicas} are wanted"


def _replicas(deployment: DeploymentPlan, slots: dict[str, Slot], fleet: Fleet) -> Iterator[str]:
    """Count the replicas as they are meant to be: what has failed with its device, or goes later, is not among them."""
    name = deployment.deployment_id
    gone = {c.worker_id for c in deployment.commands if c.action is Action.UNLOAD}
    gone |= {d.worker_id for d in deployment.deferred if d.action is Action.UNLOAD} | set(deployment.lost)
    loaded = {c.worker_id for c in deployment.commands if c.action is not Action.UNLOAD}
    gone |= {w for w, slot in slots.items() if slot.replaced and _counted_out(slot, fleet)} - loaded
    kept = {w for w, slot in slots.items() if slot.state is not ModelState.UNLOADING and w not in gone}
    after = len(kept | (loaded - {d.worker_id for d in deployment.deferred if d.action is Action.UNLOAD}))
    if after > deployment.replicas:
        yield f"{name}: {after} replicas where {deployment.replicas} are wanted"
    later = {d.worker_id for d in deployment.deferred}
    left = sum(slots[w].digest != deployment.digest or _has_failed(slots[w]) for w in kept - loaded - later)
    if after - left + deployment.unplaced != deployment.replicas:
        placed = f"{after - left} placed and {deployment.unplaced} unplaced"
        yield f"{name}: {placed} are not the {deployment.replicas} wanted"


def _counted_out(slot: Slot, fleet: Fleet) -> bool:
    return slot.state is ModelState.FAILED or fleet.health(slot.worker_id) is Health.FAILED


def _has_failed(slot: Slot) -> bool:
    return slot.state is ModelState.FAILED


def _recreated(
    deployment: DeploymentPlan, slots: dict[str, Slot], fleet: Fleet, observed: PlanningInput
) -> Iterator[str]:
    """Nothing that serves is taken down for its own successor without a word, for what has failed elsewhere, nor more
    at once than allowed.
    """
    recreated = [command for command in deployment.commands if command.recreate]
    serves = serving(slots.values(), fleet)
    broken = ", ".join(failing(slots.values(), deployment.digest, fleet))
    for command in recreated:
        where = f"{deployment.deployment_id}: {command.action} on {command.worker_id}"
        if command.action is not Action.RELOAD or command.gap is None:
            yield f"{where} recreates and does not say what its callers will notice"
        if observed.limits.update_gap is UpdateGap.REFUSE:
            yield f"{where} recreates, and gaps are refused"
        if broken and command.worker_id in slots and slots[command.worker_id].state is ModelState.READY:
            yield f"{where} recreates, though {deployment.version} has failed on {broken}"
    limit = unavailable(observed.limits.max_unavailable, serves)
    if recreated and deployment.max_unavailable > limit:
        yield f"{deployment.deployment_id}: recreates {deployment.max_unavailable} at once, the limit is {limit}"
    others = deployment.replicas - deployment.unplaced > 1
    if others and len(serves) == 1 and serves <= {command.worker_id for command in recreated}:
        yield f"{deployment.deployment_id}: recreates the last replica that serves"


def _held(deployment: DeploymentPlan, slots: dict[str, Slot], observed: PlanningInput) -> Iterator[str]:
    """What is under way is carried on all the same: its rollout holds it back."""
    name = deployment.deployment_id
    begun = {w for w, s in slots.items() if s.state in IN_FLIGHT}
    for hold in observed.holds:
        if hold.deployment_id != name or deployment.digest is None:
            continue
        for command in deployment.commands:
            fills = command.action is not Action.UNLOAD
            applies = command.worker_id not in begun and hold.digest in (None, deployment.digest)
            if applies and (hold.kind == "paused" or fills):
                yield f"{name}: {command.action} on {command.worker_id}, though it is {hold.kind}"
