"""Small fleets and registries for tests of planning, in one line each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from longshore.schemas.cards import ModelCard
from longshore.schemas.deployments import DeploymentManifest, DeploymentSpec
from longshore.schemas.devices import DeviceRecord, DeviceStatus, Health
from longshore.schemas.fleet import PlanningInput, PlanRequest, RequestKind, SlotSettled
from longshore.schemas.ledger import reserve, settle
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import Plan
from longshore.schemas.registries import RegistrySnapshot
from longshore.schemas.slots import Slot
from longshore.schemas.workers import WorkerConfig

SHA = "a" * 40
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def worker(
    worker_id: str,
    *,
    memory: str = "16Gi",
    cpu: float = 8.0,
    gpu: int = 0,
    models: int = 5,
    schemas: Iterable[str] = ("3.0.0", "3.1.0"),
    **labels: str,
) -> WorkerConfig:
    return WorkerConfig.model_validate(
        {
            "worker_id": worker_id,
            "supported_schema_versions": tuple(schemas),
            "capacity": {"max_models": models, "max_memory": memory, "max_cpu": cpu, "max_gpu": gpu},
            "labels": {"pool": "production", "region": "us-east-1", **labels},
        }
    )


@dataclass(frozen=True)
class Wanted:
    """One deployment as a commit wants it."""

    id: str
    version: str = "1.0.0"
    replicas: int = 1
    priority: int = 50
    enabled: bool = True
    memory: str = "4Gi"
    cpu: float = 2.0
    gpu: int = 0
    schema: str = "3.0.0"
    region: str = "us-east-1"
    endpoint: str | None = None
    selector: Mapping[str, str] = field(default_factory=lambda: {"pool": "production"})

    @property
    def manifest(self) -> DeploymentManifest:
        config = {"region": self.region, "replicas": self.replicas, "priority": self.priority}
        return DeploymentManifest.model_validate(
            {
                "id": self.id,
                "model_card_ref": {
                    "repository": "https://git.example/model.git",
                    "path": "model-card.yaml",
                    "ref": f"v{self.version}",
                },
                "enabled": self.enabled,
                "deployment_config": {**config, "worker_selector": dict(self.selector)},
            }
        )

    @property
    def spec(self) -> DeploymentSpec:
        card = ModelCard.model_validate(
            {
                "schemaVersion": self.schema,
                "metadata": {
                    "name": "model",
                    "version": self.version,
                    "description": "a model of a test",
                    "owner": "ml@example.com",
                },
                "runtime": {
                    "framework": "custom",
                    "framework_version": "1",
                    "python_version": "3.11",
                    "dependencies": (),
                },
                "artifacts": {"storage_type": "s3", "model_path": "s3://models/model"},
                "code": {"repository": "https://git.example/model.git", "path": "src", "ref": f"v{self.version}"},
                "preprocessing": {"module": "src.pre", "function": "run"},
                "postprocessing": {"module": "src.post", "function": "run"},
                "interface": {"input_schema": {}, "output_schema": {}},
                "resources": {"cpu": self.cpu, "memory": self.memory, "gpu": self.gpu},
            }
        )
        return DeploymentSpec(
            deployment_id=self.id,
            priority=self.priority,
            endpoint=self.endpoint,
            card=card,
            card_repository="https://git.example/model.git",
            card_ref=f"v{self.version}",
            card_commit="c" * 40,
            code_commit="c" * 40,
            digest="/".join(
                str(part) for part in (self.version, self.memory, self.cpu, self.gpu, self.schema, self.endpoint)
            ),
        )


def registry(workers: Iterable[WorkerConfig], *wanted: Wanted, sha: str = SHA) -> RegistrySnapshot:
    return RegistrySnapshot(
        sha=sha,
        manifests={one.id: one.manifest for one in wanted},
        workers={one.worker_id: one for one in workers},
        specs={one.id: one.spec for one in wanted if one.manifest.wanted_replicas},
    )


def observed(
    slots: Iterable[Slot] = (), devices: Mapping[str, DeviceRecord] | None = None, *, generation: int = 0
) -> PlanningInput:
    slots = tuple(slots)
    return PlanningInput(
        request=PlanRequest(request_id="1", registry="registry", sha=SHA),
        applied_sha=None,
        generation=max([generation, *(slot.generation for slot in slots)]),
        devices=dict(devices or {}),
        slots=slots,
    )


def reconciling(
    slots: Iterable[Slot] = (),
    devices: Mapping[str, DeviceRecord] | None = None,
    *,
    generation: int = 0,
    **more: object,
) -> PlanningInput:
    """Return what a reconciliation asks; `more` are other fields of the question."""
    asked = observed(slots, devices, generation=generation)
    request = asked.request.model_copy(update={"kind": RequestKind.RECONCILE})
    return asked.model_copy(update={"request": request, "now": NOW, **more})


def device(
    worker_id: str, health: Health = Health.HEALTHY, status: DeviceStatus = DeviceStatus.HEALTHY
) -> dict[str, DeviceRecord]:
    return {worker_id: DeviceRecord(worker_id=worker_id, health=health, status=status)}


def answered(slots: Iterable[Slot], plan: Plan, failures: Mapping[str, str] | None = None) -> tuple[Slot, ...]:
    """Reserve the plan and let every device answer; `failures` maps worker ids to failure codes."""
    ledger = reserve(tuple(slots), plan)
    for slot in ledger:
        if slot.generation == plan.generation:
            ledger = settle(ledger, _answer(slot, (failures or {}).get(slot.worker_id)))
    return ledger


def _answer(slot: Slot, code: str | None) -> SlotSettled:
    if code is None:
        state = ModelState.IDLE if slot.state is ModelState.UNLOADING else ModelState.READY
    else:
        state = ModelState.READY if slot.state is ModelState.RELOADING else ModelState.FAILED
    return SlotSettled(
        deployment_id=slot.deployment_id,
        worker_id=slot.worker_id,
        generation=slot.generation,
        state=state,
        code=code,
    )
