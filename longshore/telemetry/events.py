"""Every log event that PRD §9.2 names, with its level and the context that it must carry.

`structlog.get_logger().info("model_load_started", deployment_id=…, model_version=…)` is how one is told. Further
context is welcome, missing context is a defect; events of our own need no entry here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Level = Literal["DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"]


class Event(NamedTuple):
    level: Level
    fields: frozenset[str]


def _table(rows: str) -> dict[str, Event]:
    words = (row.split() for row in rows.strip().splitlines())
    return {name: Event(level, frozenset(fields)) for name, level, *fields in words}  # type: ignore[arg-type]


BROKER_EVENTS = _table("""
    registry_commit_detected        INFO   commit_sha author timestamp
    registry_validation_started     INFO   commit_sha
    registry_validation_success     INFO   commit_sha duration_ms
    registry_validation_failed      ERROR  commit_sha validation_errors
    reconciliation_cycle_started    DEBUG  cycle_number
    state_drift_detected            INFO   drift_type deployment_id details
    command_dispatched              INFO   command_type deployment_id worker_id correlation_id
    worker_heartbeat_received       DEBUG  worker_id models_loaded capacity
    worker_marked_suspect           WARN   worker_id last_heartbeat
    worker_marked_failed            ERROR  worker_id last_heartbeat loaded_models
    model_redeployment_triggered    WARN   deployment_id reason target_workers
    schema_compatibility_violation  ERROR  deployment_id schema_version worker_versions
""")

WORKER_EVENTS = _table("""
    command_received                INFO   command_type deployment_id correlation_id
    model_load_started              INFO   deployment_id model_version
    artifact_download_started       DEBUG  deployment_id artifact_path
    artifact_download_completed     DEBUG  deployment_id size_bytes duration_ms
    checksum_validation_success     DEBUG  deployment_id checksum
    checksum_validation_failed      ERROR  deployment_id expected_checksum actual_checksum
    model_initialization_started    DEBUG  deployment_id
    model_validation_started        DEBUG  deployment_id
    model_validation_success        INFO   deployment_id validation_duration_ms
    model_validation_failed         ERROR  deployment_id validation_error
    model_load_success              INFO   deployment_id model_version total_duration_ms
    model_load_failed               ERROR  deployment_id error_type error_message stack_trace
    model_reload_started            INFO   deployment_id old_version new_version
    model_reload_success            INFO   deployment_id new_version total_duration_ms
    model_unload_started            INFO   deployment_id
    model_unload_success            INFO   deployment_id duration_ms
    heartbeat_sent                  DEBUG  worker_id models_count
    heartbeat_failed                WARN   worker_id error
    eviction_triggered              WARN   deployment_id evicted_models reason
""")

EVENTS: dict[str, Event] = BROKER_EVENTS | WORKER_EVENTS


def missing_fields(event: str, context: Mapping[str, Any]) -> frozenset[str]:
    """Return the fields that PRD §9.2 asks of `event` and that `context` lacks; none for an event of our own."""
    return EVENTS[event].fields - context.keys() if event in EVENTS else frozenset()
