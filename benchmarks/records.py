"""How far git lags behind the fleet, and how soon a failure is mended: `python3 dev.py bench records`.

Devices that only report, a real server and a real git repository. Devices change, four in a second, and for each change
it is noted when a commit first shows it. Then models fail one after the other, and it is noted when a device is first
commanded to take one over. Goals: the state at most 5 s behind (p95) at one commit a second, and a failure reconciled
in less than 10 s (p95, PRD §12.2).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import quantiles
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests" / "planning"))

from fleets import Wanted, registry, worker
from repositories import Registry
from workflow_world import REGISTRY, World, eventually, real_server, world

from longshore.activities.records import RecordActivities
from longshore.broker.recorder import RegistryRecorder
from longshore.broker.registry_service import RegistryService
from longshore.broker.settings import BrokerSettings
from longshore.registry.repositories.git import Git
from longshore.schemas.devices import DeviceStatus
from longshore.schemas.failures import Failure
from longshore.schemas.lifecycle import ModelState

STATE = "main:transactions/actual-state.yaml"
LOOK_SECONDS = 0.05


class Reader:
    """Reads the state in git again and again, and notes when each device's status was first seen."""

    def __init__(self, bare: Path) -> None:
        self._bare = bare
        self.seen: dict[tuple[str, str], float] = {}
        self.commits: list[float] = []

    async def run(self) -> None:
        head = ""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = time.monotonic()
            newest = await asyncio.to_thread(self._git, "rev-parse", "main")
            if newest == head:
                continue
            if head:
                self.commits.append(now)
            head = newest
            name = ""
            for line in (await asyncio.to_thread(self._git, "show", STATE)).splitlines():
                key, _, value = line.strip(" -").partition(": ")
                if key == "worker_id":
                    name = value
                elif key == "status" and name:
                    self.seen[name, value] = now
                    name = ""  # what follows are its models

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self._bare, capture_output=True, text=True, check=False)
        return done.stdout.strip()


async def measure(hosts: int, changes: int, failures: int) -> dict[str, Any]:
    """Return the figures."""
    names = [f"worker-{n:02}" for n in range(hosts)]
    workers = tuple(worker(name) for name in names)
    wanted = [Wanted(f"model-{n:02}", replicas=2) for n in range(hosts)]
    with tempfile.TemporaryDirectory() as folder:
        repository = Registry(Path(folder))
        repository.push("Begin")
        settings = BrokerSettings(registry=repository.url, name=REGISTRY, state_dir=Path(folder) / "broker")
        async with real_server() as client, world(client, reconcile_pause=settings.reconcile_pause) as around:
            git = Git(settings.state_dir / "git", settings)
            service = RegistryService(git, settings.registry, settings.branch)
            recorder = RegistryRecorder(git, around.entities, service, settings)
            await around.start_broker(keep_records=RecordActivities(recorder).keep_records)
            for name in names:
                await around.device(name)
            await around.result(around.registry.push(registry(workers, *wanted)))
            await around.settled()
            reader = Reader(repository.bare)
            reading = asyncio.create_task(reader.run())
            behind = await _behind(around, reader, names, changes)
            mended = [await _mended(around, names, n) for n in range(failures)]
            reading.cancel()
    gaps = [later - earlier for earlier, later in zip(reader.commits, reader.commits[1:], strict=False)]
    return {
        "hosts": hosts,
        "changes": len(behind),
        "state_behind_seconds": _spread(behind),
        "commits": len(reader.commits),
        "least_seconds_between_commits": round(min(gaps, default=0.0), 2),
        "failures": len(mended),
        "reconciled_seconds": _spread(mended),
    }


async def _behind(around: World, reader: Reader, names: list[str], changes: int) -> list[float]:
    """Let devices change, four in a second, and return how long each change took to stand in git."""
    found = []
    for number in range(changes):
        # One after the other: what changes back at once never stands in git.
        found.append(asyncio.create_task(_change(around, reader, names[number % len(names)])))
        await asyncio.sleep(0.25)
    return await asyncio.gather(*found)


async def _change(around: World, reader: Reader, name: str) -> float:
    """Let a device say another status; return how long it takes to stand in git."""
    device = around.devices[name]
    degraded = device.status is DeviceStatus.DEGRADED
    device.status = DeviceStatus.HEALTHY if degraded else DeviceStatus.DEGRADED
    key, since = (name, device.status.value), time.monotonic()
    await device.say_something()

    async def seen() -> float | None:
        at = reader.seen.get(key, 0.0)
        return at if at > since else None

    return await eventually(seen, f"{name} stands in git") - since


async def _mended(around: World, names: list[str], number: int) -> float:
    """Let one model fail for good on its device; return how long it takes until another device is commanded."""
    name = f"model-{number:02}"
    device = next(around.devices[one] for one in names if name in around.devices[one].models)
    before = _commands(around, name)
    failure = Failure(code="RUNNER_OOM", message="killed")
    device.models[name] = device.models[name].model_copy(update={"state": ModelState.FAILED, "error": failure})
    since = time.monotonic()
    await device.say_something()

    async def commanded() -> bool:
        return _commands(around, name) > before

    await eventually(commanded, f"{name} goes elsewhere")
    return time.monotonic() - since


def _commands(around: World, deployment_id: str) -> int:
    told = (command for device in around.devices.values() for command in device.commands)
    return sum(command.deployment_id == deployment_id for command in told)


def _spread(seconds: list[float]) -> dict[str, float]:
    marks = quantiles(seconds, n=20)
    return {"p50": round(marks[9], 2), "p95": round(marks[18], 2), "max": round(max(seconds), 2)}


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--failures", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = asyncio.run(measure(arguments.hosts, arguments.changes, arguments.failures))
    text = json.dumps(figures, indent=2)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
