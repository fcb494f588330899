"""Whether a target that is handed over, perhaps late or again, is still what the ledger wants."""

from __future__ import annotations

from collections.abc import Iterable

from longshore.schemas.commands import Action
from longshore.schemas.plans import DeploymentPlan
from longshore.schemas.slots import Slot


def outdated(plan: DeploymentPlan, slots: Iterable[Slot]) -> bool:
    """Tell whether the ledger has other plans for a deployment by now, or stands behind something of this one no more.

    Its commands might reach a device that a newer generation never came to: nothing there would refuse them.
    """
    mine = {slot.worker_id: slot for slot in slots if slot.deployment_id == plan.deployment_id}
    if any(slot.generation > plan.generation for slot in mine.values()):
        return True
    for command in plan.commands:
        slot = mine.get(command.worker_id)
        if slot is None:
            if command.action is not Action.UNLOAD:
                return True
        elif slot.generation < plan.generation or slot.replaced:
            return True
    return False
