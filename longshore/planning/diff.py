"""Desired against observed → what differs (PRD §5.2 phase 2), one deployment at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from longshore.schemas.deployments import DeploymentManifest
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import Change, ChangeType
from longshore.schemas.slots import Slot

IN_FLIGHT = frozenset({ModelState.LOADING, ModelState.RELOADING, ModelState.UNLOADING})


@dataclass(frozen=True)
class Standing:
    """The slots of one deployment, each in exactly one of these groups."""

    current: tuple[Slot, ...] = ()
    """Run the wanted digest, or are on their way to it."""
    outdated: tuple[Slot, ...] = ()
    """Run another digest, are on their way to one, or have failed with one."""
    failed: tuple[Slot, ...] = ()
    """Failed with the wanted digest: a push is a retry."""
    misplaced: tuple[Slot, ...] = ()
    """May not stay: the selector has moved on, or they have failed on a device that is not there."""
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


def stand(slots: Iterable[Slot], digest: str, *, may_stay: Callable[[Slot], bool]) -> Standing:
    """Sort the slots of one deployment whose wanted digest is `digest`."""
    groups: dict[str, list[Slot]] = {}
    for slot in slots:
        if slot.state is ModelState.UNLOADING:
            group = "leaving"
        elif not may_stay(slot):
            group = "misplaced"
        elif slot.digest != digest:
            group = "outdated"
        else:
            group = "failed" if slot.state is ModelState.FAILED else "current"
        groups.setdefault(group, []).append(slot)
    return Standing(**{name: tuple(members) for name, members in groups.items()})


def changes(deployment_id: str, standing: Standing, wanted: int, version: str) -> tuple[Change, ...]:
    """Return every way in which a deployment that should run differs from what is wanted."""
    found: list[tuple[ChangeType, str]] = []
    kept = len(standing.kept)
    if standing.victims:
        found.append((ChangeType.SCALE_DOWN, f"{kept + len(standing.victims)} → {wanted} replicas"))
    if standing.misplaced:
        found.append((ChangeType.SCALE_DOWN, f"no longer to run on {_names(standing.misplaced)}"))
    if standing.outdated:
        found.append((ChangeType.VERSION_UPDATE, _update(standing.outdated, version)))
    if standing.failed:
        failed = ", ".join(f"{slot.code} on {slot.worker_id}" for slot in standing.failed)
        found.append((ChangeType.SCALE_UP, f"{len(standing.failed)} of {_replicas(wanted)} failed: {failed}"))
    if kept < wanted:
        if kept or standing.misplaced:
            found.append((ChangeType.SCALE_UP, f"{kept} → {_replicas(wanted)}"))
        else:
            found.append((ChangeType.NEW_DEPLOYMENT, f"{version}, {_replicas(wanted)}"))
    return tuple(Change(type=kind, deployment_id=deployment_id, reason=reason) for kind, reason in found)


def disabling(deployment_id: str, manifest: DeploymentManifest | None, workers: int) -> Change:
    """Return the change of a deployment of which nothing should run, while `workers` devices hold it."""
    if manifest is None:
        why = "the manifest is no longer in git"
    elif not manifest.enabled:
        why = "enabled is false"
    else:
        why = "replicas is 0"
    return Change(type=ChangeType.DISABLE, deployment_id=deployment_id, reason=f"{why}; loaded on {_workers(workers)}")


def no_longer_awaited(deployment_id: str, unreachable: tuple[Slot, ...]) -> Change:
    """Return the change of a deployment that waits for devices which have left git."""
    reason = f"no longer waits for {_names(unreachable)}: not in git any more"
    return Change(type=ChangeType.SCALE_DOWN, deployment_id=deployment_id, reason=reason)


def _update(outdated: tuple[Slot, ...], version: str) -> str:
    before = Counter(slot.version for slot in outdated)
    if set(before) == {version}:
        return f"{version} on {_workers(len(outdated))}: same version, changed card, code or endpoint"
    if len(before) == 1:
        return f"{next(iter(before))} → {version} on {_workers(len(outdated))}"
    several = ", ".join(f"{old} on {_workers(count)}" for old, count in sorted(before.items()))
    return f"{several} → {version}"


def _names(slots: Iterable[Slot]) -> str:
    return ", ".join(slot.worker_id for slot in slots)


def _workers(count: int) -> str:
    return f"{count} worker" if count == 1 else f"{count} workers"


def _replicas(count: int) -> str:
    return f"{count} replica" if count == 1 else f"{count} replicas"
