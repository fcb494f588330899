"""Every setting of the worker host. `cli/settings.py` makes a flag, a variable and a file key of each."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from longshore.schemas.connections import TemporalSettings
from longshore.schemas.failures import Backoff

_Count = Annotated[int, Field(ge=1)]
_HOST_PORT = re.compile(r"[^:\s]+:([0-9]{1,5})")
_LARGEST_PORT = 65535


def _host_and_port(text: str) -> str:
    match = _HOST_PORT.fullmatch(text)
    if match is None or int(match[1]) > _LARGEST_PORT:
        raise ValueError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:8080")
    return text


class WorkerHostSettings(TemporalSettings):
    config: Annotated[Path, Field(description="This device's file of the registry: workers/<id>.yaml.")]
    state_dir: Annotated[Path, Field(description="Folder for journal, caches, logs and sockets; one daemon each.")] = (
        Path("longshore-state")
    )
    listen: Annotated[
        str, AfterValidator(_host_and_port), Field(description="Where Envoy serves inferences, as HOST:PORT.")
    ] = "127.0.0.1:8080"
    handover: Annotated[
        bool, Field(description="Take over from the daemon that runs on this state folder; its models keep serving.")
    ] = False
    drain: Annotated[
        bool, Field(description="On SIGTERM, serve on until the fleet has moved the models elsewhere; then stop.")
    ] = False
    drain_patience: Annotated[
        timedelta, Field(description="Longest wait for that. A second SIGTERM, or SIGINT, ends it at once.")
    ] = timedelta(minutes=10)

    log_level: Annotated[str, Field(description="Least level of the log lines: DEBUG, INFO, WARN, ERROR.")] = "INFO"

    concurrency: Annotated[_Count, Field(description="Loads and reloads carried out at once.")] = 2
    backoff_base: Annotated[timedelta, Field(description="Pause after a command's first failure.")] = timedelta(
        seconds=30
    )
    backoff_factor: Annotated[
        float, Field(ge=1, description="What the pause is multiplied by after each further failure.")
    ] = 2.0
    backoff_cap: Annotated[timedelta, Field(description="Longest pause between two tries of a command.")] = timedelta(
        minutes=5
    )
    backoff_attempts: Annotated[_Count, Field(description="Tries of a command before it counts as failed.")] = 4

    presence_interval: Annotated[timedelta, Field(description="Time between two reports to the broker.")] = timedelta(
        seconds=30
    )
    command_interval: Annotated[timedelta, Field(description="Time between two signs of life of a command.")] = (
        timedelta(seconds=5)
    )
    reconnect_cap: Annotated[timedelta, Field(description="Longest pause between two tries to reach Temporal.")] = (
        timedelta(seconds=30)
    )

    start_timeout: Annotated[timedelta, Field(description="How long a model may take to start.")] = timedelta(
        minutes=10
    )
    drain_timeout: Annotated[timedelta, Field(description="How long running requests may finish.")] = timedelta(
        seconds=60
    )
    ack_timeout: Annotated[timedelta, Field(description="How long Envoy may take to accept a configuration.")] = (
        timedelta(seconds=15)
    )
    restart_base: Annotated[timedelta, Field(description="Pause before a crashed model's second restart.")] = timedelta(
        seconds=1
    )
    restart_cap: Annotated[timedelta, Field(description="Longest pause between two restarts of a model.")] = timedelta(
        minutes=1
    )
    restart_limit: Annotated[_Count, Field(description="Crashes within the window that make a model FAILED.")] = 5
    restart_window: Annotated[timedelta, Field(description="How long a crash counts.")] = timedelta(minutes=10)
    unclaimed_after: Annotated[
        timedelta, Field(description="How long a runner found at start-up may wait for the command that it belongs to.")
    ] = timedelta(minutes=5)

    cache_max_bytes: Annotated[int, Field(ge=0, description="Size at which unused cache entries are removed.")] = (
        20 * 1024**3
    )
    cache_interval: Annotated[timedelta, Field(description="Time between two looks at the cache's size.")] = timedelta(
        minutes=30
    )

    @property
    def backoff(self) -> Backoff:
        """How failures of commands are retried (PRD §8.2)."""
        return Backoff(self.backoff_base, self.backoff_factor, self.backoff_cap, self.backoff_attempts)

    @property
    def restart_backoff(self) -> Backoff:
        """How crashed runners are restarted. Their first restart does not wait."""
        return Backoff(self.restart_base, 2.0, self.restart_cap, self.restart_limit)

    @property
    def listen_address(self) -> tuple[str, int]:
        host, _, port = self.listen.rpartition(":")
        return host, int(port)
