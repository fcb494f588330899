"""This device's own file of the registry, read from the local disk (PRD §3.3)."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from longshore.schemas.failures import LongshoreError
from longshore.schemas.workers import WorkerConfig


def read(path: Path) -> WorkerConfig:
    """Return the configuration. Raises LongshoreError WORKER_CONFIG_INVALID with every fault of it."""
    try:
        document = YAML(typ="safe", pure=True).load(path.read_text())
        return WorkerConfig.model_validate_json(json.dumps(document))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise LongshoreError("WORKER_CONFIG_INVALID", f"{path}: {faults}") from error
    except OSError as error:
        raise LongshoreError("WORKER_CONFIG_INVALID", f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, YAMLError, TypeError) as error:
        raise LongshoreError("WORKER_CONFIG_INVALID", f"{path}: {error}") from error
