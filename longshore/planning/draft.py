"""The plan of one deployment while it is made: what it commands, what it puts off, and what it gives up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from longshore.planning.circumstances import Circumstances
from longshore.planning.diff import Place, no_longer_awaited
from longshore.planning.fleet import Fleet
from longshore.schemas.commands import Action, UnloadReason
from longshore.schemas.devices import Health
from longshore.schemas.ledger import NO_ROOM, key_of, reserved
from longshore.schemas.lifecycle import IN_FLIGHT, SERVING, ModelState
from longshore.schemas.plans import Awaited, Change, Deferred, DeploymentPlan, PlannedCommand, Rejection
from longshore.schemas.slots import Slot

# An operator compares a handful of devices; 20 rejections are 4 KB, and a plan must stay far under 2 MB (DESIGN §3).
REJECTIONS_KEPT = 20

# What is READY on a device that is suspect, has only just been heard again, or is leaving, may not answer.
_TRUSTED = frozenset({Health.HEALTHY, Health.UNKNOWN})


@dataclass
class Draft:
    """`target` is the plan without changes and commands; `matching` are the devices of the selector."""

    target: DeploymentPlan
    fleet: Fleet
    circumstances: Circumstances
    matching: frozenset[str] = frozenset()
    serving: frozenset[str] = frozenset()
    """Where some version answered before this plan."""
    failing: tuple[str, ...] = ()
    """Where the wanted version has failed: while it has, nothing that serves is taken down for it elsewhere."""
    commands: list[PlannedCommand] = field(default_factory=list)
    deferred: list[Deferred] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    unplaced: int = 0
    given_up: int = 0
    truncated: int = 0

    def place(self, slot: Slot) -> Place:
        """Judge the place of a slot. In a pool that is suspect nothing counts as lost."""
        worker_id = slot.worker_id
        if self.has_failed(worker_id):
            if slot.replaced:
                return Place.AWAY
            return Place.STAYS if self.fleet.suspicion(worker_id) else Place.LOST
        if key_of(slot) in self.fleet.evicted:
            return Place.EVICTED
        if self._is_spent(slot):
            return Place.SPENT
        stays = self.why_it_moves(slot) is None
        return Place.STAYS if stays else Place.MOVES

    def why_it_moves(self, slot: Slot) -> str | None:
        """Return why the device may not keep what it holds."""
        if slot.worker_id not in self.matching:
            return "the selector no longer matches it"
        if slot.state is ModelState.FAILED and self.fleet.leaving(slot.worker_id):
            return "it failed there, and the device is leaving"
        return self.fleet.draining(slot.worker_id)

    def has_failed(self, worker_id: str) -> bool:
        """Tell whether the device has failed: nothing is commanded to it."""
        return self.fleet.health(worker_id) is Health.FAILED

    def is_last(self, worker_id: str) -> bool:
        """Tell whether a deployment of several replicas has nothing else that serves."""
        return self.target.replicas > 1 and self.serving == {worker_id}

    def is_all(self, worker_id: str) -> bool:
        """Tell whether nothing else of the deployment is there, under way or to come, so that nothing is waited for."""
        others = (s for s in self.fleet.occupancy.of(self.target.deployment_id).values() if s.worker_id != worker_id)
        hopes = (s for s in others if s.worker_id not in self.lost and self.place(s) is not Place.AWAY)
        later = any(one.action is not Action.UNLOAD for one in self.deferred)
        return not later and all(slot.state is ModelState.FAILED for slot in hopes)

    def command(self, slot: Slot, command: PlannedCommand) -> None:
        """Decide `command` for a slot that exists, and reserve what it takes."""
        self.fleet.occupancy.put(reserved(slot, self.target, command))
        self.commands.append(command)

    def unload(self, slot: Slot, why: UnloadReason, reason: str) -> None:
        command = PlannedCommand(action=Action.UNLOAD, worker_id=slot.worker_id, reason=reason, unload_reason=why)
        self.command(slot, command)

    def leave(self, slot: Slot, reason: str) -> None:
        """Unload a slot that is one too many or moves; what serves only once enough others are READY (FAULTS 90)."""
        wanted = self.target.replicas
        others = (s for s in self.fleet.occupancy.of(slot.deployment_id).values() if s.worker_id != slot.worker_id)
        if self.has_failed(slot.worker_id):
            self.defer(Action.UNLOAD, slot, reason, "the device is heard again")
        elif slot.state in SERVING and sum(self._is_ready(other) for other in others) < wanted:
            self.await_others(slot, reason)
        else:
            self.unload(slot, UnloadReason.SCALED_DOWN, reason)

    def await_others(self, slot: Slot, reason: str) -> None:
        """Put off the UNLOAD of a slot until as many others as are wanted serve."""
        wanted = self.target.replicas
        self.defer(Action.UNLOAD, slot, reason, "another is READY" if wanted == 1 else f"{wanted} others are READY")

    def defer(self, action: Action, slot: Slot, reason: str, waits_for: str) -> None:
        self.deferred.append(Deferred(action=action, worker_id=slot.worker_id, reason=reason, waits_for=waits_for))

    def lose(self, slots: Iterable[Slot]) -> None:
        """Count slots out: others take over, and nothing is commanded there by this plan."""
        self.lost.extend(slot.worker_id for slot in slots)

    def keep(self, unserved: Rejection) -> None:
        """Leave a slot as it is, for the reason given."""
        self.unplaced += 1
        self.rejections.append(unserved)

    def give_up(self, failed: Rejection) -> None:
        """Leave a slot as it is, because the wanted version cannot run there."""
        self.given_up += 1
        self.keep(failed)

    def finish(self, found: tuple[Change, ...], slots: dict[str, Slot], why: UnloadReason) -> DeploymentPlan | None:
        """Return the plan, or None where there is nothing that is not already under way.

        A new generation supersedes the rollout of the one before, with all that it has under way. So a plan that
        commands anything commands anew what is in flight; one that does not leaves a running rollout alone, unless
        that waits for a device which has failed or left git (it would wait for ever), or does not exist.
        """
        unreachable = self.fleet.occupancy.unreachable(self.target.deployment_id)
        in_flight = [slot for slot in slots.values() if slot.state in IN_FLIGHT and self.place(slot) is not Place.AWAY]
        awaited = [slot for slot in in_flight if slot.worker_id not in self.lost]
        stuck = len(awaited) < len(in_flight) or (bool(awaited) and self._is_orphaned())
        anew = bool(self.commands or unreachable or stuck)
        says = bool(self.unplaced or self.deferred or self.lost)
        if not anew and (awaited or not says):
            if says:
                self.fleet.put_off.add(self.target.deployment_id)
            return None
        if unreachable:
            found = (*found, no_longer_awaited(self.target.deployment_id, unreachable))
        if anew:
            self._carry_on(awaited, why)
        for worker_id in self.lost:  # what is given up leaves its room to whoever is planned after it
            self.fleet.occupancy.put(slots[worker_id].model_copy(update={"replaced": True}))
        return self.target.model_copy(
            update={
                "changes": found,
                "commands": tuple(sorted(self.commands, key=lambda c: (c.action is not Action.UNLOAD, c.worker_id))),
                "unplaced": self.unplaced,
                "given_up": self.given_up,
                "rejections": tuple(self.rejections[:REJECTIONS_KEPT]),
                "truncated": self.truncated + max(0, len(self.rejections) - REJECTIONS_KEPT),
                "deferred": tuple(sorted(self.deferred, key=lambda one: one.worker_id)),
                "lost": tuple(sorted(self.lost)),
            }
        )

    def _is_spent(self, slot: Slot) -> bool:
        """Tell whether a slot failed for good on a device that is there, and another device has been tried instead."""
        failed = slot.state is ModelState.FAILED and slot.digest == self.target.digest
        return self.circumstances.reconciling and failed and slot.replaced and not self.has_failed(slot.worker_id)

    def _is_orphaned(self) -> bool:
        return self.target.deployment_id in self.circumstances.orphaned

    def _is_ready(self, slot: Slot) -> bool:
        trusted = self.fleet.health(slot.worker_id) in _TRUSTED and not self.fleet.leaving(slot.worker_id)
        return slot.state is ModelState.READY and slot.digest == self.target.digest and trusted

    def _carry_on(self, awaited: Iterable[Slot], why: UnloadReason) -> None:
        commanded = {command.worker_id for command in self.commands}
        for slot in awaited:
            same = slot.state is ModelState.UNLOADING or slot.digest == self.target.digest
            if same and slot.worker_id not in commanded and not self.has_failed(slot.worker_id):
                evicted = slot.deployment_id in self.fleet.occupancy.claims(slot.worker_id)
                self.command(slot, self._again(slot, UnloadReason.EVICTED if evicted else why))

    def _again(self, slot: Slot, why: UnloadReason) -> PlannedCommand:
        """Return the command that `slot` waits for, for the new generation."""
        action = {
            ModelState.LOADING: Action.LOAD,
            ModelState.RELOADING: Action.RELOAD,
            ModelState.UNLOADING: Action.UNLOAD,
        }[slot.state]
        fills = action is not Action.UNLOAD
        return PlannedCommand(
            action=action,
            worker_id=slot.worker_id,
            reason=f"carried on: under way since generation {slot.generation}",
            previous_version=slot.previous_version,
            previous_digest=slot.previous_digest,
            unload_reason=None if fills else why,
            after=tuple(still_awaited(slot, self.fleet)) if fills else (),
            recreate=fills and slot.recreate,
            gap=gap(self.target, slot.worker_id, self.fleet) if fills and slot.recreate else None,
        )


def serving(slots: Iterable[Slot], fleet: Fleet) -> frozenset[str]:
    """Return the devices on which one of `slots` answers, whatever its version."""
    return frozenset(
        slot.worker_id
        for slot in slots
        if slot.state in SERVING and not slot.recreate and fleet.health(slot.worker_id) is not Health.FAILED
    )


def failing(slots: Iterable[Slot], digest: str | None, fleet: Fleet) -> tuple[str, ...]:
    """Return the devices on which the version of `digest` has failed, not for want of room.

    Where another device has taken over for one, that is told no longer once the version is READY somewhere.
    """
    there = (slot for slot in slots if slot.digest == digest and fleet.health(slot.worker_id) is not Health.FAILED)
    mine = [slot for slot in there if slot.code not in NO_ROOM]
    works = any(slot.state is ModelState.READY for slot in mine)
    failed = (slot for slot in mine if slot.state is ModelState.FAILED and not (slot.replaced and works))
    return tuple(sorted(slot.worker_id for slot in failed))


def unavailable(limit: int, serves: frozenset[str]) -> int:
    """Return how many replicas may be recreated at once, so that one of several always serves."""
    return max(1, min(limit, len(serves) - 1))


def still_awaited(slot: Slot, fleet: Fleet) -> Iterator[Awaited]:
    """Yield the slots that are still there, and for whose going the command of `slot` waits."""
    there = fleet.occupancy.on(slot.worker_id)
    for name in slot.instead_of:
        if name in there:
            yield Awaited(deployment_id=name, worker_id=slot.worker_id, generation=there[name].generation)


def gap(target: DeploymentPlan, worker_id: str, fleet: Fleet) -> str:
    """Say what callers notice while one version goes before the other comes."""
    facts = fleet.facts.get(worker_id)
    seconds = facts.load_seconds.get(target.deployment_id) if facts is not None else None
    during = f"while {target.version} loads" if seconds is None else f"for about {seconds:.0f} s"
    return f"{worker_id} serves nothing {during}"
