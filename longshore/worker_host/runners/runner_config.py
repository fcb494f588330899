"""What a runner is told: its configuration file and its environment. Pure, but for reading our own environment."""

from __future__ import annotations

import math
import os
from pathlib import Path, PurePosixPath
from typing import Any

from longshore.worker_host.runners.instances import MAX_REQUESTS, Instance, RunPaths
from longshore.xds.listeners import MAX_REQUEST_BYTES

# Libraries take one thread per core of the machine, in every runner, unless they are told what the card reserved.
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

# What passes of our own environment: nothing that could be a secret, and what drivers of GPUs need.
_INHERITED = (
    "PATH",
    "TZ",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
)


def config(instance: Instance, paths: RunPaths, support: Path, lock: int) -> dict[str, Any]:
    """Return the configuration file of a runner that inherits the file descriptor `lock`."""
    card = instance.spec.card
    config_path = card.artifacts.config_path
    return {
        "instance_id": instance.instance_id,
        "deployment_id": instance.deployment_id,
        "generation": instance.generation,
        "version": instance.version,
        "digest": instance.digest,
        "lock_fd": lock,
        "socket": str(paths.socket(instance.instance_id)),
        "last_words": str(paths.last_words(instance.instance_id)),
        "checkout": instance.checkout,
        "support": str(support),
        "artifacts": instance.artifacts,
        "config_file": PurePosixPath(config_path).name if config_path else None,
        "entrypoint": card.code.entrypoint_module,
        "preprocessing": card.preprocessing.model_dump(),
        "postprocessing": card.postprocessing.model_dump(),
        "input_schema": card.interface.input_schema,
        "output_schema": card.interface.output_schema,
        "batch_size": card.interface.batch_size,
        "max_queue": MAX_REQUESTS,
        "max_body": MAX_REQUEST_BYTES,
    }


def environment(instance: Instance, home: Path) -> dict[str, str]:
    """Return the whole environment of a runner."""
    resources = instance.spec.card.resources
    threads = str(max(1, math.ceil(resources.cpu)))
    return {
        "PATH": os.defpath,
        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
        **dict.fromkeys(_THREADS, threads),
        **({} if resources.gpu else {"CUDA_VISIBLE_DEVICES": ""}),
        "HOME": str(home),
        "TMPDIR": str(home),
        "LC_ALL": "C.UTF-8",
    }
