"""One deployment: from what differs to the commands that mend it (PRD §5.2 phase 3)."""

from __future__ import annotations

from longshore.planning.circumstances import Circumstances, told
from longshore.planning.diff import Standing, changes, disabling, stand
from longshore.planning.draft import REJECTIONS_KEPT, Draft, failing, serving, unavailable
from longshore.planning.failed import GiveUp, Retry, Wait
from longshore.planning.fleet import Fleet
from longshore.planning.placement import place, rejection
from longshore.planning.renewal import judge, renew, silent, update
from longshore.schemas.commands import Action, UnloadReason
from longshore.schemas.deployments import DeploymentManifest, DeploymentSpec
from longshore.schemas.devices import Health
from longshore.schemas.ledger import key_of
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.orders import Hold
from longshore.schemas.plans import DeploymentPlan, Rejection
from longshore.schemas.slots import Demand, Slot
from longshore.schemas.wording import counted


def plan_running(
    manifest: DeploymentManifest, spec: DeploymentSpec, generation: int, fleet: Fleet, circumstances: Circumstances
) -> DeploymentPlan | None:
    """Plan a deployment that wants replicas; None where nothing is to be done. Reserves in the fleet's occupancy."""
    wanted = manifest.wanted_replicas
    hold = circumstances.hold(manifest.id, spec.digest)
    slots = fleet.occupancy.of(manifest.id)
    serves = serving(slots.values(), fleet)
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
        max_unavailable=unavailable(circumstances.limits.max_unavailable, serves),
        held=told(hold) if hold else "",
    )
    draft = Draft(
        target,
        fleet,
        circumstances,
        frozenset(fleet.matching(manifest)),
        serves,
        failing(slots.values(), spec.digest, fleet),
    )
    standing = stand(slots.values(), spec.digest, place=draft.place)
    standing = standing.without(victims(standing, len(standing.kept) - wanted, fleet))
    why = {slot.worker_id: draft.why_it_moves(slot) or "" for slot in standing.moving}
    for slot in standing.evicted:
        why[slot.worker_id] = fleet.evicted[key_of(slot)]
        draft.unload(slot, UnloadReason.EVICTED, f"evicted for {why[slot.worker_id]}")
    draft.lose(standing.lost)
    if hold is None:
        _try_failed(standing, spec.card.schemaVersion, draft, why)
        _part(standing, draft, why)
        last = [slot for slot in standing.outdated if draft.is_last(slot.worker_id)]
        for slot in standing.outdated:
            if slot not in last:
                update(slot, spec.card.schemaVersion, draft)
        gone = {*draft.lost, *(c.worker_id for c in draft.commands if c.action is Action.UNLOAD)}
        missing = wanted - sum(slot.worker_id not in gone for slot in standing.kept)
        _place(missing, fleet.matching(manifest), slots, spec.card.schemaVersion, draft)
        for slot in last:  # whether it waits for the others depends on whether they have a place
            update(slot, spec.card.schemaVersion, draft)
    else:
        draft.unplaced = wanted - len(standing.current)
        _part_while_held(standing, draft, why, hold)
    found = changes(manifest.id, standing, wanted, spec.version, why)
    return draft.finish(found, slots, UnloadReason.SCALED_DOWN)


def plan_ending(
    deployment_id: str,
    manifest: DeploymentManifest | None,
    generation: int,
    fleet: Fleet,
    circumstances: Circumstances,
) -> DeploymentPlan | None:
    """Plan a deployment of which nothing should run: every device unloads it, whatever its state.

    One that has failed is told nothing. What runs there is found when it is back, and unloaded then.
    """
    slots = fleet.occupancy.of(deployment_id)
    unreachable = fleet.occupancy.unreachable(deployment_id)
    target = DeploymentPlan(
        deployment_id=deployment_id,
        generation=generation,
        version=None,
        digest=None,
        priority=manifest.deployment_config.priority
        if manifest
        else max((slot.priority for slot in (*slots.values(), *unreachable)), default=1),
        replicas=0,
        changes=(),
        commands=(),
    )
    draft = Draft(target, fleet, circumstances)
    silent_ones = [slot for slot in slots.values() if draft.has_failed(slot.worker_id) and not slot.replaced]
    here = [slot for slot in slots.values() if not draft.has_failed(slot.worker_id)]
    held = [slot for slot in here if slot.state is not ModelState.UNLOADING]
    loaded = [slot for slot in (*held, *silent_ones) if slot.state is not ModelState.UNLOADING]
    change = disabling(deployment_id, manifest, loaded, sum(key_of(slot) in circumstances.adopted for slot in loaded))
    reason = change.reason.split(";")[0]
    for slot in held:
        draft.unload(slot, UnloadReason.REMOVED if manifest is None else UnloadReason.DISABLED, reason)
    draft.lose(silent_ones)
    # Those that others took over for may serve still: told where something is done, not each time anew.
    away = [slot for slot in slots.values() if held and draft.has_failed(slot.worker_id) and slot.replaced]
    for slot in (*silent_ones, *away):
        draft.defer(Action.UNLOAD, slot, reason, "the device is heard again")
    return draft.finish(
        (change,) if loaded else (), slots, UnloadReason.REMOVED if manifest is None else UnloadReason.DISABLED
    )


def victims(standing: Standing, surplus: int, fleet: Fleet) -> tuple[Slot, ...]:
    """Choose the replicas that go when there are `surplus` too many (PRD §5.2, SCALE_DOWN).

    First what has failed, itself or with its device; then those whose device had failed and is back, while others
    took over; then what is still loading; then those whose device takes nothing new: it leaves, is cordoned, keeps
    failing. Then by highest utilisation of the device, fewest models on it, most recent load (the higher generation),
    and the id at the end, so that the order is total.
    """

    def order(slot: Slot) -> tuple[object, ...]:
        worker_id = slot.worker_id
        usage = fleet.occupancy.usage(worker_id)
        failed = slot.state is ModelState.FAILED or fleet.health(worker_id) is Health.FAILED
        loading, shunned = slot.state is ModelState.LOADING, fleet.absence(worker_id) is not None
        busy = (-usage.utilisation, usage.models, -slot.generation)
        return (not failed, not slot.replaced, not loading, not shunned, *busy, worker_id)

    return tuple(sorted(standing.kept, key=order)[:surplus]) if surplus > 0 else ()


def _try_failed(standing: Standing, schema_version: str, draft: Draft, why: dict[str, str]) -> None:
    """Try again what has failed, there or once elsewhere."""
    ready = sum(slot.state is ModelState.READY for slot in standing.current)
    for slot in standing.spent:
        if ready >= draft.target.replicas:
            draft.unload(slot, UnloadReason.SCALED_DOWN, _too_many(slot, draft.fleet))
        else:
            draft.await_others(slot, f"{slot.version} failed with {slot.code}")
    given_up: list[tuple[Slot, str]] = []
    for slot in standing.failed:
        if draft.has_failed(slot.worker_id):
            draft.keep(silent(slot, draft))
            continue
        match judge(slot, draft):
            case Retry():
                why[slot.worker_id] = "tried again there"
                renew(slot, schema_version, draft)
            case Wait(until=until):
                why[slot.worker_id] = f"tried again at {until:%H:%M:%S} UTC"
                draft.defer(Action.LOAD, slot, f"{slot.version} failed with {slot.code}", f"it is {until:%H:%M:%S} UTC")
            case GiveUp(reason=reason):
                given_up.append((slot, reason))
    # Each that was given up before has had its one other device; that may be the one that has failed now.
    for number, (slot, reason) in enumerate(given_up):
        if number < len(given_up) - len(standing.spent):
            why[slot.worker_id] = "another device is sought"
            draft.lose([slot])
            draft.await_others(slot, f"{slot.version} {reason}")
        else:
            why[slot.worker_id] = "given up"
            draft.give_up(Rejection(worker_id=slot.worker_id, reasons=(f"{slot.version} {reason}",)))


def _part(standing: Standing, draft: Draft, why: dict[str, str]) -> None:
    """Let go what moves, what is too many."""
    for slot in standing.moving:
        draft.leave(slot, why[slot.worker_id])
    for slot in standing.victims:
        draft.leave(slot, _too_many(slot, draft.fleet))


def _part_while_held(standing: Standing, draft: Draft, why: dict[str, str], hold: Hold) -> None:
    """As `_part`; but a deployment that is paused is commanded nothing."""
    if hold.kind != "paused":
        _part(standing, draft, why)
        return
    for slot in (*standing.moving, *standing.victims):
        draft.defer(Action.UNLOAD, slot, why.get(slot.worker_id, "one replica too many"), "it is resumed")


def _place(missing: int, matching: tuple[str, ...], slots: dict[str, Slot], schema_version: str, draft: Draft) -> None:
    """Find a place for each missing replica, and say of those without one why no device takes it."""
    if missing <= 0:
        return
    target, fleet = draft.target, draft.fleet
    taken = {slot.worker_id for slot in slots.values() if slot.state is not ModelState.UNLOADING}
    candidates = tuple(worker_id for worker_id in matching if worker_id not in taken)
    placed = place(target, candidates, schema_version, missing, fleet)
    draft.commands.extend(placed.commands)
    unplaced = missing - len(placed.commands)
    if unplaced:
        draft.unplaced += unplaced
        shown = placed.unfit[:REJECTIONS_KEPT]
        draft.rejections.extend(rejection(target, worker_id, schema_version, fleet) for worker_id in shown)
        draft.truncated += len(placed.unfit) - len(shown)


def _too_many(slot: Slot, fleet: Fleet) -> str:
    """Say why just this one, in the order in which `victims` chooses."""
    if slot.state is ModelState.FAILED:
        return f"one replica too many, and this one failed with {slot.code}"
    if slot.replaced:
        return "one replica too many: the device had failed, and others took over"
    if slot.state is ModelState.LOADING:
        return "one replica too many, and this one is still loading"
    absence = fleet.absence(slot.worker_id)
    if absence:
        return f"one replica too many, and {absence}"
    usage = fleet.occupancy.usage(slot.worker_id)
    return f"one replica too many: {usage.utilisation:.0%} of the device in use, {counted(usage.models, 'model')}"
