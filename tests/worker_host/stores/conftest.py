"""What the tests of the stores share."""

from __future__ import annotations

import asyncio
import time

import psutil
import pytest
from stores_seaweed import running_seaweed
from stores_servers import ArtifactServer, GitServer

from longshore.worker_host.breakers import Breaker


@pytest.fixture
def breaker():
    return Breaker("test")


@pytest.fixture
def artifact_server():
    server = ArtifactServer()
    yield server
    server.close()


@pytest.fixture
def git_server(tmp_path):
    served = GitServer(tmp_path / "served")
    yield served
    served.server.close()


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory):
    with running_seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def until():
    """Wait for something to become true, and fail if it has not after half a minute."""

    async def wait(condition):
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "it did not come true"
            await asyncio.sleep(0.01)

    return wait


@pytest.fixture
def children():
    """Return the names of our living descendants that have one of these names."""

    def names(*wanted):
        found = []
        for process in psutil.Process().children(recursive=True):
            try:
                if process.status() != psutil.STATUS_ZOMBIE and process.name().startswith(wanted):
                    found.append(process.name())
            except psutil.NoSuchProcess:
                continue
        return found

    return names


@pytest.fixture
def entries():
    """Return what a shelf shows."""

    def shown(shelf):
        return sorted(entry.name for entry in shelf.iterdir() if not entry.name.startswith("."))

    return shown
