"""Desired against observed → what differs (PRD §5.2 phase 2), one deployment at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto

from longshore.schemas.deployments import DeploymentManifest
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import Change, ChangeType
from longshore.schemas.slots import Slot
from longshore.schemas.wording import counted


class Place(Enum):
    """What is to be thought of the place of a slot, whatever it holds."""

    STAYS = auto()
    MOVES = auto()
    """The device is there, and may not keep it: selector, region, drain."""
    EVICTED = auto()
    """This plan gives its room to something more important."""
    LOST = auto()
    """The device has failed."""
    AWAY = auto()
    """Lost before this plan, and counted no longer."""
    SPENT = auto()
    """What it should hold has failed there for good, and another device was tried: counted no longer."""


@dataclass(frozen=True)
class Standing:
    """The slots of one deployment, each in exactly one of these groups."""

    current: tuple[Slot, ...] = ()
    """Run the wanted digest, or are on their way to it."""
    outdated: tuple[Slot, ...] = ()
    """Run another digest, are on their way to one, or have failed with one."""
    failed: tuple[Slot, ...] = ()
    """Failed with the wanted digest."""
    moving: tuple[Slot, ...] = ()
    evicted: tuple[Slot, ...] = ()
    lost: tuple[Slot, ...] = ()
    away: tuple[Slot, ...] = ()
    spent: tuple[Slot, ...] = ()
    leaving: tuple[Slot, ...] = ()
    """Being unloaded."""
    victims: tuple[Slot, ...] = ()
    """Too many: chosen to be unloaded."""

    @property
    def kept(self) -> tuple[Slot, ...]:
        return (*self.current, *self.outdated, *self.failed)

    def without(self, victims: Iterable[Slot]) -> Standing:
        """Return this standing with `victims` in their own group."""
        chosen = tuple(victims)
        return replace(
            self,
            current=tuple(s for s in self.current if s not in chosen),
            outdated=tuple(s for s in self.outdated if s not in chosen),
            failed=tuple(s for s in self.failed if s not in chosen),
            victims=chosen,
        )


_GROUPS = {
    Place.MOVES: "moving",
    Place.EVICTED: "evicted",
    Place.LOST: "lost",
    Place.AWAY: "away",
    Place.SPENT: "spent",
}


def stand(slots: Iterable[Slot], digest: str, *, place: Callable[[Slot], Place]) -> Standing:
    """Sort the slots of one deployment whose wanted digest is `digest`."""
    groups: dict[str, list[Slot]] = {}
    for slot in slots:
        where = place(slot)
        if where in (Place.LOST, Place.AWAY):
            group = _GROUPS[where]
        elif slot.state is ModelState.UNLOADING:
            group = "leaving"
        elif where is not Place.STAYS:
            group = _GROUPS[where]
        elif slot.digest != digest:
            group = "outdated"
        else:
            group = "failed" if slot.state is ModelState.FAILED else "current"
        groups.setdefault(group, []).append(slot)
    return Standing(**{name: tuple(members) for name, members in groups.items()})


def changes(
    deployment_id: str, standing: Standing, wanted: int, version: str, why: Mapping[str, str]
) -> tuple[Change, ...]:
    """Return every way in which a deployment that should run differs from what is wanted.

    `why` says, by worker id, why a slot moves, for whom it is evicted, and what becomes of one that has failed.
    """
    found: list[tuple[ChangeType, str]] = []
    kept = len(standing.kept)
    if standing.victims:
        found.append((ChangeType.SCALE_DOWN, f"{kept + len(standing.victims)} → {wanted} replicas"))
    found.extend(
        (ChangeType.SCALE_DOWN, f"makes room for {why[slot.worker_id]} on {slot.worker_id}")
        for slot in standing.evicted
    )
    if standing.lost:
        found.append((ChangeType.UNRESPONSIVE_WORKER, _unresponsive(standing.lost)))
    if standing.moving:
        places = "; ".join(
            f"{slot.worker_id}{_renewed(slot, version)}: {why[slot.worker_id]}" for slot in standing.moving
        )
        found.append((ChangeType.MIGRATE, f"moves from {places}"))
    if standing.outdated:
        found.append((ChangeType.VERSION_UPDATE, _update(standing.outdated, version)))
    if standing.failed:
        failed = ", ".join(f"{slot.code} on {slot.worker_id}{_fate(slot, why)}" for slot in standing.failed)
        found.append(
            (ChangeType.FAILED_MODEL, f"{len(standing.failed)} of {counted(wanted, 'replica')} failed: {failed}")
        )
    found.extend(_missing(standing, wanted, version))
    return tuple(Change(type=kind, deployment_id=deployment_id, reason=reason) for kind, reason in found)


def _missing(standing: Standing, wanted: int, version: str) -> Iterable[tuple[ChangeType, str]]:
    """Yield what is wanted beyond all that was there: what only changes its place is told already."""
    lost = sum(slot.state is not ModelState.UNLOADING for slot in standing.lost)
    there = len(standing.kept) + len(standing.moving) + len(standing.evicted) + lost
    known = there + len(standing.away) + len(standing.spent)
    if known < wanted:
        if known:
            yield ChangeType.SCALE_UP, f"{known} → {counted(wanted, 'replica')}"
        else:
            yield ChangeType.NEW_DEPLOYMENT, f"{version}, {counted(wanted, 'replica')}"
    if standing.away and there < wanted:
        yield ChangeType.UNRESPONSIVE_WORKER, f"{_names(standing.away)} still counted out"
    if standing.spent and there < wanted:
        failed = ", ".join(f"{slot.code} on {slot.worker_id}" for slot in standing.spent)
        yield ChangeType.FAILED_MODEL, f"{failed}: given up there, still without a replacement"


def disabling(deployment_id: str, manifest: DeploymentManifest | None, held: Iterable[Slot], found: int) -> Change:
    """Return the change of a deployment of which nothing should run; `found` of what is `held` no plan has brought."""
    slots = tuple(held)
    if manifest is None and found == len(slots):
        reason = f"runs on {_names(slots)}, and git does not name it"
        return Change(type=ChangeType.ORPHAN, deployment_id=deployment_id, reason=reason)
    if manifest is None:
        why = "the manifest is no longer in git"
    elif not manifest.enabled:
        why = "enabled is false"
    else:
        why = "replicas is 0"
    reason = f"{why}; loaded on {counted(len(slots), 'worker')}"
    return Change(type=ChangeType.DISABLE, deployment_id=deployment_id, reason=reason)


def no_longer_awaited(deployment_id: str, unreachable: tuple[Slot, ...]) -> Change:
    """Return the change of a deployment that waits for devices which have left git."""
    reason = f"no longer waits for {_names(unreachable)}: not in git any more"
    return Change(type=ChangeType.SCALE_DOWN, deployment_id=deployment_id, reason=reason)


def _unresponsive(lost: tuple[Slot, ...]) -> str:
    have = "has" if len(lost) == 1 else "have"
    return f"{_names(lost)} {have} failed: nothing was heard of {'it' if len(lost) == 1 else 'them'}"


def _renewed(slot: Slot, version: str) -> str:
    return f" ({slot.version} → {version})" if slot.version != version else ""


def _fate(slot: Slot, why: Mapping[str, str]) -> str:
    return f" ({why[slot.worker_id]})" if slot.worker_id in why else ""


def _update(outdated: tuple[Slot, ...], version: str) -> str:
    before = Counter(slot.version for slot in outdated)
    if set(before) == {version}:
        return f"{version} on {counted(len(outdated), 'worker')}: same version, changed card, code or endpoint"
    if len(before) == 1:
        return f"{next(iter(before))} → {version} on {counted(len(outdated), 'worker')}"
    several = ", ".join(f"{old} on {counted(count, 'worker')}" for old, count in sorted(before.items()))
    return f"{several} → {version}"


def _names(slots: Iterable[Slot]) -> str:
    return ", ".join(slot.worker_id for slot in slots)
