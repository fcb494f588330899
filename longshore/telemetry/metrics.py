"""Every metric of the broker: its name as Prometheus reads it, and the counters themselves.

The names are PRD §9.1's with underscores, as Prometheus has them. A share is left to whoever reads: PRD's
`broker.registry.validation.success_rate` is the rate of `accepted` by that of all `broker_registry_validations_total`,
over any window and over all brokers.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram


class Metric(NamedTuple):
    name: str
    kind: Literal["counter", "histogram"]
    labels: tuple[str, ...]
    about: str
    prd: str = ""
    """Its name in PRD §9.1."""


WEBHOOK_DELIVERIES = Metric(
    "broker_webhook_deliveries_total",
    "counter",
    ("outcome",),
    "Deliveries of the git webhook: `accepted`, or the code that the sender was answered with.",
)
VALIDATIONS = Metric(
    "broker_registry_validations_total",
    "counter",
    ("outcome",),
    "Registry commits that were validated: `accepted` or `rejected`.",
    "broker.registry.validation.success_rate",
)
VALIDATION_DURATION = Metric(
    "broker_registry_validation_duration_seconds",
    "histogram",
    (),
    "Time that one validation took.",
    "broker.registry.validation.duration_seconds",
)
COMPATIBILITY_VIOLATIONS = Metric(
    "broker_schema_compatibility_violations_total",
    "counter",
    (),
    "Deployments whose card has a schemaVersion that no matching worker supports.",
    "broker.schema.compatibility_violations_total",
)
RECONCILE_DURATION = Metric(
    "broker_reconcile_seconds",
    "histogram",
    (),
    "Time from the first sign that the fleet is not as it should be to the start of the workflow that mends it.",
)

BROKER_METRICS = (
    WEBHOOK_DELIVERIES,
    VALIDATIONS,
    VALIDATION_DURATION,
    COMPATIBILITY_VIOLATIONS,
    RECONCILE_DURATION,
)

# Around the PRD's alert threshold of 10 s, down to a commit that changes one file.
_VALIDATION_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

# Around the bound of 10 s (PRD §5.5), from the pause in which signs are gathered.
_RECONCILE_SECONDS = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)


class BrokerMetrics:
    """The metrics of one broker, counted from its start."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._deliveries = self._counter(WEBHOOK_DELIVERIES)
        self._validations = self._counter(VALIDATIONS)
        self._violations = self._counter(COMPATIBILITY_VIOLATIONS)
        self._duration = Histogram(
            VALIDATION_DURATION.name, VALIDATION_DURATION.about, buckets=_VALIDATION_SECONDS, registry=self.registry
        )
        self._reconcile = Histogram(
            RECONCILE_DURATION.name, RECONCILE_DURATION.about, buckets=_RECONCILE_SECONDS, registry=self.registry
        )
        for outcome in ("accepted", "rejected"):
            self._validations.labels(outcome)  # a rate needs the zero that it begins with

    def delivered(self, outcome: str) -> None:
        """Count one delivery of the webhook: `accepted`, or a failure code."""
        self._deliveries.labels(outcome).inc()

    def validated(self, *, accepted: bool, seconds: float, incompatible: int) -> None:
        """Count one validation, how long it took, and the deployments whose schemaVersion no worker supports."""
        self._validations.labels("accepted" if accepted else "rejected").inc()
        self._duration.observe(seconds)
        self._violations.inc(incompatible)

    def reconciled(self, seconds: float) -> None:
        """Count one reconciliation, and how long after its first sign it was started."""
        self._reconcile.observe(seconds)

    def _counter(self, metric: Metric) -> Counter:
        return Counter(metric.name, metric.about, metric.labels, registry=self.registry)
