"""The plan of one commit or reconciliation: every deployment compared with its slots, in the order that matters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from longshore.planning.circumstances import Circumstances
from longshore.planning.deployment import plan_ending, plan_running
from longshore.planning.fleet import Fleet
from longshore.planning.suspicion import suspicions
from longshore.schemas.fleet import PlanningInput
from longshore.schemas.ledger import key_of, stamp
from longshore.schemas.plans import DeploymentPlan, Goal, Plan
from longshore.schemas.registries import RegistrySnapshot
from longshore.schemas.slots import Slot


class Considered(NamedTuple):
    plan: Plan
    wondered: tuple[str, ...]
    """Devices without `facts` where some of one priority go, and some stay."""


def make_plan(asked: PlanningInput, desired: RegistrySnapshot, adopted: tuple[Slot, ...] = ()) -> Plan:
    """Return what is to be done so that the fleet becomes as `desired`.

    All deployments of a plan share one new generation; a plan without deployments leaves the counter alone. What is
    to end comes first, then the others by priority (100 before 1) and id: who comes first chooses first. Room that
    this plan frees is given away in it only to a command that waits until the device has confirmed.

    `adopted` are slots that reports tell of and the ledger does not know: they count as if it did.
    """
    return consider(asked, desired, adopted).plan


def consider(asked: PlanningInput, desired: RegistrySnapshot, adopted: tuple[Slot, ...] = ()) -> Considered:
    """Return the plan as `make_plan` does, and whose `facts` might have changed it."""
    suspects = suspicions(
        desired.workers,
        asked.devices,
        asked.failures,
        asked.now,
        share=asked.limits.suspect_share,
        window=asked.limits.suspect_window,
    )
    fleet = Fleet.of(asked.model_copy(update={"slots": (*adopted, *asked.slots)}), desired, suspects)
    circumstances = replace(Circumstances.of(asked), adopted=frozenset(map(key_of, adopted)))
    deployments = tuple(_deployments(asked.generation + 1, fleet, circumstances, desired))
    plan = Plan(
        sha=desired.sha,
        generation=asked.generation + 1 if deployments else asked.generation,
        deployments=deployments,
        workers=tuple(sorted(desired.workers)),
        goals={name: _goal(name, desired) for name in sorted(desired.manifests)},
        stamp=stamp(asked.applied_sha, asked.generation, asked.slots, asked.cordons, asked.holds),
        adopted=adopted,
        cause=asked.request.cause,
        suspects=suspects,
        put_off=tuple(sorted(fleet.put_off)),
    )
    return Considered(plan, tuple(sorted(fleet.wondered)))


def _deployments(
    generation: int, fleet: Fleet, circumstances: Circumstances, desired: RegistrySnapshot
) -> Iterator[DeploymentPlan]:
    """Yield the plans in their order. A reconciliation stops at its limit of commands: the rest is drift still."""
    running = [manifest for manifest in desired.manifests.values() if manifest.wanted_replicas]
    running.sort(key=lambda manifest: (-manifest.deployment_config.priority, manifest.id))
    ending = fleet.occupancy.deployments() - {manifest.id for manifest in running}
    left = circumstances.limits.commands if circumstances.reconciling else None
    for name in sorted(ending):
        if left is None or left > 0:
            plan = plan_ending(name, desired.manifests.get(name), generation, fleet, circumstances)
            if plan is not None:
                left = None if left is None else left - len(plan.commands)
                yield plan
    for manifest in running:
        # Who is evicted has its UNLOAD in this plan, whatever the limit: somebody waits for it.
        evicted = any(name == manifest.id for name, _ in fleet.evicted)
        if left is None or left > 0 or evicted:
            plan = plan_running(manifest, desired.specs[manifest.id], generation, fleet, circumstances)
            if plan is not None:
                left = None if left is None else left - len(plan.commands)
                yield plan


def _goal(deployment_id: str, desired: RegistrySnapshot) -> Goal:
    replicas = desired.manifests[deployment_id].wanted_replicas
    return Goal(version=desired.specs[deployment_id].version if replicas else None, replicas=replicas)
