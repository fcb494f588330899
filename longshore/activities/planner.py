"""How a plan is made at a door: with what only devices know, beside the event loop, and never too much unasked."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Protocol

from longshore.planning.adoption import adopt
from longshore.planning.guard import MASS_UNLOAD, mass_unload
from longshore.planning.plan import consider
from longshore.schemas.commands import Action
from longshore.schemas.devices import DeviceFacts, DeviceReport
from longshore.schemas.fleet import FleetView, PlanningInput, PlanOutcome, PlanRequest
from longshore.schemas.held import HeldBack
from longshore.schemas.ledger import recent_failures
from longshore.schemas.plans import CauseKind, Plan
from longshore.schemas.registries import RegistrySnapshot
from longshore.schemas.slots import Slot


class Desired(Protocol):
    """What git says should run, and in which order it came to say so."""

    async def snapshot(self, sha: str) -> RegistrySnapshot: ...

    async def is_ancestor(self, older: str, newer: str) -> bool:
        """Return whether `newer` descends from `older`; a commit is its own ancestor."""


class Devices(Protocol):
    async def reports(self, workers: tuple[str, ...]) -> dict[str, DeviceReport]:
        """Return what these devices have reported last; one that does not answer is left out."""

    async def facts(self, workers: tuple[str, ...]) -> dict[str, DeviceFacts]:
        """Return what the newest reports of these devices know; one that does not answer is left out."""


def upon(view: FleetView, request: PlanRequest, now: datetime) -> PlanningInput:
    """Return what a plan is made upon by somebody who only looks at the ledger."""
    return PlanningInput(
        request=request,
        applied_sha=view.applied_sha,
        generation=view.generation,
        devices=view.devices,
        slots=view.slots,
        held=view.held_back,
        mass_unload_limit=view.settings.mass_unload_limit,
        cordons=view.cordons,
        holds=view.holds,
        failures=recent_failures(view.failures, now),
        now=now,
        limits=view.settings.limits,
    )


class Planner:
    def __init__(self, desired: Desired, devices: Devices) -> None:
        self._desired = desired
        self._devices = devices

    async def plan(self, asked: PlanningInput) -> Plan:
        desired = await self._desired.snapshot(asked.request.sha)
        adopted = await self._adopted(asked, desired)
        # A large fleet is planned for seconds: heartbeats and the webhook go on meanwhile.
        plan, wondered = await asyncio.to_thread(consider, asked, desired, adopted)
        if not wondered:
            return plan
        informed = asked.model_copy(update={"facts": await self._devices.facts(wondered)})
        return (await asyncio.to_thread(consider, informed, desired, adopted)).plan

    async def accepted_line(self, asked: PlanningInput) -> HeldBack | None:
        """Return the accepted commit that the asked one is, or descends from: its history was accepted with it.

        An unload is accepted for its own commit alone; what descends from that is measured anew.
        """
        for one in asked.held:
            lets_through = one.code == "HISTORY_REWRITTEN" and one.accepted is not None
            if lets_through and await self._desired.is_ancestor(one.sha, asked.request.sha):
                return one
        return None

    async def outcome(self, sha: str, applied: str | None) -> PlanOutcome:
        """Place a commit in the history of what is applied."""
        if applied is None or sha == applied:
            return PlanOutcome.PLANNED
        if await self._desired.is_ancestor(sha, applied):
            return PlanOutcome.OUTDATED
        if await self._desired.is_ancestor(applied, sha):
            return PlanOutcome.PLANNED
        return PlanOutcome.HISTORY_REWRITTEN

    async def reconcile(self, asked: PlanningInput) -> tuple[Plan, str]:
        """Return what is done unasked and, as a sentence about the applied commit, what is left undone.

        A ledger that was made anew does not unload much of what it finds: git may not be what it was (FAULTS 20, 57).
        What it finds too much is left as it is until somebody accepts it, or the next commit is measured.
        """
        plan = await self.plan(asked)
        before = [one for one in asked.held if (one.sha, one.code) == (asked.request.sha, MASS_UNLOAD)]
        rebuilt = asked.request.cause is not None and asked.request.cause.kind is CauseKind.REBUILD
        if not (rebuilt or before) or any(one.accepted for one in before):
            return plan, ""
        too_much = mass_unload((*asked.slots, *plan.adopted), plan, asked.mass_unload_limit)
        if not too_much:
            return plan, ""
        return _without_endings(plan), too_much

    async def _adopted(self, asked: PlanningInput, desired: RegistrySnapshot) -> tuple[Slot, ...]:
        """Return what is running unknown to the ledger: it was lost, or the device was out of git for a while."""
        found = adopt(asked.slots, asked.devices, {}, desired)
        workers = tuple(sorted({slot.worker_id for slot in found}))
        return adopt(asked.slots, asked.devices, await self._devices.reports(workers), desired) if found else ()


def _without_endings(plan: Plan) -> Plan:
    """Return the plan without the UNLOADs of deployments that git does not name."""
    named = [deployment for deployment in plan.deployments if deployment.deployment_id in plan.goals]
    waits = {
        (awaited.deployment_id, awaited.worker_id)
        for deployment in named
        for command in deployment.commands
        for awaited in command.after
    }
    kept = [
        deployment.model_copy(
            update={
                "commands": tuple(
                    command
                    for command in deployment.commands
                    if command.action is not Action.UNLOAD or (deployment.deployment_id, command.worker_id) in waits
                )
            }
        )
        for deployment in plan.deployments
        if deployment.deployment_id not in plan.goals
    ]
    deployments = (*(deployment for deployment in kept if deployment.commands), *named)
    return plan.model_copy(update={"deployments": deployments})
