"""What a plan is made upon: the configured devices, what is known of them, and what is reserved on each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import NamedTuple

from longshore.planning.occupancy import Occupancy
from longshore.schemas.compatibility import matrix
from longshore.schemas.deployments import DeploymentManifest, selects
from longshore.schemas.devices import DeviceFacts, DeviceRecord, DeviceStatus, Health
from longshore.schemas.fleet import PlanningInput
from longshore.schemas.ledger import Key
from longshore.schemas.orders import Cordon
from longshore.schemas.plans import PoolSuspicion
from longshore.schemas.registries import RegistrySnapshot
from longshore.schemas.workers import WorkerConfig

# How long a device that keeps failing takes nothing new after its last failure (FAULTS 89); doubled by each failure.
_FLAP_BASE = timedelta(seconds=60)
_FLAP_CAP = timedelta(minutes=30)


# A device that is heard goes before one that may be in trouble, and both before one that was never heard.
_TRUST = {Health.HEALTHY: 0, Health.RECOVERING: 1, Health.SUSPECT: 1, Health.UNKNOWN: 2, Health.FAILED: 3}


class Repute(NamedTuple):
    """What counts of a device besides its room."""

    trust: int
    """By its health: the smaller, the better."""
    failures: int
    """Within the last day."""
    zone: str
    """As git labels it; devices without a zone share one."""


class Fleet:
    """The devices that git configures, what the ledger knows of them, and what is reserved on each.

    A plan fills it as it goes: `occupancy` with what it commands, `evicted` with what must go for that, `put_off`.
    """

    def __init__(
        self,
        workers: Mapping[str, WorkerConfig],
        records: Mapping[str, DeviceRecord],
        occupancy: Occupancy,
        *,
        cordons: Mapping[str, Cordon] | None = None,
        failures: Mapping[str, Sequence[datetime]] | None = None,
        facts: Mapping[str, DeviceFacts] | None = None,
        now: datetime | None = None,
        priorities: Mapping[str, int] | None = None,
        paused: Iterable[str] = (),
        suspects: Iterable[PoolSuspicion] = (),
    ) -> None:
        self.workers = workers
        self.occupancy = occupancy
        self.facts = facts or {}
        self.now = now
        self.priorities = priorities or {}
        """By deployment id, of those that this plan may evict: it must still come to plan them."""
        self.paused = frozenset(paused)
        self.evicted: dict[Key, str] = {}
        """Which slots must go, and for which deployment: theirs is the UNLOAD in the plan of their own deployment."""
        self.put_off: set[str] = set()
        """Deployments that are left alone until what is under way has ended, though there is more to be done."""
        self.wondered: set[str] = set()
        """Devices where victims of one priority were told apart without knowing when they were last asked."""
        self._records = records
        self._cordons = cordons or {}
        self._failures = failures or {}
        self._suspects = {suspicion.pool: suspicion for suspicion in suspects}
        self._matching: dict[tuple[object, ...], tuple[str, ...]] = {}
        self._supporting: dict[tuple[tuple[str, ...], str], bool] = {}
        self._takers: dict[str, frozenset[str]] = {}

    @classmethod
    def of(cls, asked: PlanningInput, desired: RegistrySnapshot, suspects: Iterable[PoolSuspicion] = ()) -> Fleet:
        """Return the fleet of one request, which may evict what git says should run."""
        running = [manifest for manifest in desired.manifests.values() if manifest.wanted_replicas]
        return cls(
            desired.workers,
            asked.devices,
            Occupancy(desired.workers, asked.slots),
            cordons=asked.cordons,
            failures=asked.failures,
            facts=asked.facts,
            now=asked.now,
            priorities={m.id: m.deployment_config.priority for m in running},
            paused=[hold.deployment_id for hold in asked.holds if hold.kind == "paused"],
            suspects=suspects,
        )

    def matching(self, manifest: DeploymentManifest) -> tuple[str, ...]:
        """Return the devices that the selector and the region match, by id."""
        config = manifest.deployment_config
        selector = (config.region, *sorted(config.worker_selector.items()))
        if selector not in self._matching:  # most deployments of a fleet share a few selectors
            self._matching[selector] = tuple(
                sorted(w for w, worker in self.workers.items() if selects(manifest, worker))
            )
        return self._matching[selector]

    def supports(self, worker_id: str, schema_version: str) -> bool:
        """Tell whether the device can read a card of that version (PRD §3.4)."""
        key = (self.workers[worker_id].supported_schema_versions, schema_version)
        if key not in self._supporting:
            self._supporting[key] = matrix().runs(*key)
        return self._supporting[key]

    def takers(self, schema_version: str) -> frozenset[str]:
        """Return the devices that take something new with a card of that version, if they have the room."""
        if schema_version not in self._takers:  # asked for every deployment, and the same all the time
            self._takers[schema_version] = frozenset(
                w for w in self.workers if self.absence(w) is None and self.supports(w, schema_version)
            )
        return self._takers[schema_version]

    @cached_property
    def reputes(self) -> dict[str, Repute]:
        """By worker id."""
        return {
            worker_id: Repute(
                _TRUST[self.health(worker_id)], len(self._failures.get(worker_id, ())), worker.labels.zone or ""
            )
            for worker_id, worker in self.workers.items()
        }

    def health(self, worker_id: str) -> Health:
        record = self._records.get(worker_id)
        return Health.UNKNOWN if record is None else record.health

    def suspicion(self, worker_id: str) -> PoolSuspicion | None:
        """Return why nothing is evicted on the device: too much of its pool is silent at once."""
        return self._suspects.get(self.workers[worker_id].labels.pool)

    def draining(self, worker_id: str) -> str | None:
        """Return why everything on the device is moved away: an operator or the device itself has said so."""
        cordon = self._cordons.get(worker_id)
        if cordon is not None and cordon.kind == "drain":
            return f"the device is being drained{_told_by(cordon)}"
        record = self._records.get(worker_id)
        return "the device drains itself" if record is not None and record.draining else None

    def leaving(self, worker_id: str) -> bool:
        """Tell whether the device has said goodbye: its host is being stopped."""
        record = self._records.get(worker_id)
        return record is not None and record.status is DeviceStatus.LEAVING

    def absence(self, worker_id: str) -> str | None:
        """Return why the device takes nothing new; what it holds is not judged by it."""
        record = self._records.get(worker_id)
        if record is not None and record.health is Health.FAILED:
            return "the device has failed: nothing was heard of it"
        if self.leaving(worker_id):
            return "the device is leaving"
        cordon = self._cordons.get(worker_id)
        if cordon is not None and cordon.kind == "cordon":
            return f"the device is cordoned{_told_by(cordon)}"
        if record is not None and record.health is Health.RECOVERING:
            return "the device has come back: it takes nothing new until its next report"
        return self.draining(worker_id) or self._flapping(worker_id)

    def _flapping(self, worker_id: str) -> str | None:
        times = self._failures.get(worker_id)
        if not times or self.now is None:
            return None
        until = max(times) + min(_FLAP_BASE * 2 ** len(times), _FLAP_CAP)
        if self.now >= until:
            return None
        often = "once" if len(times) == 1 else f"{len(times)} times"
        return f"the device has failed {often} within a day: it takes nothing new until {until:%H:%M:%S} UTC"


def _told_by(cordon: Cordon) -> str:
    said = ", ".join(part for part in (cordon.by, cordon.reason) if part)
    return f" ({said})" if said else ""
