"""What must hold, whatever is pushed and whatever goes wrong: at each plan, at each command, and at rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from longshore.planning.check import check
from longshore.schemas.commands import Action, UnloadReason
from longshore.schemas.deployments import selects
from longshore.schemas.devices import DeviceStatus, Health
from longshore.schemas.fleet import PlanningInput
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import Plan
from longshore.schemas.registries import RegistrySnapshot
from longshore.schemas.slots import Demand
from tests.simulation.devices import Device

# Reasons for which what serves may go before anything else serves in its place.
_AT_ONCE = frozenset({UnloadReason.DISABLED, UnloadReason.REMOVED, UnloadReason.EVICTED})


def of_plan(plan: Plan, asked: PlanningInput, desired: RegistrySnapshot, devices: Mapping[str, Device]) -> list[str]:
    """Return what is wrong with a plan: the linter's word, and what it takes away of what really serves."""
    serving = (ModelState.READY, ModelState.RELOADING)
    otherwise = {(slot.deployment_id, slot.worker_id) for slot in asked.slots if slot.state not in serving}
    return [*check(plan, asked, desired), *_take_away(plan, desired, devices, otherwise)]


def _take_away(
    plan: Plan, desired: RegistrySnapshot, devices: Mapping[str, Device], otherwise: set[tuple[str, str]]
) -> Iterator[str]:
    """Yield what would serve less than is wanted: by the devices themselves, not by the ledger (D2, FAULTS 90).

    Where the ledger has been told `otherwise` (loading, failed, being unloaded), better news may be on its way.
    """
    for deployment in plan.deployments:
        manifest = desired.manifests.get(deployment.deployment_id)
        wanted = manifest.wanted_replicas if manifest else 0
        going = {
            c.worker_id
            for c in deployment.commands
            if c.action is Action.UNLOAD and c.unload_reason not in _AT_ONCE
            if devices[c.worker_id].serving(deployment.deployment_id) is not None
            if (deployment.deployment_id, c.worker_id) not in otherwise
        }
        if not going:
            continue
        commanded = {c.worker_id for c in deployment.commands}
        left = [
            worker_id
            for worker_id, device in devices.items()
            if worker_id not in commanded and _serves(device, deployment.deployment_id, deployment.digest)
        ]
        if len(left) < wanted:
            names = f"{', '.join(sorted(going))}, where it serves: {len(left)} others do, {wanted} are wanted"
            yield f"{deployment.deployment_id} is taken from {names}"


def _serves(device: Device, deployment_id: str, digest: str | None) -> bool:
    """Tell whether it serves that digest, so far as anybody can know: a fault a moment ago is not held against it."""
    spec = device.serving(deployment_id)
    return device.excused or (spec is not None and spec.digest == digest and not device.dead)


def at_rest(
    plan: Plan,
    asked: PlanningInput,
    desired: RegistrySnapshot,
    devices: Mapping[str, Device],
    quarantined: Iterable[str],
) -> list[str]:
    """Return where the fleet is not as git wants it, though no fault is left and nobody says why (R1)."""
    return [
        *_still_commanding(plan),
        *_unlike_desired(plan, asked, desired, devices, frozenset(quarantined)),
        *_ledger_unlike_devices(asked, desired, devices),
    ]


def _still_commanding(plan: Plan) -> Iterator[str]:
    for deployment in plan.deployments:
        for command in deployment.commands:
            yield f"at rest, yet {deployment.deployment_id} is to {command.action} on {command.worker_id}"


def _unlike_desired(
    plan: Plan,
    asked: PlanningInput,
    desired: RegistrySnapshot,
    devices: Mapping[str, Device],
    quarantined: frozenset[str],
) -> Iterator[str]:
    stated = {d.deployment_id: d for d in plan.deployments}
    configured = {name: device for name, device in devices.items() if name in desired.workers}
    for name in sorted({*desired.manifests, *(n for device in configured.values() for n in device.journal)}):
        manifest = desired.manifests.get(name)
        wanted = manifest.wanted_replicas if manifest else 0
        digest = desired.specs[name].digest if wanted else None
        held = [w for w, device in configured.items() if device.serving(name) is not None]
        right = [w for w in held if _digest(configured[w], name) == digest]
        said = stated.get(name)
        unplaced, deferred = (said.unplaced, {d.worker_id for d in said.deferred}) if said else (0, set())
        # What has failed is not brought elsewhere.
        failed = any((s.deployment_id, s.digest, s.state) == (name, digest, ModelState.FAILED) for s in asked.slots)
        later = sum(d.action is not Action.UNLOAD for d in said.deferred) if said and failed else 0
        if len(right) + unplaced + later < wanted:
            yield f"{name}: {len(right)} of {wanted} serve, {unplaced} are said to be impossible, {later} to come later"
        if len(right) > wanted:
            yield f"{name}: {len(right)} serve where {wanted} are wanted: {', '.join(sorted(right))}"
        if manifest is not None and wanted:
            wrong = [w for w in right if not selects(manifest, desired.workers[w]) and w not in deferred]
            if wrong:
                yield f"{name}: serves on {', '.join(wrong)}, which its selector does not match"
        if set(held) - set(right) - deferred and not unplaced:
            old = ", ".join(sorted(set(held) - set(right)))
            yield f"{name}: something that nobody wants serves on {old}"
        given_up = any(
            slot.deployment_id == name and slot.digest == digest and slot.code not in (None, "CAPACITY_INSUFFICIENT")
            for slot in asked.slots
        )
        if len(held) < wanted and manifest is not None and name not in quarantined and not given_up:
            yield from _possible(name, asked, desired, configured)


def _possible(
    name: str, asked: PlanningInput, desired: RegistrySnapshot, devices: Mapping[str, Device]
) -> Iterator[str]:
    """Yield a device that could take what is said to be impossible. What has failed keeps its room until given up."""
    manifest, spec = desired.manifests[name], desired.specs[name]
    for worker_id, device in devices.items():
        entry = device.journal.get(name)
        if entry is not None and entry.spec is not None:
            continue
        if not selects(manifest, device.worker) or device.status is DeviceStatus.LEAVING or device.draining:
            continue
        failed = [s for s in asked.slots if s.worker_id == worker_id and s.state is ModelState.FAILED]
        need = sum((slot.reserved for slot in failed), Demand.of(spec.card.resources))
        if device.room(need, 1 + sum(slot.models for slot in failed)):
            yield f"{name}: no place is found, and {worker_id} has room"


def _ledger_unlike_devices(
    asked: PlanningInput, desired: RegistrySnapshot, devices: Mapping[str, Device]
) -> Iterator[str]:
    for slot in asked.slots:
        where = f"{slot.deployment_id} on {slot.worker_id}"
        device = devices[slot.worker_id]
        record = asked.devices.get(slot.worker_id)
        if record is None or record.health is Health.FAILED or slot.worker_id not in desired.workers:
            continue
        serving = device.serving(slot.deployment_id)
        match slot.state:
            case ModelState.READY if serving is None or serving.digest[:8] != slot.digest[:8]:
                yield f"the ledger has {where} READY with {slot.version}, the device {serving and serving.version}"
            case ModelState.FAILED if serving is not None:
                yield f"the ledger has {where} FAILED, the device serves {serving.version}"
            case ModelState.LOADING | ModelState.RELOADING | ModelState.UNLOADING:
                yield f"at rest, yet the ledger has {where} {slot.state}"


def _digest(device: Device, deployment_id: str) -> str | None:
    spec = device.serving(deployment_id)
    return spec.digest if spec else None


def executed(planned: Iterable[tuple[object, ...]], issued: Iterable[tuple[object, ...]]) -> list[str]:
    """Return what was commanded that no plan has printed."""
    return [f"commanded, and not planned: {command}" for command in {*issued} - {*planned}]
