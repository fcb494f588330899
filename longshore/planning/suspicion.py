"""Whether so much of a pool is silent at once that it is not the devices that have failed (FAULTS 85)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from longshore.schemas.devices import DeviceRecord, DeviceStatus, Health
from longshore.schemas.plans import PoolSuspicion
from longshore.schemas.workers import WorkerConfig


def suspicions(
    workers: Mapping[str, WorkerConfig],
    devices: Mapping[str, DeviceRecord],
    failures: Mapping[str, Iterable[datetime]],
    now: datetime | None,
    *,
    share: float,
    window: timedelta,
) -> tuple[PoolSuspicion, ...]:
    """Return the pools of which more than `share` (0 to 1) fell silent within one `window`, and is silent still.

    SUSPECT counts as silent since now: when the first device of a mass event has failed, the others are suspect, and
    nothing has been moved yet. A device that was dead before the window began counts on neither side; so does one
    that was never heard, of whose failure the time is not known, or that had said goodbye: its host was stopped on
    purpose. The suspicion lasts until enough devices are back, or have been removed from git. One silent device alone
    is no mass, also where it is all of its pool.
    """
    if now is None:
        return ()
    heard: defaultdict[str, int] = defaultdict(int)
    silent: defaultdict[str, list[datetime]] = defaultdict(list)
    for worker_id, worker in workers.items():
        record, pool = devices.get(worker_id), worker.labels.pool
        if record is not None and record.status is DeviceStatus.LEAVING:
            continue
        match record.health if record else Health.UNKNOWN:
            case Health.SUSPECT:
                silent[pool].append(now)
            case Health.FAILED:
                silent[pool].extend(sorted(failures.get(worker_id, ()))[-1:])
            case Health.HEALTHY | Health.RECOVERING:
                heard[pool] += 1
            case Health.UNKNOWN:
                pass
    found = (_worst(pool, heard[pool], sorted(times), window) for pool, times in sorted(silent.items()) if times)
    return tuple(one for one in found if one.unhealthy > 1 and one.unhealthy > share * one.alive_before)


def _worst(pool: str, heard: int, times: list[datetime], window: timedelta) -> PoolSuspicion:
    """Return the window with the largest share; `times` says, in order, since when each silent device is silent."""
    windows = (
        PoolSuspicion(
            pool=pool,
            unhealthy=sum(begin <= time <= begin + window for time in times),
            alive_before=heard + sum(time >= begin for time in times),
        )
        for begin in times
    )
    return max(windows, key=lambda one: (one.unhealthy / one.alive_before, one.unhealthy))
