"""The doors that start rollouts and give them what their commands need."""

from __future__ import annotations

from typing import Protocol

from temporalio import activity

from longshore.activities.boundary import beating, fitting, our_failures_as_temporals
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.rollouts import RolloutTarget, SpecRequest, StartRollouts


class Rollouts(Protocol):
    async def set_targets(self, targets: tuple[RolloutTarget, ...]) -> None:
        """Signal each target to its deployment's rollout, starting those that are not running."""


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
                await self._rollouts.set_targets(request.targets)

    @activity.defn
    async def resolve_spec(self, request: SpecRequest) -> DeploymentSpec:
        async with beating("resolving"):
            with our_failures_as_temporals():
                return fitting(await self._specs.spec(request))
