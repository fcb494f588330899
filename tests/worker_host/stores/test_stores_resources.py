"""What a device uses, and when that is too much (PRD §6.4)."""

from __future__ import annotations

import pytest

from longshore.schemas.devices import DeviceStatus
from longshore.schemas.workers import Capacity
from longshore.worker_host.resources import CpuWindow, HostSampler, status

GIB = 1024**3
CAPACITY = Capacity(max_models=1, max_memory="10Gi", max_cpu=1.0)


@pytest.mark.parametrize(
    ("used", "expected"),
    [(0, DeviceStatus.HEALTHY), (8 * GIB, DeviceStatus.HEALTHY), (8 * GIB + 1, DeviceStatus.DEGRADED)],
)
def test_a_device_is_degraded_above_four_fifths_of_its_memory(used, expected):
    """By what its runners really use."""
    assert status(CAPACITY, used, DeviceStatus.HEALTHY) is expected


def test_memory_around_the_bound_does_not_flap():
    """Each change is told to the broker: once degraded, a device is so until it has some room again."""
    looks = [8 * GIB, 8 * GIB + 1, 8 * GIB, 8 * GIB + 1, 7.4 * GIB, 8 * GIB]
    status_ = DeviceStatus.HEALTHY
    seen = [status_ := status(CAPACITY, int(used), status_) for used in looks]
    assert [str(one) for one in seen] == ["healthy", "degraded", "degraded", "degraded", "healthy", "healthy"]


def test_averages_are_over_their_own_windows():
    """Two busy minutes after many idle ones: all of the last minute, two fifths of the last five."""
    window = CpuWindow()
    busy = 0.0
    for second in range(0, 1200, 10):
        window.add(second, busy)
        busy += 10 * 2.0 if second >= 1070 else 0
    assert window.average(0) == pytest.approx(2.0)
    assert window.average(60) == pytest.approx(2.0)
    assert window.average(300) == pytest.approx(2.0 * 120 / 300)


def test_a_young_window_averages_what_it_has():
    """One sample says nothing, two say what was between them."""
    window = CpuWindow()
    window.add(100.0, 50.0)
    assert window.average(60) == 0.0
    window.add(110.0, 55.0)
    assert window.average(300) == pytest.approx(0.5)


def test_the_machine_itself_can_be_read():
    """Facts that can be true."""
    sampler = HostSampler()
    sampler.sample()
    usage = sampler.sample()
    assert 0 < usage.memory_used < usage.memory_total
    assert min(usage.cpu_now, usage.cpu_1m, usage.cpu_5m) >= 0
