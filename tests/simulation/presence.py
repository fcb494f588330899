"""What the DeviceWorkflow does, on virtual time: it judges one device by the age of the last evidence (PRD §5.5)."""

from __future__ import annotations

from collections.abc import Callable

from longshore.schemas.devices import DeviceRecord, DeviceReport, Health, Told
from longshore.schemas.evidence import judge
from tests.simulation.clock import Clock
from tests.simulation.devices import Device

HEARTBEAT, SUSPECT_AFTER, FAILED_AFTER, PING = 30.0, 60.0, 120.0, 10.0

# Seconds that one way of a device's news takes at most; there are two, and the ledger doubts for ten.
LATEST_NEWS = 4.0

Tell = Callable[[DeviceRecord, Callable[[bool], None]], None]


class Presence:
    def __init__(self, device: Device, clock: Clock, tell: Tell) -> None:
        """`tell` brings a record to the fleet, and says whether there was one."""
        self.health = Health.UNKNOWN
        self.report: DeviceReport | None = None
        self._device = device
        self._clock = clock
        self._tell = tell
        self._evidence = 0.0
        self._flags: tuple[str, ...] = ()
        self._told: DeviceRecord | None = None
        self._telling = False
        self._asked = False
        """Whether a report is on its way: there is never more than one."""

    def changed(self) -> None:
        """Hear that the device has something to say; it says it when it can."""
        if self._device.reachable and not self._asked:
            self._asked = True
            self._clock.soon(self._arrives, self._device.report(), latest=LATEST_NEWS)

    def silent(self) -> None:
        """Hear that the device has fallen silent: nobody notices before its next heartbeat is due."""
        if self.health is Health.UNKNOWN:
            return
        self._evidence = max(self._evidence, self._clock.seconds - self._clock.chance.uniform(0, HEARTBEAT))
        for age in (SUSPECT_AFTER, FAILED_AFTER):
            due = self._evidence + age + self._clock.chance.uniform(0.1, PING)
            self._clock.after(due - self._clock.seconds, self._look)

    def begin_anew(self) -> None:
        """Lose all that was known of the device: its workflow is another run."""
        self.health, self.report, self._told, self._flags, self._evidence = Health.UNKNOWN, None, None, (), 0.0
        self._clock.soon(self.changed)

    def record(self) -> DeviceRecord:
        report = self.report
        if report is None:
            return DeviceRecord(worker_id=self._device.worker_id, health=self.health, flags=self._flags)
        return DeviceRecord(
            worker_id=self._device.worker_id,
            health=self.health,
            status=report.status,
            boot_id=report.boot_id,
            slots={
                m.deployment_id: str(Told(m.state, m.generation, (m.digest or "")[:8], m.error and m.error.code))
                for m in report.models
            },
            draining=report.draining,
            generation=report.highest_generation,
            flags=self._flags,
        )

    def _arrives(self, report: DeviceReport) -> None:
        self._asked = False
        judged = judge(self.report, report, self._device.worker_id, self._clock.now)
        self._flags = judged.flags
        if judged.report is not None:
            self.report = judged.report
            self._evidence = self._clock.seconds
            self._judge(Health.RECOVERING if self.health is Health.FAILED else Health.HEALTHY)
        self._tell_fleet()
        if not self._device.reachable:
            self.silent()
        elif self._device.report().digest != report.digest:
            self.changed()
        elif self.health is Health.RECOVERING or judged.report is None:
            self._clock.after(self._clock.chance.uniform(1, HEARTBEAT), self.changed)

    def _look(self) -> None:
        age = self._clock.seconds - self._evidence
        if self._device.reachable or age < SUSPECT_AFTER:
            return
        self._judge(Health.FAILED if age >= FAILED_AFTER else Health.SUSPECT)
        self._tell_fleet()

    def _judge(self, health: Health) -> None:
        if health is not self.health:
            self._clock.tell(self._device.worker_id, f"is {health}")
        self.health = health

    def _tell_fleet(self) -> None:
        """Tell the fleet what has changed, one letter after the other; a fleet that is not there is told later."""
        record = self.record()
        if self._telling or record == self._told:
            return
        self._telling = True

        def delivered(arrived: bool) -> None:  # noqa: FBT001 (its only argument)
            self._telling = False
            if arrived:
                self._told = record
                self._tell_fleet()
            else:
                self._clock.after(HEARTBEAT, self._tell_fleet)

        self._tell(record, delivered)
