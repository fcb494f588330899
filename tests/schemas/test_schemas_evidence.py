"""Which reports of a device are believed, and what is said of the odd ones."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from longshore.schemas import limits
from longshore.schemas.devices import DeviceCapacity, DeviceReport, DeviceStatus, ModelReport
from longshore.schemas.evidence import LARGEST_SKEW, judge
from longshore.schemas.lifecycle import ModelState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CAPACITY = DeviceCapacity(
    max_models=4, max_memory=2**34, used_memory=0, max_cpu=8.0, used_cpu=0.0, max_gpu=0, used_gpu=0, loaded_models=0
)


def report(**changes: Any) -> DeviceReport:
    plain = DeviceReport(
        worker_id="worker-a",
        boot_id="boot-1",
        sequence=5,
        status=DeviceStatus.HEALTHY,
        timestamp=NOW,
        capacity=CAPACITY,
        highest_generation=7,
    )
    return plain.model_copy(update=changes)


def test_an_ordinary_report_is_believed_as_it_is():
    """Nothing is odd about the next report of a boot, nor about the first of all."""
    for previous in (None, report(sequence=4), report(boot_id="boot-0", sequence=99)):
        assert judge(previous, report(), "worker-a", NOW) == (report(), ())


def test_an_older_report_of_the_same_boot_is_no_evidence():
    """FAULTS 86: what is replayed or reordered is told by its number, whatever time it says."""
    late = report(sequence=4, timestamp=NOW + timedelta(seconds=1))
    assert judge(report(), late, "worker-a", NOW) == (None, ("HEARTBEAT_STALE",))


def test_one_report_may_answer_two_questions():
    """A device that holds two questions answers both with the same report."""
    assert judge(report(), report(), "worker-a", NOW).report == report()


def test_a_report_of_another_device_is_no_evidence():
    """What came through this device's queue and bears another's name says nothing of either."""
    assert judge(None, report(worker_id="worker-b"), "worker-a", NOW) == (None, ("WRONG_DEVICE",))


@pytest.mark.parametrize(
    ("impossible", "possible"),
    [
        ({"used_memory": -1}, {"used_memory": 0}),
        ({"max_cpu": math.inf}, {"max_cpu": 0.0}),
        ({"used_cpu": math.nan}, {"used_cpu": 0.0}),
        ({"max_memory": 10**30}, {"max_memory": limits.BYTES}),
        ({"max_gpu": limits.GPU + 1}, {"max_gpu": limits.GPU}),
        ({"used_memory": 10**30}, {"used_memory": 2**53}),
    ],
    ids=str,
)
def test_impossible_numbers_are_clamped(impossible: dict[str, Any], possible: dict[str, Any]):
    """FAULTS 88: the device is heard, its impossible number is not; and what is left survives JSON."""
    judged = judge(None, report(capacity=CAPACITY.model_copy(update=impossible)), "worker-a", NOW)
    assert judged == (report(capacity=CAPACITY.model_copy(update=possible)), ("HEARTBEAT_INVALID",))
    assert judged.report
    assert DeviceReport.model_validate_json(judged.report.model_dump_json()) == judged.report


def test_a_time_without_a_zone_is_taken_for_utc():
    """It could not be compared with anyone else's, and would stop whoever tried."""
    naive = datetime(2025, 12, 31)  # noqa: DTZ001 (that is what is tried)
    model = ModelReport(deployment_id="ten", state=ModelState.READY, generation=1, last_inference=naive)
    judged = judge(None, report(models=(model,)), "worker-a", NOW)
    assert judged.flags == ("HEARTBEAT_INVALID",)
    assert judged.report
    assert judged.report.models[0].last_inference == naive.replace(tzinfo=UTC)


@pytest.mark.parametrize("days", [-1, 1])
def test_a_wrong_clock_is_told_and_changes_nothing(days: int):
    """FAULTS 87: a device a day off is heard like any other."""
    off = report(timestamp=NOW + timedelta(days=days))
    assert judge(None, off, "worker-a", NOW) == (off, ("CLOCK_SKEW",))
    assert judge(None, report(timestamp=NOW + days * LARGEST_SKEW), "worker-a", NOW).flags == ()


def test_a_device_that_has_seen_less_than_before_was_rolled_back():
    """FAULTS 81: a restored journal knows lower generations than the device has reported."""
    back = report(boot_id="boot-2", sequence=1, highest_generation=6)
    assert judge(report(), back, "worker-a", NOW) == (back, ("DEVICE_ROLLED_BACK",))
    assert judge(back, report(boot_id="boot-2", sequence=2, highest_generation=6), "worker-a", NOW).flags == ()
