"""The plan of one commit: every deployment compared with its slots, in the order in which it matters."""

from __future__ import annotations

from longshore.planning.deployment import plan_ending, plan_running
from longshore.planning.fleet import Fleet
from longshore.planning.occupancy import Occupancy
from longshore.schemas.fleet import PlanningInput
from longshore.schemas.plans import Goal, Plan
from longshore.schemas.registries import RegistrySnapshot


def make_plan(observed: PlanningInput, desired: RegistrySnapshot) -> Plan:
    """Return what is to be done so that `observed` becomes `desired`.

    All deployments of a plan share one new generation; a plan without deployments leaves the counter alone. What is
    to end comes first, then the others by priority (100 before 1) and id: who comes first chooses first. What this
    plan unloads is not given away in it: the room is free only when the device has confirmed.
    """
    fleet = Fleet(desired.workers, observed.devices, Occupancy(desired.workers, observed.slots))
    generation = observed.generation + 1
    running = [manifest for manifest in desired.manifests.values() if manifest.wanted_replicas]
    ending = fleet.occupancy.deployments() - {manifest.id for manifest in running}
    running.sort(key=lambda manifest: (-manifest.deployment_config.priority, manifest.id))
    plans = [
        *(plan_ending(name, desired.manifests.get(name), generation, fleet) for name in sorted(ending)),
        *(plan_running(manifest, desired.specs[manifest.id], generation, fleet) for manifest in running),
    ]
    deployments = tuple(plan for plan in plans if plan is not None)
    return Plan(
        sha=desired.sha,
        generation=generation if deployments else observed.generation,
        deployments=deployments,
        workers=tuple(sorted(desired.workers)),
        goals={name: _goal(name, desired) for name in sorted(desired.manifests)},
    )


def _goal(deployment_id: str, desired: RegistrySnapshot) -> Goal:
    replicas = desired.manifests[deployment_id].wanted_replicas
    return Goal(version=desired.specs[deployment_id].version if replicas else None, replicas=replicas)
