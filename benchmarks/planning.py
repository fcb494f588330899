"""How long planning takes, and how large its plans are: `python3 dev.py bench planning`.

Deployments by replicas on a fleet of workers, four regions, three model sizes: the first plan (everything is new),
an update of every deployment, a commit that changes one, a device that fails, and a newcomer that takes whole devices.
How the cost grows is told by the microseconds for each replica of the fleet.
"""

from __future__ import annotations

import time

from longshore.planning.check import check
from longshore.planning.plan import make_plan
from longshore.schemas.cards import Artifacts, Code, Interface, Metadata, ModelCard, Processing, Resources, Runtime
from longshore.schemas.deployments import DeploymentConfig, DeploymentManifest, DeploymentSpec, ModelCardRef
from longshore.schemas.devices import DeviceRecord, Health
from longshore.schemas.fleet import PlanningInput, PlanRequest, SlotSettled
from longshore.schemas.ledger import reserve, settle
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import Plan
from longshore.schemas.registries import RegistrySnapshot
from longshore.schemas.slots import Slot
from longshore.schemas.workers import Capacity, Labels, WorkerConfig

REGIONS = ("us-east-1", "us-west-2", "eu-west-1", "ap-south-1")
SIZES = (("256Mi", 0.2), ("1Gi", 0.5), ("2Gi", 1.0))
REPOSITORY = "https://git.example/model.git"
# Deployments, replicas, workers: PRD §12.1's scale, then its growth.
SCALES = ((100, 3, 50), (300, 3, 300), (1000, 10, 5000))


def workers(count: int) -> dict[str, WorkerConfig]:
    return {
        f"worker-{n:04}": WorkerConfig(
            worker_id=f"worker-{n:04}",
            supported_schema_versions=("3.0.0",),
            capacity=Capacity(max_models=40, max_memory="64Gi", max_cpu=32.0),
            labels=Labels(pool="production", region=REGIONS[n % len(REGIONS)]),
        )
        for n in range(count)
    }


def snapshot(fleet: dict[str, WorkerConfig], deployments: int, replicas: int, versions: list[str]) -> RegistrySnapshot:
    manifests, specs = {}, {}
    for n in range(deployments):
        name, version = f"model-{n:04}", versions[n % len(versions)]
        memory, cpu = SIZES[n % len(SIZES)]
        manifests[name] = DeploymentManifest(
            id=name,
            model_card_ref=ModelCardRef(repository=REPOSITORY, path="model-card.yaml", ref=f"v{version}"),
            enabled=True,
            deployment_config=DeploymentConfig(
                region=REGIONS[n % len(REGIONS)],
                replicas=replicas,
                priority=1 + n % 100,
                worker_selector={"pool": "production"},
            ),
        )
        specs[name] = DeploymentSpec(
            deployment_id=name,
            priority=1 + n % 100,
            endpoint=None,
            card=card(version, Resources(cpu=cpu, memory=memory)),
            card_repository=REPOSITORY,
            card_ref=f"v{version}",
            card_commit="c" * 40,
            code_commit="c" * 40,
            digest=f"{version:0>64}",
        )
    return RegistrySnapshot(sha="a" * 40, manifests=manifests, workers=fleet, specs=specs)


def card(version: str, resources: Resources) -> ModelCard:
    step = Processing(module="src.steps", function="run")
    return ModelCard(
        schemaVersion="3.0.0",
        metadata=Metadata(name="model", version=version, description="a model to plan for", owner="ml@example.com"),
        runtime=Runtime(framework="custom", framework_version="1", python_version="3.11", dependencies=()),
        artifacts=Artifacts(storage_type="s3", model_path="s3://models/model"),
        code=Code(repository=REPOSITORY, path="src", ref=f"v{version}"),
        preprocessing=step,
        postprocessing=step,
        interface=Interface(input_schema={}, output_schema={}),
        resources=resources,
    )


def all_ready(slots: tuple[Slot, ...]) -> tuple[Slot, ...]:
    """Return `slots` as they are when every device has answered."""
    return tuple(
        settle(
            (slot,),
            SlotSettled(
                deployment_id=slot.deployment_id,
                worker_id=slot.worker_id,
                generation=slot.generation,
                state=ModelState.READY,
            ),
        )[0]
        for slot in slots
    )


def with_newcomer(desired: RegistrySnapshot, replicas: int) -> RegistrySnapshot:
    """Add a deployment of the highest priority that needs all the memory of a worker: whatever runs there must go."""
    name, manifest = next(iter(desired.manifests.items()))
    config = manifest.deployment_config.model_copy(update={"priority": 100, "replicas": replicas})
    spec = desired.specs[name].model_copy(
        update={"deployment_id": "newcomer", "priority": 100, "card": card("1.0.0", Resources(cpu=1, memory="64Gi"))}
    )
    newcomer = manifest.model_copy(update={"id": "newcomer", "deployment_config": config})
    return desired.model_copy(
        update={
            "manifests": {**desired.manifests, "newcomer": newcomer},
            "specs": {**desired.specs, "newcomer": spec},
        }
    )


def timed(what: str, slots: tuple[Slot, ...], desired: RegistrySnapshot, *devices: DeviceRecord) -> Plan:
    observed = PlanningInput(
        request=PlanRequest(request_id="1", registry="benchmark", sha=desired.sha),
        applied_sha=None,
        generation=max((slot.generation for slot in slots), default=0),
        devices={device.worker_id: device for device in devices},
        slots=slots,
    )
    start = time.perf_counter()
    plan = make_plan(observed, desired)
    seconds = time.perf_counter() - start
    broken = check(plan, observed, desired)
    commands = sum(len(deployment.commands) for deployment in plan.deployments)
    size = len(plan.model_dump_json()) / 1024
    replicas = sum(manifest.wanted_replicas for manifest in desired.manifests.values())
    print(
        f"  {what:<18} {seconds * 1000:9.1f} ms  {seconds * 1e6 / replicas:6.1f} µs/replica  {commands:6} commands"
        f"  {size:8.0f} KiB  {len(broken)} broken rules"
    )
    return plan


def main() -> None:
    for deployments, replicas, count in SCALES:
        print(f"{deployments} deployments with {replicas} replicas on {count} workers")
        fleet = workers(count)
        first = snapshot(fleet, deployments, replicas, ["1.0.0"])
        slots = all_ready(reserve((), timed("all new", (), first)))
        timed("all updated", slots, snapshot(fleet, deployments, replicas, ["1.1.0"]))
        one = ["1.1.0", *["1.0.0"] * (deployments - 1)]
        timed("one updated", slots, snapshot(fleet, deployments, replicas, one))
        failed = next(iter(fleet))
        timed("a device fails", slots, first, DeviceRecord(worker_id=failed, health=Health.FAILED))
        timed("a newcomer evicts", slots, with_newcomer(first, replicas))


if __name__ == "__main__":
    main()
