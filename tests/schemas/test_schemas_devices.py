"""What the fleet reads of a device's compact record, and what of a report is worth telling."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from longshore.schemas.devices import DeviceCapacity, DeviceRecord, DeviceReport, DeviceStatus, Told, slot_text
from longshore.schemas.lifecycle import ModelState

CAPACITY = DeviceCapacity(
    max_models=4, max_memory=1, used_memory=0, max_cpu=1.0, used_cpu=0.0, max_gpu=0, used_gpu=0, loaded_models=0
)
REPORT = DeviceReport(
    worker_id="worker-a",
    boot_id="boot",
    sequence=1,
    status=DeviceStatus.HEALTHY,
    timestamp=datetime(2026, 1, 1, tzinfo=UTC),
    capacity=CAPACITY,
)


@pytest.mark.parametrize(
    "told",
    [
        Told(ModelState.READY, 3, "abcdef12"),
        Told(ModelState.READY, 4, "abcdef12", "LOAD_TIMEOUT"),
        Told(ModelState.FAILED, 5, "", "RUNNER_OOM"),
    ],
)
def test_the_text_of_a_slot_reads_back(told):
    """A record's text says the same when it is read as when it was written."""
    record = DeviceRecord(worker_id="worker-a", slots={"fraud": str(told)})
    assert slot_text(record, "fraud") == told


@pytest.mark.parametrize("text", ["", "ready", "ready:x:abcdef12", "asleep:3:abcdef12"])
def test_a_text_that_nobody_of_us_wrote_says_nothing(text):
    """What cannot be read is taken as silence, and raises nothing within a workflow."""
    assert slot_text(DeviceRecord(worker_id="worker-a", slots={"fraud": text}), "fraud") is None


def test_a_deployment_that_is_not_mentioned_says_nothing():
    """Silence about a deployment is told from a text about it."""
    assert slot_text(DeviceRecord(worker_id="worker-a"), "fraud") is None


def test_draining_is_told_at_once_and_changes_no_other_digest():
    """A device that begins to drain is heard at once; one of the release before hashes its reports alike."""
    assert REPORT.model_copy(update={"draining": True}).digest != REPORT.digest
    assert REPORT.digest == "baa4b280c8d4d2b7"
    assert REPORT.model_copy(update={"highest_generation": 9, "cached": ("0123456789ab",)}).digest == REPORT.digest
