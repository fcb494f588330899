"""What commands need of the rest of the host: the shapes that the real parts and the tests' fakes are held to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from longshore.schemas.cards import Artifacts, Runtime
from longshore.worker_host.runners.instances import Instance
from longshore.xds.routing import Route

Hook = Callable[[], Awaitable[None]]


class Answer(Protocol):
    """What a runner answered to one request."""

    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...


class Runners(Protocol):
    """`supervisor.Supervisor`."""

    async def start(self, instance: Instance) -> None: ...
    async def infer(self, instance_id: str, document: Any) -> Answer: ...
    async def drain(self, instance_id: str) -> None: ...
    async def stop(self, instance_id: str) -> None: ...
    def running(self) -> list[Instance]: ...
    def memory_bytes(self, instance_id: str) -> int: ...


class Routes(Protocol):
    """`traffic.Traffic`."""

    async def set_route(
        self, route: Route, *, before_flip: Hook | None = None, before_removal: Hook | None = None
    ) -> None: ...
    async def remove(self, deployment_id: str, *, before_removal: Hook | None = None) -> None: ...


class CodeStore(Protocol):
    """`checkouts.Checkouts`."""

    async def materialise(self, repository: str, commit: str, path: str) -> Path: ...


class EnvironmentStore(Protocol):
    """`environments.Environments`."""

    async def materialise(self, runtime: Runtime, beat: Callable[[str], None]) -> Path: ...


class ArtifactStore(Protocol):
    """`artifacts.Artifacts`."""

    async def materialise(self, artifacts: Artifacts, beat: Callable[[int, int | None], None]) -> Path: ...
