"""The doors that start rollouts and give them what their commands need."""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog
from temporalio import activity

from longshore.activities.boundary import beating, fitting, our_failures_as_temporals
from longshore.planning.circumstances import word_to
from longshore.planning.freeing import freed
from longshore.planning.outdated import outdated
from longshore.schemas.commands import Action, correlation_id
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.fleet import FleetView
from longshore.schemas.plans import ChangeType, DeploymentPlan
from longshore.schemas.rollouts import Freed, FreedRequest, RolloutTarget, SpecRequest, StartRollouts, Steering

log = structlog.get_logger()

# An UNLOAD drains for seconds, up to a minute: looks at the ledger in between, each a query of some milliseconds.
LOOK_SECONDS = 1.0

_REDEPLOYS = frozenset({ChangeType.UNRESPONSIVE_WORKER, ChangeType.FAILED_MODEL})


class Rollouts(Protocol):
    async def fleet(self) -> FleetView:
        """Return the ledger as it stands."""

    async def set_targets(self, targets: tuple[RolloutTarget, ...]) -> None:
        """Signal each target to its deployment's rollout, starting those that are not running."""

    async def steer(self, deployment_id: str, word: Steering) -> None:
        """Say a word to a deployment's rollout; one that does not run has nothing to be told."""


class Specs(Protocol):
    async def spec(self, request: SpecRequest) -> DeploymentSpec:
        """Return what a device needs to run this deployment as that commit has it. Raises TAG_MOVED."""


class RolloutActivities:
    def __init__(self, rollouts: Rollouts, specs: Specs) -> None:
        self._rollouts = rollouts
        self._specs = specs

    @activity.defn
    async def start_rollouts(self, request: StartRollouts) -> None:
        async with beating("starting rollouts"):
            with our_failures_as_temporals():
                targets = await self._start(request.targets)
        for plan in (target.plan for target in targets if not target.outdated):
            _tell_redeployment(plan)
            _tell_evictions(plan)
            for command in plan.commands:
                log.info(
                    "command_dispatched",
                    command_type=command.action,
                    deployment_id=plan.deployment_id,
                    worker_id=command.worker_id,
                    correlation_id=correlation_id(plan.deployment_id, plan.generation, command.worker_id),
                )

    async def _start(self, targets: tuple[RolloutTarget, ...]) -> tuple[RolloutTarget, ...]:
        """Give each rollout its target, and see that it has heard what operators have said by then.

        The newest rollout of a deployment may have ended: then only the ledger knows that a target comes too late.
        The fleet says an order once, to the rollout that runs: one that came while this target was planned, or on its
        way, has met none, or the target before. So they are looked at until nothing has changed.
        """
        ledger = await self._ledger()
        said = _words(targets, ledger)
        held = {name: word for name, word in said.items() if word.kind != "resume"}
        judged = tuple(
            one.model_copy(
                update={
                    "steering": held.get(one.plan.deployment_id),
                    "outdated": outdated(one.plan, ledger.slots),
                }
            )
            for one in targets
        )
        await self._rollouts.set_targets(judged)
        if activity.info().attempt > 1:  # an attempt before may have said anything
            said = {}
        while (words := _words(targets, await self._rollouts.fleet())) != said:
            for name, word in words.items():
                if word != said.get(name):
                    await self._rollouts.steer(name, word)
            said = words
        return judged

    async def _ledger(self) -> FleetView:
        """Return the ledger; one that is new first finds out what there is."""
        while True:
            view = await self._rollouts.fleet()
            if not view.rebuilding:
                return view
            await asyncio.sleep(LOOK_SECONDS)

    @activity.defn
    async def resolve_spec(self, request: SpecRequest) -> DeploymentSpec:
        async with beating("resolving"):
            with our_failures_as_temporals():
                return fitting(await self._specs.spec(request))

    @activity.defn
    async def await_freed(self, request: FreedRequest) -> Freed:
        """Look at the ledger until the room is there, or until it is certain that it will not be.

        The room serves nobody until then: a broker that is killed here is missed sooner than elsewhere.
        """
        places = sorted({f"{slot.deployment_id} on {slot.worker_id}" for slot in request.slots})
        async with beating(*places, every=LOOK_SECONDS):
            while True:
                answer = freed(request.slots, (await self._rollouts.fleet()).slots)
                if answer is not None:
                    break
                await asyncio.sleep(LOOK_SECONDS)
        if answer.outcome == "kept":
            log.warning("room_not_freed", registry=request.registry, reason=answer.words)
        return answer


def _words(targets: tuple[RolloutTarget, ...], ledger: FleetView) -> dict[str, Steering]:
    return {one.plan.deployment_id: word_to(one.plan, ledger.holds) for one in targets}


def _tell_redeployment(plan: DeploymentPlan) -> None:
    reasons = [change.reason for change in plan.changes if change.type in _REDEPLOYS]
    workers = [command.worker_id for command in plan.commands if command.action is Action.LOAD]
    if reasons and workers:
        log.warning(
            "model_redeployment_triggered",
            deployment_id=plan.deployment_id,
            reason="; ".join(reasons),
            target_workers=workers,
        )


def _tell_evictions(plan: DeploymentPlan) -> None:
    for command in plan.commands:
        if command.after:
            log.warning(
                "eviction_triggered",
                deployment_id=plan.deployment_id,
                worker_id=command.worker_id,
                evicted_models=[gone.deployment_id for gone in command.after],
                reason=command.reason,
            )
