"""The outside world of a worker host, in memory: held to the Protocols of `worker_host.parts`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from longshore.schemas.cards import Artifacts, ModelCard, Runtime
from longshore.schemas.commands import (
    CommandProgress,
    LoadCommand,
    ReloadCommand,
    UnloadCommand,
    UnloadReason,
)
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.failures import Failure, LongshoreError
from longshore.schemas.workers import WorkerConfig
from longshore.worker_host.commands.bringing_up import Stores
from longshore.worker_host.commands.parts import Hook
from longshore.worker_host.host import Outside, WorkerHost
from longshore.worker_host.journal import Journal
from longshore.worker_host.runners.instances import Instance, RunPaths
from longshore.worker_host.settings import WorkerHostSettings
from longshore.xds.routing import Route, RoutingTable

WORKER_ID = "worker-test"

CARD = {
    "schemaVersion": "3.0.0",
    "metadata": {"name": "echo", "version": "1.0.0", "description": "Says what it hears.", "owner": "ml@acme.com"},
    "runtime": {"framework": "custom", "framework_version": "1", "python_version": "3.11", "dependencies": []},
    "artifacts": {"storage_type": "http", "model_path": "http://localhost/model.bin"},
    "code": {"repository": "https://localhost/echo.git", "path": "src", "ref": "v1.0.0", "entrypoint": "src.model"},
    "preprocessing": {"module": "src.model", "function": "before"},
    "postprocessing": {"module": "src.model", "function": "after"},
    "interface": {
        "input_schema": {
            "type": "object",
            "properties": {"text": {"type": "string"}},
            "required": ["text"],
            "examples": [{"text": "hello"}],
        },
        "output_schema": {"type": "object"},
    },
    "resources": {"cpu": 1.0, "memory": "1Gi"},
}

WORKER = {
    "worker_id": WORKER_ID,
    "supported_schema_versions": ["3.0.0"],
    "capacity": {"max_models": 4, "max_memory": "4Gi", "max_cpu": 4.0},
    "labels": {"pool": "production", "region": "eu-west-1"},
}


def worker(**capacity: Any) -> WorkerConfig:
    return WorkerConfig.model_validate_json(json.dumps({**WORKER, "capacity": {**WORKER["capacity"], **capacity}}))


def spec(deployment_id: str = "echo", version: str = "1.0.0", *, priority: int = 50, **card: Any) -> DeploymentSpec:
    """A spec whose digest is its version; `card` replaces whole blocks of the card."""
    document = {**CARD, "metadata": {**CARD["metadata"], "version": version}, **card}
    return DeploymentSpec(
        deployment_id=deployment_id,
        priority=priority,
        endpoint=None,
        card=ModelCard.model_validate_json(json.dumps(document)),
        card_repository="https://localhost/echo.git",
        card_ref=f"v{version}",
        card_commit="c" * 40,
        code_commit="c" * 40,
        digest=f"digest-of-{version}",
    )


def load(version: str = "1.0.0", generation: int = 1, deployment_id: str = "echo", **more: Any) -> LoadCommand:
    wanted = more.pop("spec", None) or spec(deployment_id, version, **more)
    return LoadCommand(**_common(deployment_id, generation), spec=wanted)


def reload(
    version: str, generation: int, previous: str, deployment_id: str = "echo", *, recreate: bool = False
) -> ReloadCommand:
    return ReloadCommand(
        **_common(deployment_id, generation),
        spec=spec(deployment_id, version),
        previous_version=previous,
        previous_digest=f"digest-of-{previous}",
        recreate=recreate,
    )


def unload(
    generation: int, reason: UnloadReason = UnloadReason.SCALED_DOWN, deployment_id: str = "echo"
) -> UnloadCommand:
    return UnloadCommand(**_common(deployment_id, generation), reason=reason)


def _common(deployment_id: str, generation: int) -> dict[str, Any]:
    return {
        "deployment_id": deployment_id,
        "worker_id": WORKER_ID,
        "generation": generation,
        "cause": "f" * 40,
        "issued_at": datetime.now(UTC),
    }


class FakeLease:
    """Holds until `fence` is called, or for `confirmations` confirmations."""

    def __init__(self, confirmations: int | None = None) -> None:
        self.beats: list[CommandProgress] = []
        self.confirmed = 0
        self._left = confirmations

    def beat(self, progress: CommandProgress) -> None:
        self.beats.append(progress)

    async def confirm(self) -> None:
        if self._left is not None and self.confirmed >= self._left:
            raise LongshoreError("FENCED", "another attempt has begun")
        self.confirmed += 1


@dataclass(frozen=True)
class FakeAnswer:
    status: int
    body: bytes


class FakeRunners:
    """Starts at once, answers what conforms with 200 and the rest with 422."""

    def __init__(self) -> None:
        self.started: list[Instance] = []
        self.drained: list[str] = []
        self.stopped: list[str] = []
        self.start_errors: list[Exception] = []
        self.starting = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.status = 200
        self.on_exit: Callable[[Instance, Failure], None] = lambda _instance, _failure: None
        self._running: dict[str, Instance] = {}

    async def start(self, instance: Instance) -> None:
        self.starting += 1
        await self.gate.wait()
        if self.start_errors:
            raise self.start_errors.pop(0)
        self.started.append(instance)
        self._running[instance.instance_id] = instance

    async def infer(self, instance_id: str, document: Any) -> FakeAnswer:  # noqa: ARG002 (the Protocol's)
        conforms = isinstance(document, dict) and isinstance(document.get("text"), str)
        return FakeAnswer(self.status if conforms else 422, b'{"said": 1}')

    async def drain(self, instance_id: str) -> None:
        self.drained.append(instance_id)
        self._running.pop(instance_id, None)

    async def stop(self, instance_id: str) -> None:
        self.stopped.append(instance_id)
        self._running.pop(instance_id, None)

    def running(self) -> list[Instance]:
        return list(self._running.values())

    def memory_bytes(self, instance_id: str) -> int:
        return 1000 if instance_id in self._running else 0

    def adopt(self, instance: Instance) -> None:
        """Be found at start-up."""
        self._running[instance.instance_id] = instance

    def crash(self, instance_id: str) -> None:
        instance = self._running.pop(instance_id)
        self.on_exit(instance, Failure(code="RUNNER_CRASHED", message="exit 1"))


class FakeTraffic:
    """Envoy accepts everything, at once, or raises what it was told to."""

    def __init__(self) -> None:
        self.table = RoutingTable()
        self.history: list[Route] = []
        self.errors: list[Exception] = []
        self.late_errors: list[Exception] = []
        """Raised after the flip."""

    async def set_route(
        self, route: Route, *, before_flip: Hook | None = None, before_removal: Hook | None = None
    ) -> None:
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)
        if before_flip is not None:
            await before_flip()
        if self.late_errors:
            raise self.late_errors.pop(0)
        self.table = self.table.with_route(route)
        self.history.append(route)
        if before_removal is not None:
            await before_removal()

    async def remove(self, deployment_id: str, *, before_removal: Hook | None = None) -> None:  # noqa: ARG002 (the Protocol's)
        self.table = self.table.without(deployment_id)

    def serving(self, deployment_id: str = "echo") -> str | None:
        """The version that callers reach, or the reason why they reach none."""
        route = self.table.get(deployment_id)
        if route is None:
            return None
        return route.unavailable or route.backends[0].version


class FakeStore:
    """All three stores. Waits at `gate`, raises `errors` one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.gate = asyncio.Event()
        self.gate.set()
        self.errors: list[Exception] = []
        self.asked = 0
        self.entered = asyncio.Event()

    async def materialise(self, *what: Any) -> Path:
        self.asked += 1
        self.entered.set()
        match what:
            case (Runtime(), beat):
                beat("installing")
            case (Artifacts(), beat):
                beat(2**20, 2**21)
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        return self._folder


@dataclass
class Device:
    """A worker host on fakes; `restart` gives the next daemon on the same journal, with the same outside."""

    folder: Path
    worker: WorkerConfig = field(default_factory=worker)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.code = FakeStore(self.folder)
        self.environments = FakeStore(self.folder)
        self.artifacts = FakeStore(self.folder)
        self.runners = FakeRunners()
        self.traffic = FakeTraffic()
        self.counters: dict[str, Any] = {}
        self.open()

    def open(self) -> None:
        self.journal = Journal(self.folder / "journal.sqlite")
        settings = WorkerHostSettings(
            config=self.folder, **{"restart_base": timedelta(), "restart_cap": timedelta(), **self.options}
        )
        outside = Outside(
            paths=RunPaths(self.folder),
            stores=Stores(self.code, self.environments, self.artifacts),
            runners=self.runners,
            traffic=self.traffic,
            stats=self._stats,
            pythons=lambda: ("3.11",),
            breakers=tuple,
            cached=self._cached,
        )
        self.host = WorkerHost(settings, self.worker, self.journal, outside)
        self.runners.on_exit = self.host.recovery.runner_exited

    def restart(self) -> None:
        self.journal.close()
        self.open()

    async def execute(self, command: Any, lease: FakeLease | None = None) -> Any:
        return await self.host.execute(command, lease or FakeLease())

    def record(self, deployment_id: str = "echo") -> Any:
        return self.host.models.get(deployment_id)

    async def _cached(self) -> tuple[str, ...]:
        return ("0123456789ab",)

    async def _stats(self) -> dict[str, Any]:
        return self.counters


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return as soon as `condition` holds; fail after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (any condition, so there is no event to wait for)
            await asyncio.sleep(0.005)
