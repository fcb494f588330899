"""One deployment: from what differs to the commands that mend it (PRD §5.2 phase 3)."""

from __future__ import annotations

from dataclasses import dataclass, field

from longshore.planning.diff import IN_FLIGHT, Standing, changes, disabling, no_longer_awaited, stand
from longshore.planning.fleet import Fleet
from longshore.planning.placement import place, rejection, shortage, unsupported
from longshore.schemas.commands import Action, UnloadReason
from longshore.schemas.deployments import DeploymentManifest, DeploymentSpec
from longshore.schemas.ledger import reserved
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import Change, DeploymentPlan, PlannedCommand, Rejection
from longshore.schemas.slots import Demand, Slot

# An operator compares a handful of devices; 20 rejections are 4 KB, and a plan must stay far under 2 MB (DESIGN §3).
REJECTIONS_KEPT = 20


@dataclass
class _Draft:
    """The plan of one deployment while it is made; `target` is the plan without changes and commands."""

    target: DeploymentPlan
    fleet: Fleet
    commands: list[PlannedCommand] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    unplaced: int = 0
    truncated: int = 0

    def command(self, slot: Slot, command: PlannedCommand) -> None:
        """Decide `command` for a slot that exists, and reserve what it takes."""
        self.fleet.occupancy.put(reserved(slot, self.target, command))
        self.commands.append(command)

    def unload(self, slot: Slot, why: UnloadReason, reason: str) -> None:
        command = PlannedCommand(action=Action.UNLOAD, worker_id=slot.worker_id, reason=reason, unload_reason=why)
        self.command(slot, command)

    def keep(self, unserved: Rejection) -> None:
        """Leave a slot as it is, for the reason given."""
        self.unplaced += 1
        self.rejections.append(unserved)

    def finish(self, found: tuple[Change, ...], slots: dict[str, Slot], why: UnloadReason) -> DeploymentPlan | None:
        """Return the plan, or None where there is nothing that is not already under way.

        A new generation supersedes the rollout of the one before, with all that it has under way. So a plan that
        commands anything commands anew what is in flight; one that does not leaves a running rollout alone, unless
        that waits for a device which has left git: it would wait for ever.
        """
        in_flight = [slot for slot in slots.values() if slot.state in IN_FLIGHT]
        unreachable = self.fleet.occupancy.unreachable(self.target.deployment_id)
        if not self.commands and not unreachable and (in_flight or not self.unplaced):
            return None
        if unreachable:
            found = (*found, no_longer_awaited(self.target.deployment_id, unreachable))
        if self.commands or unreachable:
            commanded = {command.worker_id for command in self.commands}
            for slot in in_flight:
                same = slot.state is ModelState.UNLOADING or slot.digest == self.target.digest
                if same and slot.worker_id not in commanded:
                    self.command(slot, _again(slot, why))
        return self.target.model_copy(
            update={
                "changes": found,
                "commands": tuple(sorted(self.commands, key=lambda c: (c.action is not Action.UNLOAD, c.worker_id))),
                "unplaced": self.unplaced,
                "rejections": tuple(self.rejections[:REJECTIONS_KEPT]),
                "truncated": self.truncated + max(0, len(self.rejections) - REJECTIONS_KEPT),
            }
        )


def plan_running(
    manifest: DeploymentManifest, spec: DeploymentSpec, generation: int, fleet: Fleet
) -> DeploymentPlan | None:
    """Plan a deployment that wants replicas; None where nothing is to be done. Reserves in the fleet's occupancy."""
    wanted = manifest.wanted_replicas
    target = DeploymentPlan(
        deployment_id=manifest.id,
        generation=generation,
        version=spec.version,
        digest=spec.digest,
        priority=manifest.deployment_config.priority,
        demand=Demand.of(spec.card.resources),
        replicas=wanted,
        changes=(),
        commands=(),
    )
    draft = _Draft(target, fleet)
    matching = fleet.matching(manifest)
    slots = fleet.occupancy.of(manifest.id)

    def may_stay(slot: Slot) -> bool:
        lost = slot.state is ModelState.FAILED and fleet.absence(slot.worker_id) is not None
        return slot.worker_id in matching and not lost

    standing = stand(slots.values(), spec.digest, may_stay=may_stay)
    standing = standing.without(victims(standing, len(standing.kept) - wanted, fleet))
    found = changes(manifest.id, standing, wanted, spec.version)
    for slot in standing.misplaced:
        why = fleet.absence(slot.worker_id) if slot.worker_id in matching else "the selector no longer matches it"
        draft.unload(slot, UnloadReason.SCALED_DOWN, why or "")
    for slot in standing.victims:
        draft.unload(slot, UnloadReason.SCALED_DOWN, _too_many(slot, fleet))
    for slot in (*standing.outdated, *standing.failed):
        _renew(slot, spec.card.schemaVersion, draft)
    unloaded = {command.worker_id for command in draft.commands if command.action is Action.UNLOAD}
    missing = wanted - sum(slot.worker_id not in unloaded for slot in standing.kept)
    if missing > 0:
        taken = {slot.worker_id for slot in slots.values() if slot.state is not ModelState.UNLOADING}
        candidates = tuple(worker_id for worker_id in matching if worker_id not in taken)
        placed = place(target, candidates, spec.card.schemaVersion, missing, fleet)
        draft.commands.extend(placed.commands)
        unplaced = missing - len(placed.commands)
        if unplaced:
            draft.unplaced += unplaced
            told = placed.unfit[:REJECTIONS_KEPT]
            draft.rejections.extend(rejection(target, worker_id, spec.card.schemaVersion, fleet) for worker_id in told)
            draft.truncated += len(placed.unfit) - len(told)
    return draft.finish(found, slots, UnloadReason.SCALED_DOWN)


def plan_ending(
    deployment_id: str, manifest: DeploymentManifest | None, generation: int, fleet: Fleet
) -> DeploymentPlan | None:
    """Plan a deployment of which nothing should run: every device unloads it, whatever its state."""
    slots = fleet.occupancy.of(deployment_id)
    held = [slot for slot in slots.values() if slot.state is not ModelState.UNLOADING]
    unreachable = fleet.occupancy.unreachable(deployment_id)
    if not held and not unreachable:
        return None
    target = DeploymentPlan(
        deployment_id=deployment_id,
        generation=generation,
        version=None,
        digest=None,
        priority=manifest.deployment_config.priority if manifest else max(s.priority for s in (*held, *unreachable)),
        replicas=0,
        changes=(),
        commands=(),
    )
    draft = _Draft(target, fleet)
    change = disabling(deployment_id, manifest, len(held))
    why = UnloadReason.REMOVED if manifest is None else UnloadReason.DISABLED
    for slot in held:
        draft.unload(slot, why, change.reason.split(";")[0])
    return draft.finish((change,) if held else (), slots, why)


def victims(standing: Standing, surplus: int, fleet: Fleet) -> tuple[Slot, ...]:
    """Choose the replicas that go when there are `surplus` too many (PRD §5.2, SCALE_DOWN).

    First those that serve nothing; then by highest utilisation of the device, fewest models on it, most recent
    load (the higher generation), and the id at the end, so that the order is total.
    """

    def order(slot: Slot) -> tuple[object, ...]:
        usage = fleet.occupancy.usage(slot.worker_id)
        serves = slot.state is not ModelState.FAILED and fleet.absence(slot.worker_id) is None
        return (serves, -usage.utilisation, usage.models, -slot.generation, slot.worker_id)

    return tuple(sorted(standing.kept, key=order)[: max(0, surplus)])


def _renew(slot: Slot, schema_version: str, draft: _Draft) -> None:
    """Bring one slot to the wanted digest in its place; where that cannot be, say so and keep what serves."""
    supported = draft.fleet.supports(slot.worker_id, schema_version)
    command = _renewal(slot, draft.target)
    refusal = (
        shortage(draft.target, command, draft.fleet)
        if supported
        else Rejection(worker_id=slot.worker_id, reasons=(unsupported(slot.worker_id, schema_version, draft.fleet),))
    )
    if refusal is None:
        draft.command(slot, command)
    elif command.action is Action.RELOAD:
        draft.keep(refusal)
    else:
        draft.unload(slot, UnloadReason.SCALED_DOWN, f"no place for {draft.target.version}: {refusal.reasons[0]}")


def _renewal(slot: Slot, target: DeploymentPlan) -> PlannedCommand:
    """Return the command that replaces what `slot` holds: a RELOAD where something may serve, else a LOAD."""
    if slot.state is ModelState.FAILED:
        reason = f"tried again: {slot.version} failed with {slot.code}"
        return PlannedCommand(action=Action.LOAD, worker_id=slot.worker_id, reason=reason)
    if slot.state is ModelState.LOADING:
        reason = f"instead of {slot.version}, which was still loading"
        return PlannedCommand(action=Action.LOAD, worker_id=slot.worker_id, reason=reason)
    version, digest = slot.version, slot.digest
    reason = f"{version} → {target.version}" if version != target.version else f"{version} anew: its digest has changed"
    if slot.state is ModelState.RELOADING:
        reason += ", while the reload before was under way"
        if slot.previous_digest != target.digest:
            version, digest = slot.previous_version or version, slot.previous_digest or digest
    return PlannedCommand(
        action=Action.RELOAD,
        worker_id=slot.worker_id,
        reason=reason,
        previous_version=version,
        previous_digest=digest,
    )


def _again(slot: Slot, why: UnloadReason) -> PlannedCommand:
    """Return the command that `slot` waits for, for the new generation."""
    action = {
        ModelState.LOADING: Action.LOAD,
        ModelState.RELOADING: Action.RELOAD,
        ModelState.UNLOADING: Action.UNLOAD,
    }[slot.state]
    return PlannedCommand(
        action=action,
        worker_id=slot.worker_id,
        reason=f"carried on: under way since generation {slot.generation}",
        previous_version=slot.previous_version,
        previous_digest=slot.previous_digest,
        unload_reason=why if action is Action.UNLOAD else None,
    )


def _too_many(slot: Slot, fleet: Fleet) -> str:
    if slot.state is ModelState.FAILED:
        return f"one replica too many, and this one failed with {slot.code}"
    absence = fleet.absence(slot.worker_id)
    if absence:
        return f"one replica too many, and {absence}"
    usage = fleet.occupancy.usage(slot.worker_id)
    models = "1 model" if usage.models == 1 else f"{usage.models} models"
    return f"one replica too many: {usage.utilisation:.0%} of the device in use, {models}"
