"""`longshore worker-host`: the daemon of one device."""

from __future__ import annotations

from longshore.cli.settings import run_with_settings
from longshore.worker_host.settings import WorkerHostSettings


@run_with_settings(WorkerHostSettings)
async def main(settings: WorkerHostSettings) -> None:
    """Start the daemon of one device: it runs models and owns the local Envoy."""
    from longshore.telemetry import logs  # noqa: PLC0415 (`--help` needs none of these)
    from longshore.worker_host import daemon, worker_config  # noqa: PLC0415

    worker = worker_config.read(settings.config)
    logs.configure(worker.worker_id, settings.log_level)
    await daemon.run(settings, worker)
