"""`longshore broker`."""

from __future__ import annotations

from longshore.broker.app import serve
from longshore.broker.settings import BrokerSettings
from longshore.cli.settings import run_with_settings
from longshore.telemetry import logs


@run_with_settings(BrokerSettings)
async def main(settings: BrokerSettings) -> None:
    """Start a broker alone, against any Temporal cluster."""
    logs.configure("broker", settings.log_level)
    await serve(settings)
