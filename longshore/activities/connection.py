"""The way to Temporal that all our processes take: its own configuration, our settings on top, our payloads."""

from __future__ import annotations

import logging
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.envconfig import ClientConfigProfile
from temporalio.runtime import LogForwardingConfig, LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.service import RPCError

from longshore.schemas.connections import TemporalSettings
from longshore.schemas.failures import LongshoreError


async def connect(settings: TemporalSettings) -> Client:
    """Return a client of the Temporal server. Raises LongshoreError TEMPORAL_UNAVAILABLE."""
    options = ClientConfigProfile.load(profile=settings.temporal_profile).to_client_connect_config()
    options["target_host"] = address = settings.temporal or options.get("target_host") or "localhost:7233"
    options["namespace"] = settings.namespace or options.get("namespace") or "default"
    try:
        return await Client.connect(**options, data_converter=pydantic_data_converter, runtime=_runtime())
    except (RuntimeError, RPCError, OSError) as error:  # RuntimeError is how the SDK says "connection refused"
        reason = _reason(str(error))
        raise LongshoreError("TEMPORAL_UNAVAILABLE", f"No Temporal server at {address}: {reason}") from error


def _reason(text: str) -> str:
    """Return what an operator can use of the SDK's words, which quote the whole chain of Rust's errors."""
    causes = re.findall(r'(?:message|error): "([^"]+)"', text)
    return causes[-1] if causes else text.split("\n", maxsplit=1)[0]


@cache
def build_id() -> str:
    """Return what this release calls itself to the server.

    Left to itself the SDK hashes all loaded code for it, which held up every start by 1.1 s (measured).
    """
    try:
        return f"longshore-{version('longshore')}"
    except PackageNotFoundError:  # a checkout that is not installed
        return "longshore"


@cache
def _runtime() -> Runtime:
    """Return the SDK's runtime of this process, which hands its log lines to `logging`: ours stay one JSON a line."""
    forwarding = LogForwardingConfig(logger=logging.getLogger("temporalio.core"), append_target_to_name=False)
    lines = LoggingConfig(TelemetryFilter(core_level="WARN", other_level="ERROR"), forwarding=forwarding)
    return Runtime(telemetry=TelemetryConfig(logging=lines))
