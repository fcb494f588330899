"""Is a device's report to be believed, and what is odd about it? Pure (FAULTS 81, 86 to 88)."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from longshore.schemas import limits
from longshore.schemas.devices import DeviceReport

# A device's clock that is further off than this misleads people; nothing is decided by it (ages are the receiver's).
LARGEST_SKEW = timedelta(minutes=5)

# The largest whole number that every reader of JSON holds exactly.
_LARGEST = 2**53

# What no worker configuration may say, a report's capacity does not either.
_CAPACITY = {
    "max_models": limits.MODELS,
    "max_memory": limits.BYTES,
    "max_cpu": float(limits.CPU),
    "max_gpu": limits.GPU,
}


class Judged(NamedTuple):
    report: DeviceReport | None
    """What is believed of it; None where it is no evidence at all."""
    flags: tuple[str, ...] = ()
    """Failure codes of what is odd about it, sorted."""


def judge(previous: DeviceReport | None, report: DeviceReport, worker_id: str, now: datetime) -> Judged:
    """Judge a report of `worker_id` that arrived at `now`, after `previous`.

    - WRONG_DEVICE: another device's; ignored.
    - HEARTBEAT_STALE: older than `previous` by its number within one boot; ignored. An equal number is the same report:
      a device answers two questions at once with it.
    - HEARTBEAT_INVALID: numbers that cannot be (negative, infinite, beyond any configuration) are clamped, and a time
      without a zone is taken for UTC. Plans reckon with the registry's capacity, never with the reported one.
    - DEVICE_ROLLED_BACK: it has seen less than before: restored from a backup, or its state folder is gone.
    - CLOCK_SKEW: its clock differs from ours.
    """
    if report.worker_id != worker_id:
        return Judged(None, ("WRONG_DEVICE",))
    if previous and previous.boot_id == report.boot_id and report.sequence < previous.sequence:
        return Judged(None, ("HEARTBEAT_STALE",))
    possible = _possible(report)
    flags = {
        "HEARTBEAT_INVALID": possible is not report,
        "DEVICE_ROLLED_BACK": previous is not None and possible.highest_generation < previous.highest_generation,
        "CLOCK_SKEW": abs(now - possible.timestamp) > LARGEST_SKEW,
    }
    return Judged(possible, tuple(sorted(code for code, holds in flags.items() if holds)))


def _possible(report: DeviceReport) -> DeviceReport:
    """Return the report itself, or a copy with every impossible value replaced."""
    told = report.model_dump()
    possible = _clamped(told)
    capacity = possible["capacity"]
    possible["capacity"] = capacity | {name: min(capacity[name], most) for name, most in _CAPACITY.items()}
    return report if possible == told else DeviceReport.model_validate(possible)


def _clamped(value: Any) -> Any:
    match value:
        case bool():
            return value
        case int() | float():
            # Infinity and NaN would be lost on the way: JSON has neither.
            return min(max(value, type(value)(0)), type(value)(_LARGEST)) if math.isfinite(value) else 0.0
        case datetime(tzinfo=None):
            return value.replace(tzinfo=UTC)
        case dict():
            return {key: _clamped(child) for key, child in value.items()}
        case tuple() | list():
            return tuple(_clamped(child) for child in value)
    return value
