"""One rollout between two devices, two commits and a fleet that only listen; it can be interrupted at every step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from fleets import Wanted
from temporalio import activity
from temporalio.client import WorkflowHandle
from workflow_world import REGISTRY, World, eventually

from longshore.activities.rollouts import RolloutActivities
from longshore.schemas.commands import Action, CommandIntervals, UnloadReason
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.failures import LongshoreError
from longshore.schemas.fleet import FleetView
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import Awaited, DeploymentPlan, PlannedCommand
from longshore.schemas.rollouts import RolloutAnswer, RolloutOutcome, RolloutTarget, SpecRequest, Steering
from longshore.schemas.slots import Demand, Slot
from longshore.workflows import conventions

Step = Callable[[str], Awaitable[None]]


ROOM = Awaited(deployment_id="churn", worker_id="worker-b", generation=1)


def target(
    generation: int,
    version: str = "1.0.0",
    workers: str = "ab",
    action: Action = Action.LOAD,
    *,
    commit: int | None = None,
    **command: Any,
) -> RolloutTarget:
    """A target of deployment `ten`, by default of a commit of its own, whose answer goes to `commit-<generation>`."""
    commands = tuple(
        PlannedCommand(
            action=action,
            worker_id=f"worker-{letter}",
            reason="it fits",
            previous_version="0.9.0" if action is Action.RELOAD else None,
            previous_digest="before" if action is Action.RELOAD else None,
            unload_reason=UnloadReason.DISABLED if action is Action.UNLOAD else None,
            **command,
        )
        for letter in workers
    )
    return RolloutTarget(
        registry=REGISTRY,
        sha=f"{commit or generation:040x}",
        plan=DeploymentPlan(
            deployment_id="ten",
            generation=generation,
            version=None if action is Action.UNLOAD else version,
            digest=None if action is Action.UNLOAD else f"digest-{version}",
            replicas=len(workers),
            changes=(),
            commands=commands,
        ),
        reply_to=f"commit-{generation}",
        intervals=CommandIntervals(schedule_to_start=timedelta(milliseconds=300)),
    )


def making_room(generation: int = 1, **more: Any) -> RolloutTarget:
    """A target whose second device must be rid of `churn` first."""
    wanted = target(generation, **more)
    first, second = wanted.plan.commands
    commands = (first, second.model_copy(update={"after": (ROOM,)}))
    return wanted.model_copy(update={"plan": wanted.plan.model_copy(update={"commands": commands})})


class Stage:
    """Two devices, mailboxes for two commits and the fleet; `at` is called at every step of a rollout."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.at: Step | None = None
        self.spec_error: LongshoreError | None = None
        self.mail: dict[str, WorkflowHandle[Any, Any]] = {}
        self.ledger: tuple[Slot, ...] = ()
        """What a wait for room sees."""

    async def open(self) -> None:
        @activity.defn
        async def resolve_spec(request: SpecRequest) -> DeploymentSpec:
            await self.reached(f"resolve {request.sha[-1]}")
            version = request.digest.removeprefix("digest-")
            return Wanted("ten", version=version).spec.model_copy(update={"digest": request.digest})

        door = RolloutActivities(self, self.world.registry)
        await self.world.start_broker(resolve_spec=resolve_spec, await_freed=door.await_freed)
        await self.world.open_mailboxes()
        for name in ("commit-1", "commit-2", conventions.fleet_workflow_id(REGISTRY)):
            self.mail[name] = await self.world.mailbox(name)
        for letter in "ab":
            device = await self.world.device(f"worker-{letter}")
            device.before = self._command

    async def reached(self, step: str) -> None:
        if self.at is not None:
            await self.at(step)

    async def _command(self, command: Any) -> None:
        await self.reached(f"{command.worker_id} {command.generation}")

    async def set(self, *targets: RolloutTarget) -> None:
        await self.set_targets(targets)

    async def set_targets(self, targets: tuple[RolloutTarget, ...]) -> None:
        await self.world.entities.set_targets(targets)

    async def steer(self, kind: str, **more: Any) -> None:
        word = Steering.model_validate({"kind": kind, "by": "olga", "reason": "disk swap", **more})
        await self.handle.signal("steer", word)

    async def fleet(self) -> FleetView:
        await self.reached("look")
        return FleetView(registry=REGISTRY, applied_sha=None, generation=1, devices={}, slots=self.ledger, plan=None)

    def evicting(self, state: ModelState = ModelState.UNLOADING, code: str | None = None) -> None:
        """Let the ledger hold what must make room for `ROOM`."""
        slot = ROOM.model_dump() | {"version": "1.0.0", "digest": "d", "priority": 1, "demand": Demand()}
        self.ledger = (Slot.model_validate({**slot, "state": state, "code": code}),)

    async def commanded(self, worker_id: str) -> None:
        async def probe() -> bool:
            return bool(self.world.devices[worker_id].commands)

        await eventually(probe, f"{worker_id} has its command")

    async def idle(self) -> None:
        """Wait until the rollout waits for nobody but an operator."""

        async def probe() -> bool:
            now = (await self.handle.describe()).raw_description
            return not now.pending_activities and not now.HasField("pending_workflow_task")

        await eventually(probe, "the rollout waits for nobody")

    def commands(self) -> dict[str, int]:
        return {worker_id: len(device.commands) for worker_id, device in self.world.devices.items()}

    async def ended(self) -> None:
        async def probe() -> bool:
            description = await self.handle.describe()
            return description.status is not None and description.status.name == "COMPLETED"

        await eventually(probe, "the rollout ends")

    @property
    def handle(self) -> WorkflowHandle[Any, Any]:
        return self.world.client.get_workflow_handle(conventions.rollout_workflow_id("ten"))

    async def received(self, generation: int) -> list[RolloutAnswer]:
        answers: list[RolloutAnswer] = await self.mail[f"commit-{generation}"].query(
            "answers", result_type=list[RolloutAnswer]
        )
        return answers

    async def answers(self, generation: int) -> list[RolloutOutcome]:
        return [answer.outcome for answer in await self.received(generation)]

    async def failures(self, generation: int) -> dict[str, str]:
        """The failure codes of the one answer, by device."""
        (answer,) = await self.received(generation)
        return {result.worker_id: result.failure.code for result in answer.results if result.failure is not None}

    async def told_fleet(self) -> list[tuple[str, str, int, str | None]]:
        events = await self.mail[conventions.fleet_workflow_id(REGISTRY)].query("told")
        return [(e["worker_id"], e["state"], e["generation"], e["code"]) for e in events]
