"""A device's data plane: a real Envoy, the real control plane, and fake runners behind it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from envoy_backends import FakeRunner, Load

from longshore.worker_host.proxy.envoy import Envoy
from longshore.worker_host.proxy.traffic import Traffic
from longshore.xds.routing import Backend, Route, RoutingTable

NODE = "worker-test"


class DataPlane:
    def __init__(self, root: Path) -> None:
        self.root = root
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.restarts: list[int] = []
        self.envoy = self.new_envoy()
        self.traffic = self.new_traffic()
        self.runners: list[FakeRunner] = []

    def new_traffic(self, **options) -> Traffic:
        where = ("127.0.0.1", self.port)
        arriving = self.envoy.arriving
        return Traffic(self.root / "ads.sock", node_id=NODE, listen=where, arriving=arriving, **options)

    def new_envoy(self, node_id: str = NODE) -> Envoy:
        return Envoy(
            self.root,
            node_id=node_id,
            ads_socket=self.root / "ads.sock",
            state=self.root,
            on_restart=self.restarts.append,
            drain_timeout=10.0,
        )

    async def start(self, *routes: Route) -> None:
        await self.traffic.start(RoutingTable(routes))
        await self.envoy.ensure()
        await self.traffic.settled()

    async def runner(self, version: str, max_requests: int = 64) -> tuple[FakeRunner, Backend]:
        """Start a fake runner and return it with the backend that names it."""
        instance_id = f"{len(self.runners):010x}"
        runner = FakeRunner(self.root / f"{instance_id}.sock", version)
        await runner.start()
        self.runners.append(runner)
        return runner, Backend(instance_id, str(runner.socket), version, max_requests)

    async def ask(self, path: str, method: str = "POST", **options) -> httpx2.Response:
        async with httpx2.AsyncClient(timeout=20) as client:
            return await client.request(method, f"http://127.0.0.1:{self.port}{path}", **options)

    async def eventually_answers(self, path: str, status: int = 200) -> httpx2.Response:
        async with asyncio.timeout(20):
            while True:
                with suppress(httpx2.TransportError):
                    answer = await self.ask(path, json={})
                    if answer.status_code == status:
                        return answer
                await asyncio.sleep(0.02)

    async def serves(self, path: str, version: str) -> bool:
        return (await self.ask(path, json={})).json() == {"version": version}

    def load(self, path: str, connections: int = 8) -> Load:
        return Load(self.port, path, connections)

    async def stat(self, name: str) -> int:
        answer = await self.envoy._admin("GET", f"/stats?format=json&filter=^{name}$")
        return next((entry["value"] for entry in answer.json()["stats"]), 0)


@pytest.fixture
async def plane() -> AsyncIterator[DataPlane]:
    root = Path(tempfile.mkdtemp(prefix="ls-", dir="/tmp"))
    plane = DataPlane(root)
    try:
        yield plane
    finally:
        plane.envoy.release()
        if plane.envoy.pid is not None:
            os.kill(plane.envoy.pid, signal.SIGKILL)
            await plane.envoy._until(plane.envoy._gone, 10)
        await plane.traffic.stop()
        for runner in plane.runners:
            await runner.stop()
        shutil.rmtree(root)
