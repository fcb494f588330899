"""`transactions/actual-state.yaml` and its history (PRD §4.4): what a fleet looks like, and when that is news. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from longshore.registry.documents.yaml import dump, parse
from longshore.registry.documents.yaml_gate import OUR_OWN
from longshore.schemas.devices import DeviceCapacity, DeviceView, Health, ModelReport
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.quantities import format_memory
from longshore.schemas.reconciliations import LastApplied
from longshore.schemas.redaction import beginning

STATE_FILE = "transactions/actual-state.yaml"
HISTORY = "transactions/history"

# They change with every beat or request: committing them would be 2,880 commits a day (FAULTS 51).
_IMMATERIAL = re.compile(rb"#|generation:|\s+(?:- )?(?:last_heartbeat|last_inference|request_count|progress):")

# A line for people; the error file has the rest.
_LONGEST_ERROR = 500

# An id of digits only is an id, too.
_SCHEMA: Mapping[str, Any] = {"properties": {"commit": {"type": "string"}}}
_COMMIT_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")

_NOTHING_APPLIED = LastApplied(sha=None)


@dataclass(frozen=True)
class FleetState:
    devices: Sequence[DeviceView]
    applied: LastApplied = _NOTHING_APPLIED
    """The ledger's. A new one that has applied nothing yet knows less than the file, which keeps what it says."""


def render_state(fleet: FleetState, now: datetime) -> bytes:
    """Return the content of actual-state.yaml, workers and models in order of their ids.

    Beyond PRD §4.4 it begins with the applied commit and the ledger's generation: a lost ledger is made anew from them.
    """
    applied = fleet.applied
    top = {"commit": applied.sha, "generation": applied.generation} if applied.sha is not None else {}
    workers = [_worker(device) for device in sorted(fleet.devices, key=lambda device: device.worker_id)]
    header = f"This file is managed by the broker - DO NOT EDIT MANUALLY\nLast updated: {timestamp(now)}"
    if not workers:
        return dump({**top, "workers": []}, header=header)
    beginning = dump({**top, "workers": None}, header=header)
    return b"".join([beginning, *(_entry(json.dumps(worker)) for worker in workers)])


def state_files(fleet: FleetState, now: datetime, current: bytes | None, paths: Collection[str]) -> dict[str, bytes]:
    """Return the state and its snapshot as files to write; none where `current` differs in nothing material.

    `paths` are the files that there are: a second change within one second gets a name of its own.
    """
    if current is None and not fleet.devices:
        return {}  # a registry that has only just begun
    if fleet.applied.sha is None and current is not None:
        fleet = FleetState(fleet.devices, last_applied(current))
    state = render_state(fleet, now)
    if current is not None and material(current) == material(state):
        return {}
    return {STATE_FILE: state, _free_name(now, paths): state}


def last_applied(state: bytes) -> LastApplied:
    """Return what a state file says of the ledger. Without a commit where it says none, or cannot be read."""
    document = parse(state, _SCHEMA, OUR_OWN)
    fields = document.value if not document.faults and isinstance(document.value, dict) else {}
    sha, generation = fields.get("commit"), fields.get("generation")
    if not isinstance(sha, str) or _COMMIT_ID.fullmatch(sha) is None:
        return _NOTHING_APPLIED
    known = isinstance(generation, int) and not isinstance(generation, bool) and generation > 0
    return LastApplied(sha=sha, generation=generation if known else 0)


def material(state: bytes) -> list[bytes]:
    """Return the lines of a state file that count as a change: not times of beats and requests, counters, progress.

    The applied commit counts, also where it moves nothing: else a lost ledger would go back to one before it. The
    generation does not: whoever rebuilds from it leaps ahead. It is the text that is compared, as parsing that of 50
    devices takes half a second: what somebody has written otherwise is written anew.
    """
    return [line for line in state.splitlines() if _IMMATERIAL.match(line) is None]


def timestamp(time: datetime) -> str:
    """Return `time` as PRD §4.4 writes it: `2025-10-28T10:45:00Z`."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def file_time(time: datetime) -> str:
    """Return `time` as it begins a file's name (PRD §2.3): `2025-10-28T10-45-00`."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H-%M-%S")


@lru_cache(maxsize=2000)
def _entry(worker: str) -> bytes:
    """Return the lines of one worker, given as JSON. Most are as they were before; all of 50 take 0.3 s."""
    return dump({"workers": [json.loads(worker)]}).split(b"\n", 1)[1]


def _free_name(now: datetime, paths: Collection[str]) -> str:
    name, number = f"{HISTORY}/{file_time(now)}-state.yaml", 1
    while name in paths:
        number += 1
        name = f"{HISTORY}/{file_time(now)}-{number}-state.yaml"
    return name


def _worker(device: DeviceView) -> dict[str, Any]:
    worker = {"worker_id": device.worker_id, "status": worker_status(device)}
    if device.last_evidence is not None:
        worker["last_heartbeat"] = timestamp(device.last_evidence)
    if device.report is None:
        return worker
    models = sorted(device.report.models, key=lambda model: model.deployment_id)
    return {**worker, "capacity": _capacity(device.report.capacity), "models": [_model(model) for model in models]}


def worker_status(device: DeviceView) -> str:
    """Return the broker's judgement where it is a worry, else the device's own word."""
    if device.health is Health.HEALTHY and device.report is not None:
        return str(device.report.status)
    return str(device.health)


def _capacity(capacity: DeviceCapacity) -> dict[str, Any]:
    return {
        "used_memory": format_memory(capacity.used_memory),
        "used_cpu": capacity.used_cpu,
        "loaded_models": capacity.loaded_models,
    }


def _model(model: ModelReport) -> dict[str, Any]:
    """Return the fields that PRD §4.4 shows for a model in this state; what is not known is left out."""
    fields: dict[str, Any] = {
        "deployment_id": model.deployment_id,
        "status": str(model.state),
        "model_version": model.version or model.incoming_version,
    }
    if model.state is ModelState.FAILED:
        fields |= {
            "error": model.error and beginning(model.error.message, _LONGEST_ERROR),
            "error_code": model.error and model.error.code,
            "failed_at": model.since,
            "retry_count": max(0, model.retry.attempts - 1) if model.retry else 0,
        }
    elif model.state is ModelState.LOADING:
        fields |= {"loading_started": model.since, "progress": model.progress}
    else:
        if model.state is ModelState.RELOADING:
            fields |= {"incoming_version": model.incoming_version, "progress": model.progress}
        fields |= {
            "loaded_at": model.loaded_at,
            "last_inference": model.last_inference,
            "request_count": model.request_count,
            "last_reload_error": model.error
            and f"{model.error.code}: {beginning(model.error.message, _LONGEST_ERROR)}",
        }
    return {
        name: timestamp(value) if isinstance(value, datetime) else value
        for name, value in fields.items()
        if value is not None
    }
