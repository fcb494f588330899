"""How much of what serves a commit may take away unasked (FAULTS 20: all manifests deleted by a slip)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from longshore.schemas.commands import Action
from longshore.schemas.fleet import PlanningInput
from longshore.schemas.lifecycle import SERVING
from longshore.schemas.plans import Plan
from longshore.schemas.slots import Slot
from longshore.schemas.wording import counted

MASS_UNLOAD = "MASS_UNLOAD_BLOCKED"
"""The code of what is held back here."""

# The sentence stands in summaries and tables: the deployments that lose most say what kind of slip it was.
_NAMED = 10


def held_back(asked: PlanningInput, plan: Plan) -> str | None:
    """Return why the commit that is asked about waits for an operator although it could be planned, else None.

    The applied commit was let through before: planned once more, it only finishes what it began.
    """
    sha = asked.request.sha
    if sha == asked.applied_sha or any(
        one.accepted is not None and (one.sha, one.code) == (sha, MASS_UNLOAD) for one in asked.held
    ):
        return None
    return mass_unload((*asked.slots, *plan.adopted), plan, asked.mass_unload_limit)


def mass_unload(slots: Iterable[Slot], plan: Plan, limit: int) -> str | None:
    """Return a sentence where `plan` takes more than `limit` percent of the serving replicas away, else None.

    Running are the slots that serve (READY, RELOADING). Lost are those that the plan unloads, and those whose device
    has left git. Exactly the limit is allowed, so 100 allows everything.

    Never held back: a commit that takes replicas of one deployment only, whose manifest is still there. It says
    `enabled: false`, fewer replicas or another selector of that one, and an emergency must work at once (PRD §7.4).
    A manifest or a device's file that was *deleted* is what a slip looks like, so a deployment that loses replicas by
    it counts even when alone; unless, for the device, the manifest wants no replica at all.

    A replica that moves to another device is not lost: its UNLOAD is put off until others are READY. One that is
    evicted is. A device of which nothing is heard counts as serving: a partition stops the reports, not the requests.
    """
    running = [slot for slot in slots if slot.state in SERVING]
    unloads = {
        (deployment.deployment_id, command.worker_id)
        for deployment in plan.deployments
        for command in deployment.commands
        if command.action is Action.UNLOAD
    }
    gone = [slot for slot in running if slot.worker_id not in plan.workers]
    lost = Counter(slot.deployment_id for slot in gone)
    lost.update(slot.deployment_id for slot in running if (slot.deployment_id, slot.worker_id) in unloads)
    if 100 * lost.total() <= limit * len(running) or _is_deliberate(lost, gone, plan):
        return None
    # Rounded up: what is above the limit never reads as the limit itself.
    share = -(-100 * lost.total() // len(running))
    named = [f"{name} ({count})" for name, count in sorted(lost.items(), key=lambda one: (-one[1], one[0]))]
    if len(named) > _NAMED:
        named[_NAMED:] = [f"and {len(named) - _NAMED} more"]
    numbers = f"{lost.total()} of {counted(len(running), 'replica')} ({share} %, the limit is {limit} %)"
    return f"would unload {numbers}: {', '.join(named)}"


def _is_deliberate(lost: Counter[str], gone: list[Slot], plan: Plan) -> bool:
    if len(lost) != 1:
        return False
    goal = plan.goals.get(next(iter(lost)))
    return goal is not None and (not gone or not goal.replicas)
