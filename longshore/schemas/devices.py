"""What a device says of itself (PRD §6.3) and the little that the fleet remembers of it."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from enum import StrEnum

from longshore.schemas.base import Message
from longshore.schemas.failures import Failure
from longshore.schemas.lifecycle import ModelState


class DeviceStatus(StrEnum):
    """The device's own word (PRD §6.3, and the two goodbyes of DESIGN §3)."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    RESTARTING = "restarting"
    LEAVING = "leaving"


class Health(StrEnum):
    """The broker's judgement, by the age of the last evidence (PRD §5.5)."""

    UNKNOWN = "unknown"
    """Configured, and never heard of."""
    HEALTHY = "healthy"
    SUSPECT = "suspect"
    FAILED = "failed"
    RECOVERING = "recovering"


class RetryState(Message):
    """PRD §8.2 "Retry State Tracking"."""

    attempts: int
    last_attempt: datetime
    next_attempt: datetime | None
    errors: tuple[Failure, ...] = ()


class ModelReport(Message):
    """One model in a report (PRD §6.3, second table). Versions and digests are None while nothing is loaded."""

    deployment_id: str
    state: ModelState
    since: datetime | None = None
    """When the state began, by the device's clock."""
    generation: int
    version: str | None = None
    digest: str | None = None
    incoming_version: str | None = None
    """The version that a LOAD or RELOAD is bringing."""
    progress: float | None = None
    loaded_at: datetime | None = None
    last_inference: datetime | None = None
    request_count: int = 0
    memory_bytes: int = 0
    cpu: float = 0.0
    gpu: int = 0
    error: Failure | None = None
    """Why the model is FAILED; for a READY model why its last RELOAD did not succeed."""
    retry: RetryState | None = None


class DeviceCapacity(Message):
    max_models: int
    max_memory: int
    used_memory: int
    """Bytes reserved by the cards of what is loaded; a RELOAD counts both versions until the old one has gone."""
    max_cpu: float
    used_cpu: float
    max_gpu: int
    used_gpu: int
    loaded_models: int


class HostUsage(Message):
    """What the whole machine is using, ours and others' (PRD §6.4). CPU is in cores, averaged over the time named."""

    memory_total: int
    memory_used: int
    cpu_now: float
    cpu_1m: float
    cpu_5m: float


class BreakerState(StrEnum):
    """PRD §8.3."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class BreakerReport(Message):
    """One circuit breaker in a report (PRD §8.3 "Circuit Breaker Metrics"). The times are None while it is closed."""

    name: str
    state: BreakerState
    failures: int
    """Retriable failures running."""
    opened_at: datetime | None = None
    next_try: datetime | None = None


class DeviceReport(Message):
    """PRD §6.3, first table. `sequence` counts up within one `boot_id`."""

    worker_id: str
    boot_id: str
    sequence: int
    status: DeviceStatus
    timestamp: datetime
    """By the device's clock: for people. Ages are reckoned by whoever receives it."""
    capacity: DeviceCapacity
    models: tuple[ModelReport, ...] = ()
    data_address: str = ""
    """`host:port` of the local Envoy's listener."""
    pythons: tuple[str, ...] = ()
    """The interpreters (`3.11`) that the device has really started."""
    usage: HostUsage | None = None
    breakers: tuple[BreakerReport, ...] = ()

    @property
    def digest(self) -> str:
        """Return a hash of what is material: a change of it is worth telling at once (not counts, nor progress)."""
        material = [
            self.boot_id,
            self.status,
            self.data_address,
            *(
                (m.deployment_id, m.state, m.generation, m.digest, m.incoming_version, m.error and m.error.code)
                for m in self.models
            ),
        ]
        return hashlib.sha256(repr(material).encode()).hexdigest()[:16]


class PresenceRequest(Message):
    """Ask a device for its report: at once when `hold` is false or its digest differs from `seen_digest`."""

    worker_id: str
    seen_digest: str | None
    hold: bool = True


class PresenceIntervals(Message):
    """The tiers of PRD §5.5 (30 s beats, suspect at 60 s, failed at 120 s) and how a failed device is awaited."""

    heartbeat: timedelta = timedelta(seconds=30)
    suspect_after: timedelta = timedelta(seconds=60)
    failed_after: timedelta = timedelta(seconds=120)
    ping_timeout: timedelta = timedelta(seconds=10)
    absent_wait: timedelta = timedelta(hours=1)


class StartDevices(Message):
    """See to it that each of these devices has its DeviceWorkflow."""

    registry: str
    workers: tuple[str, ...]


class DeviceRecord(Message):
    """The compact record that the fleet keeps of a device: whether it is there, and which slots it fills."""

    worker_id: str
    health: Health = Health.UNKNOWN
    status: DeviceStatus | None = None
    boot_id: str | None = None
    slots: dict[str, str] = {}
    """deployment id → `state:generation:digest8`."""


class DeviceInput(Message):
    """Starts, or continues as new, the DeviceWorkflow of one device."""

    worker_id: str
    registry: str
    intervals: PresenceIntervals = PresenceIntervals()
    health: Health = Health.UNKNOWN
    record: DeviceRecord | None = None
    """What the fleet was told last."""
    report: DeviceReport | None = None
    last_evidence: datetime | None = None


class DeviceView(Message):
    """The answer of the DeviceWorkflow's `device` query."""

    worker_id: str
    health: Health
    last_evidence: datetime | None
    report: DeviceReport | None
