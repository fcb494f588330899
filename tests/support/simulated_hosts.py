"""Many worker hosts in one process: real commands, queue, journal, presence and Temporal worker each.

In memory are what a host acts on: the three stores, the runners and Envoy. They succeed at once, so that what is left
is what the fleet itself costs.

    python simulated_hosts.py STATE_DIR TEMPORAL_ADDRESS CONFIG…
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from device_fakes import Device

from longshore.cli import exits
from longshore.schemas.devices import DeviceStatus
from longshore.telemetry import logs
from longshore.worker_host import worker_config
from longshore.worker_host.agent import Agent
from longshore.worker_host.settings import WorkerHostSettings


async def host(state_dir: Path, temporal: str, config: Path, stop: asyncio.Event) -> None:
    """Be one worker host until `stop`."""
    worker = worker_config.read(config)
    folder = state_dir / worker.worker_id
    folder.mkdir(parents=True)
    settings = WorkerHostSettings(config=config, state_dir=folder, temporal=temporal)
    device = Device(folder, worker, {"temporal": temporal})
    agent = Agent(settings, worker.worker_id, device.host, device.host.presence)
    working = asyncio.create_task(agent.run())
    await stop.wait()
    device.host.reporter.say(DeviceStatus.LEAVING)
    await agent.stop(device.host.commands.stop)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    device.journal.close()


async def run(state_dir: Path, temporal: str, configs: list[Path]) -> None:
    """Be all of them until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with asyncio.TaskGroup() as hosts:
        for config in configs:
            hosts.create_task(host(state_dir, temporal, config, stop))


if __name__ == "__main__":
    logs.configure("simulated-hosts", "WARN")
    asyncio.run(run(Path(sys.argv[1]), sys.argv[2], [Path(argument) for argument in sys.argv[3:]]))
    exits.leave(exits.OK)
