"""What tests see of a fleet: where its replicas are, and what its devices have been commanded."""

from __future__ import annotations

from typing import Any

from workflow_world import REGISTRY, World, eventually

from longshore.schemas.fleet import FleetView
from longshore.schemas.lifecycle import ModelState
from longshore.workflows import conventions
from longshore.workflows.fleet import FleetWorkflow


def places(view: FleetView, deployment_id: str = "ten") -> dict[str, ModelState]:
    return {slot.worker_id: slot.state for slot in view.slots if slot.deployment_id == deployment_id}


async def where(around: World, *workers: str) -> FleetView:
    """Wait until `ten` is READY on just these devices."""

    async def probe() -> FleetView | None:
        view = await around.fleet()
        return view if places(view) == dict.fromkeys(workers, ModelState.READY) else None

    return await eventually(probe, f"ten is READY on {workers}")


def fleet(around: World) -> Any:
    return around.client.get_workflow_handle_for(FleetWorkflow.run, conventions.fleet_workflow_id(REGISTRY))


def commands(around: World) -> list[tuple[str, str, str]]:
    """Return every command so far: device, deployment, LOAD or the like."""
    return [
        (name, command.deployment_id, type(command).__name__.removesuffix("Command"))
        for name, device in sorted(around.devices.items())
        for command in device.commands
    ]
