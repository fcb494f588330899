"""Metrics have the names that the documentation says."""

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from longshore.telemetry.metrics import BROKER_METRICS, BrokerMetrics


def samples(metrics):
    """What a scrape reads: (name, labels) → value."""
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_what_is_served_is_what_is_documented():
    """Every metric of the table is there with its kind and labels, and no other."""
    metrics = BrokerMetrics()
    metrics.delivered("accepted")
    families = list(text_string_to_metric_families(generate_latest(metrics.registry).decode()))
    served = {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
            family.documentation,
        )
        for family in families
        if not family.name.endswith("_created")
    }
    assert served == {metric.name: (metric.kind, {*metric.labels}, metric.about) for metric in BROKER_METRICS}


def test_a_success_rate_follows():
    """Accepted and rejected are counted apart, from zero on, with the time and the incompatible deployments."""
    metrics = BrokerMetrics()
    before = samples(metrics)
    assert before["broker_registry_validations_total", "rejected"] == 0
    metrics.validated(accepted=True, seconds=0.2, incompatible=0)
    metrics.validated(accepted=False, seconds=11.0, incompatible=3)
    after = samples(metrics)
    assert after["broker_registry_validations_total", "accepted"] == 1
    assert after["broker_registry_validations_total", "rejected"] == 1
    assert after["broker_registry_validation_duration_seconds_bucket", "10.0"] == 1
    assert after["broker_registry_validation_duration_seconds_count",] == 2
    assert after["broker_schema_compatibility_violations_total",] == 3


def test_two_brokers_of_one_process_count_apart():
    """Nothing is global: a test, or `longshore up` beside another, starts from zero."""
    one, other = BrokerMetrics(), BrokerMetrics()
    one.delivered("accepted")
    assert ("broker_webhook_deliveries_total", "accepted") not in samples(other)
