"""What a device says of itself (PRD §6.3) and the little that the fleet remembers of it."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from longshore.schemas.base import Message
from longshore.schemas.failures import Failure
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.slots import Demand


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
    reserved: Demand | None = None
    """What the device holds free for it, by the card of what is loaded or coming."""
    load_seconds: float | None = None
    """How long the last LOAD or RELOAD of what runs took, from command to READY."""
    fetch_seconds: float | None = None
    """How much of that went into bringing its files and packages here."""


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
    draining: bool = False
    """It serves and obeys, and asks for its models to be moved elsewhere. No status: older brokers would refuse it."""
    highest_generation: int = 0
    """The highest that it has seen of any deployment, also of those that it no longer holds."""
    cached: tuple[str, ...] = ()
    """The first 12 hex digits of the sha256 of artifacts on its disk; at most 100, the last used first."""

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
            *(["draining"] if self.draining else []),  # a report that does not say so hashes as it always did
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


class Told(NamedTuple):
    """What a compact record says of one model."""

    state: ModelState
    generation: int
    digest8: str
    """The first 8 hex digits of what runs; `` where nothing does."""
    code: str | None = None
    """Why it is FAILED, or why its last RELOAD did not succeed."""

    def __str__(self) -> str:
        text = f"{self.state}:{self.generation}:{self.digest8}"
        return text if self.code is None else f"{text}:{self.code}"


class DeviceRecord(Message):
    """The compact record that the fleet keeps of a device: whether it is there, and which slots it fills."""

    worker_id: str
    health: Health = Health.UNKNOWN
    status: DeviceStatus | None = None
    boot_id: str | None = None
    slots: dict[str, str] = {}
    """deployment id → `state:generation:digest8[:CODE]`, read by `slot_text`."""
    draining: bool = False
    generation: int = 0
    """The highest that the device has seen of any deployment; 0 from a device that does not say."""
    flags: tuple[str, ...] = ()
    """Failure codes of what is odd about its reports: CLOCK_SKEW, HEARTBEAT_INVALID, DEVICE_ROLLED_BACK …"""


def slot_text(record: DeviceRecord, deployment_id: str) -> Told | None:
    """Return what `record` says of one deployment; None where it says nothing, or what no release of ours wrote."""
    state, _, rest = record.slots.get(deployment_id, "").partition(":")
    generation, _, rest = rest.partition(":")
    digest8, _, code = rest.partition(":")
    if state not in set(ModelState) or not generation.isdecimal():
        return None
    return Told(ModelState(state), int(generation), digest8, code or None)


class DeviceFacts(Message):
    """What only a device's newest report knows, for the plans that need it. By deployment id where not said."""

    last_inference: dict[str, datetime] = {}
    """By the device's clock; a deployment that never answered a request is left out."""
    load_seconds: dict[str, float] = {}
    fetch_seconds: dict[str, float] = {}
    cached: tuple[str, ...] = ()
    """As in the report."""


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
