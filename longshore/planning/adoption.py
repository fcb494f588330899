"""What runs on devices and the ledger does not know, as slots of the ledger (FAULTS 57, 70)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.devices import DeviceRecord, DeviceReport, ModelReport, Told, slot_text
from longshore.schemas.ledger import UNKNOWN_VERSION, key_of
from longshore.schemas.lifecycle import COMING, ModelState
from longshore.schemas.registries import RegistrySnapshot
from longshore.schemas.slots import Demand, Slot


def adopt(
    slots: Iterable[Slot],
    devices: Mapping[str, DeviceRecord],
    reports: Mapping[str, DeviceReport],
    desired: RegistrySnapshot,
) -> tuple[Slot, ...]:
    """Return what the records tell of and `slots` do not hold, in order; devices that are not in git are left out.

    The records decide what is there. The full reports, where they are at hand, say what it is and takes: the spec's
    demand where it is the wanted version, else what the device holds free for it, else the memory that it uses.
    """
    known = {key_of(slot) for slot in slots}
    return tuple(
        slot
        for worker_id in sorted(desired.workers.keys() & devices.keys())
        for slot in _found(devices[worker_id], reports.get(worker_id), desired)
        if key_of(slot) not in known
    )


def _found(record: DeviceRecord, report: DeviceReport | None, desired: RegistrySnapshot) -> Iterator[Slot]:
    models = {model.deployment_id: model for model in report.models} if report is not None else {}
    for name in sorted(record.slots):
        told = slot_text(record, name)
        if told is not None and told.state is not ModelState.IDLE:
            yield _slot(name, record.worker_id, told, models.get(name), desired)


def _slot(name: str, worker_id: str, told: Told, model: ModelReport | None, desired: RegistrySnapshot) -> Slot:
    spec, manifest = desired.specs.get(name), desired.manifests.get(name)
    if spec is not None and _is_it(spec, told.digest8):
        version, digest = spec.version, spec.digest
    else:
        version = (model and model.version) or UNKNOWN_VERSION
        digest = (model and model.digest) or told.digest8
    slot = Slot(
        deployment_id=name,
        worker_id=worker_id,
        generation=told.generation,
        version=version,
        digest=digest,
        priority=manifest.deployment_config.priority if manifest is not None else 1,
        demand=_demand(spec, told, model),
        state=told.state,
        code=told.code,
        reason="found there: the ledger did not know of it",
    )
    return _coming(slot, model, spec) if told.state in COMING else slot


def _coming(slot: Slot, model: ModelReport | None, spec: DeploymentSpec | None) -> Slot:
    """Return the slot of what is on its way: by its version it may be what is wanted."""
    incoming = model.incoming_version if model is not None else None
    wanted = spec is not None and incoming == spec.version
    update = {"version": incoming or UNKNOWN_VERSION, "digest": spec.digest if wanted and spec is not None else ""}
    if slot.state is ModelState.RELOADING:
        update |= {"previous_version": slot.version, "previous_digest": slot.digest}
    return slot.model_copy(update=update)


def _demand(spec: DeploymentSpec | None, told: Told, model: ModelReport | None) -> Demand:
    wanted = Demand.of(spec.card.resources) if spec is not None else None
    if wanted is not None and spec is not None and _is_it(spec, told.digest8) and told.state is ModelState.READY:
        return wanted
    if model is not None:
        return model.reserved or Demand(memory=model.memory_bytes, cpu=model.cpu, gpu=model.gpu)
    # Nothing is known of it: most likely it takes what other versions of it take.
    return wanted or Demand()


def _is_it(spec: DeploymentSpec, digest8: str) -> bool:
    return bool(digest8) and spec.digest[:8] == digest8
