"""What a device really uses, and whether that is too much (PRD §6.4). What the cards reserve is `admission`'s."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import psutil

from longshore.schemas.devices import DeviceStatus, HostUsage
from longshore.schemas.workers import Capacity

# PRD §6.4: "typically 80% of max_memory".
DEGRADED_ABOVE = 0.8
HEALTHY_BELOW = 0.75


def status(capacity: Capacity, measured_memory: int, before: DeviceStatus) -> DeviceStatus:
    """Judge by the bytes that the runners really use: above 80 % of the maximum the device is degraded (PRD §6.4).

    Once `before` was degraded it takes less than 75 % to be healthy: each change is told at once, and memory that goes
    up and down by some megabytes must not make a report of every look at it.
    """
    bound = HEALTHY_BELOW if before is DeviceStatus.DEGRADED else DEGRADED_ABOVE
    degraded = measured_memory > bound * capacity.memory_bytes
    return DeviceStatus.DEGRADED if degraded else DeviceStatus.HEALTHY


class CpuWindow:
    """Averages of a counter of busy seconds, in cores.

    They are differences of the kernel's own counter over the window, so they are true averages at any sampling rate.
    (The load average counts what waits for a disk as well, and is damped rather than an average.)
    """

    LONGEST = 300.0
    """Seconds: the 5-minute average of PRD §6.4."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()

    def add(self, at: float, busy: float) -> None:
        """Note that the machine's cores had been busy for `busy` seconds in all at the time `at`."""
        self._samples.append((at, busy))
        # One sample older than the window stays, so that the whole of it is covered.
        while len(self._samples) > 1 and self._samples[1][0] <= at - self.LONGEST:
            self._samples.popleft()

    def average(self, seconds: float) -> float:
        """Return the cores that were busy over the last `seconds`, or over as much of them as is known.

        With 0 it is the time since the sample before the last.
        """
        newest_at, newest_busy = self._samples[-1]
        for at, busy in reversed(self._samples):
            if at < newest_at and (newest_at - at >= seconds or (at, busy) == self._samples[0]):
                return max(newest_busy - busy, 0.0) / (newest_at - at)
        return 0.0


class HostSampler:
    """Reads the machine's memory and CPU. Sample it regularly, every 30 s or faster."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._cpu = CpuWindow()
        self._cpu.add(clock(), _busy_seconds())

    def sample(self) -> HostUsage:
        self._cpu.add(self._clock(), _busy_seconds())
        memory = psutil.virtual_memory()
        return HostUsage(
            memory_total=memory.total,
            memory_used=memory.total - memory.available,
            cpu_now=round(self._cpu.average(0), 2),
            cpu_1m=round(self._cpu.average(60), 2),
            cpu_5m=round(self._cpu.average(CpuWindow.LONGEST), 2),
        )


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    # Waiting for a disk is idle; a guest's time is in `user` already.
    skipped = {"idle", "iowait", "guest", "guest_nice"}
    return float(sum(value for name, value in times._asdict().items() if name not in skipped))
