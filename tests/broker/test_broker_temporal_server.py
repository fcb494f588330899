"""The embedded Temporal server: it keeps its data, comes back when killed, and never outlives us."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
from temporalio.client import Client
from workflow_world import eventually, program

from longshore.broker import guardian, temporal_client, temporal_server
from longshore.broker.temporal_client import TemporalHealth
from longshore.broker.temporal_server import TemporalServer
from longshore.schemas.failures import LongshoreError

pytestmark = pytest.mark.e2e


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short folder, and `temporal` on PATH."""
    monkeypatch.setenv("PATH", f"{Path(program('temporal')).parent}{os.pathsep}{os.environ['PATH']}")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
async def server(directory: Path) -> AsyncIterator[TemporalServer]:
    made = TemporalServer(directory, port=free_port(), ui_port=free_port())
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
        assert processes(directory) == []


def processes(directory: Path) -> list[psutil.Process]:
    """Every process in whose command line the folder stands: the server and its guardian."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(directory) in argument for argument in process.info["cmdline"] or ())
    ]


async def test_it_comes_back_with_its_data(server: TemporalServer, directory: Path) -> None:
    """kill -9 of the server itself: it is started again, and what was in it still is."""
    client = await Client.connect(server.address)
    await client.start_workflow("Nobody", id="kept", task_queue="nobody")
    keeping = asyncio.create_task(server.keep_running())
    victim = next(process for process in processes(directory) if "guardian.py" not in " ".join(process.cmdline()))
    victim.kill()

    async def kept() -> bool:
        try:
            again = await Client.connect(server.address)
            return (await again.get_workflow_handle("kept").describe()).id == "kept"
        except (RuntimeError, OSError):
            return False

    await eventually(kept, "the workflow is there again")
    keeping.cancel()


async def test_a_webhook_hears_whether_it_answers(
    server: TemporalServer, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it hangs, and once it is gone, a delivery is answered all the same: with a code (FAULTS 15)."""
    monkeypatch.setattr(temporal_client, "HEALTH_FRESH_SECONDS", 0)
    health = TemporalHealth(await Client.connect(server.address))
    await health.require()
    hanging = next(process for process in processes(directory) if "guardian.py" not in " ".join(process.cmdline()))
    hanging.suspend()
    await eventually(lambda: refuses(health), "it is known to hang")
    hanging.resume()
    await eventually(lambda: takes(health), "it is believed again")
    await server.stop()
    assert await refuses(health)


async def takes(health: TemporalHealth) -> bool:
    return not await refuses(health)


async def refuses(health: TemporalHealth) -> bool:
    try:
        await health.require()
    except LongshoreError as error:
        return error.code == "TEMPORAL_UNAVAILABLE"
    return False


async def test_our_search_attributes_are_there(server: TemporalServer) -> None:
    """An operator can search from the first commit on."""
    client = await Client.connect(server.address)
    found = [workflow async for workflow in client.list_workflows("LongshoreCommit = 'abc'")]
    assert found == []


async def test_a_taken_port_is_said(directory: Path) -> None:
    """Nothing is started: a broker beside it would work for whoever listens there."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = TemporalServer(directory, port=port, ui_port=free_port())
        with pytest.raises(LongshoreError) as refused:
            await server.start()
    assert refused.value.code == "PORT_CONFLICT"
    assert str(port) in refused.value.failure.message
    assert processes(directory) == []


async def test_one_folder_has_one_server(
    server: TemporalServer, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second `longshore up` on the same state folder is refused: two servers would share one database file."""
    monkeypatch.setattr(temporal_server, "PREDECESSOR_SECONDS", 0.0)
    second = TemporalServer(directory, port=free_port(), ui_port=free_port())
    with pytest.raises(LongshoreError) as refused:
        await second.start()
    assert refused.value.code == "STATE_DIR_IN_USE"
    await (await Client.connect(server.address)).service_client.check_health()


async def test_it_dies_with_its_caller(directory: Path) -> None:
    """kill -9 of the caller: the guardian sees its pipe end and stops the program."""
    caller = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CALLER, guardian.__file__, sys.executable, "-c", "import time; time.sleep(600)",
        str(directory), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert caller.stdout is not None
    await caller.stdout.readline()
    caller.send_signal(signal.SIGKILL)
    await caller.wait()

    async def gone() -> bool:
        return not processes(directory)

    await eventually(gone, "nothing is left running")


# Starts its arguments as a guarded program and waits for ever, as a broker would.
_CALLER = """
import subprocess, sys, time
program = subprocess.Popen([sys.executable, "-I", *sys.argv[1:]], stdin=subprocess.PIPE)
print("started", flush=True)
time.sleep(600)
"""
