"""May this device take that model? Pure (PRD §6.2 LOAD steps 1 and 2).

Room is reckoned by what the cards reserve; what is really used is `resources`' business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain

from longshore.schemas.cards import Resources
from longshore.schemas.compatibility import matrix
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.devices import DeviceCapacity
from longshore.schemas.failures import LongshoreError
from longshore.schemas.quantities import format_memory, parse_memory
from longshore.schemas.workers import Capacity, WorkerConfig

# Sums of tenths must compare as people add them: 0.1 + 0.2 fits into 0.3.
_CPU_DIGITS = 6

Reservations = Mapping[str, Sequence[Resources]]
"""deployment id → what each of its instances reserves: two while a RELOAD is under way."""


def reserved(capacity: Capacity, reservations: Reservations) -> DeviceCapacity:
    """Return the capacity as the device reports it. A deployment counts as one model, however many instances."""
    instances = list(chain.from_iterable(reservations.values()))
    return DeviceCapacity(
        max_models=capacity.max_models,
        max_memory=capacity.memory_bytes,
        used_memory=sum(parse_memory(instance.memory) for instance in instances),
        max_cpu=capacity.max_cpu,
        used_cpu=round(math.fsum(instance.cpu for instance in instances), _CPU_DIGITS),
        max_gpu=capacity.max_gpu,
        used_gpu=sum(instance.gpu for instance in instances),
        loaded_models=sum(1 for instances in reservations.values() if instances),
    )


def require_room(capacity: Capacity, reservations: Reservations, spec: DeploymentSpec) -> None:
    """Raise CAPACITY_INSUFFICIENT, naming every shortfall, unless one more instance of the deployment fits."""
    others = reservations.get(spec.deployment_id, ())
    after = reserved(capacity, {**reservations, spec.deployment_id: [*others, spec.card.resources]})
    shortfalls = []
    if after.used_memory > after.max_memory:
        shortfalls.append(f"memory: {format_memory(after.used_memory)} of {capacity.max_memory}")
    if after.used_cpu > after.max_cpu:
        shortfalls.append(f"cpu: {after.used_cpu:g} of {after.max_cpu:g}")
    if after.used_gpu > after.max_gpu:
        shortfalls.append(f"gpu: {after.used_gpu} of {after.max_gpu}")
    if after.loaded_models > after.max_models:
        shortfalls.append(f"models: {after.loaded_models} of {after.max_models}")
    if shortfalls:
        message = f"{spec.deployment_id} {spec.version} beside what runs here would need {'; '.join(shortfalls)}"
        raise LongshoreError("CAPACITY_INSUFFICIENT", message)


def require_schema_version(spec: DeploymentSpec, worker: WorkerConfig) -> None:
    """Raise SCHEMA_INCOMPATIBLE unless the worker runs the card's schemaVersion; the planner asks the same matrix."""
    version = spec.card.schemaVersion
    if not matrix().runs(worker.supported_schema_versions, version):
        supported = ", ".join(worker.supported_schema_versions)
        raise LongshoreError("SCHEMA_INCOMPATIBLE", f"the card has schema {version}, this worker supports {supported}")
