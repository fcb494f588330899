"""`longshore up`."""

from __future__ import annotations

from longshore.broker.app import serve_with_temporal
from longshore.broker.settings import UpSettings
from longshore.cli.settings import run_with_settings
from longshore.telemetry import logs


@run_with_settings(UpSettings)
async def main(settings: UpSettings) -> None:
    """Start an embedded Temporal server and a broker for one registry."""
    logs.configure("broker", settings.log_level)
    await serve_with_temporal(settings)
