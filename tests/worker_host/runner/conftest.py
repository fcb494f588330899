"""A model repository made on the spot, and a real supervisor that runs it with this test's own interpreter."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from longshore.schemas.cards import ModelCard
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.failures import Failure
from longshore.worker_host.runners.instances import Instance, RunPaths, new_instance_id
from longshore.worker_host.runners.supervisor import Supervisor
from longshore.worker_host.runners.support import Support

# Answers `{"y": …}` and says in which batch it was answered; some values of x make it misbehave.
MODEL = """
    import json
    import os
    import time

    class Model:
        def __init__(self, artifacts, config):
            self.factor = config.get("factor", 1)
            self.gate = artifacts / "gate"
            self.begun = artifacts / "begun"

        def predict(self, batch):
            if "wait" in batch:
                self.begun.touch()
            while "wait" in batch and not self.gate.exists():
                time.sleep(0.005)
            if "unpredictable" in batch:
                raise LookupError("no idea about one of these")
            if "exit" in batch:
                os._exit(3)
            return [(x, len(batch)) if isinstance(x, str) else (x * self.factor, len(batch)) for x in batch]

    def load(artifacts, config):
        return Model(artifacts, config)
"""
BEFORE = """
    def unwrap(value, config):
        if value["x"] == config.get("refuses"):
            raise ValueError("will not take " + value["x"])
        return value["x"]
"""
AFTER = """
    def wrap(value, config):
        y, size = value
        if y == "nan":
            y = float("nan")
        if y == "breach":
            return {"z": 1}
        return {"y": y, "batch": size}
"""
INPUT = {"type": "object", "required": ["x"], "properties": {"x": {"type": ["integer", "string"]}}}
OUTPUT = {"type": "object", "required": ["y"]}


class Store:
    """The journal's part, in memory; remembers the order of things."""

    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {}

    def save(self, instance: Instance) -> None:
        self.instances[instance.instance_id] = instance

    def forget(self, instance_id: str) -> None:
        self.instances.pop(instance_id, None)

    def all(self) -> list[Instance]:
        return list(self.instances.values())


class Bench:
    """One device: its run directory, its store and its supervisors. `exits` is what they were told of."""

    def __init__(self, root: Path, support: Path) -> None:
        self.root = root
        self.support = support
        self.paths = RunPaths(root / "run")
        self.paths.create()
        self.store = Store()
        self.exits: list[tuple[Instance, Failure]] = []
        self.supervisor = self.new_supervisor()

    def new_supervisor(self, **changes: Any) -> Supervisor:
        """Return another daemon's supervisor over the same files, as after a restart."""
        settings: dict[str, Any] = {"start_timeout": 30.0, "drain_timeout": 30.0, **changes}
        self.supervisor = Supervisor(
            self.paths,
            self.store,
            on_exit=lambda instance, failure: self.exits.append((instance, failure)),
            support=Support(self.support),
            **settings,
        )
        return self.supervisor

    def instance(
        self, files: dict[str, str] | None = None, card: dict[str, Any] | None = None, version: str = "1.2.3"
    ) -> Instance:
        """Return an instance of a model with these files; `card` holds changes, section by section."""
        instance_id = new_instance_id()
        checkout, artifacts = self.root / f"code-{instance_id}", self.root / f"artifacts-{instance_id}"
        artifacts.mkdir()
        sources = {"src/model.py": MODEL, "src/before.py": BEFORE, "src/after.py": AFTER, **(files or {})}
        for name, text in sources.items():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            (checkout / name).write_text(textwrap.dedent(text))
        spec = DeploymentSpec(
            deployment_id="multiplier",
            priority=50,
            endpoint=None,
            card=_card(version, card or {}),
            card_repository="https://git.example.com/multiplier.git",
            card_ref=f"v{version}",
            card_commit="0" * 40,
            code_commit="0" * 40,
            digest=instance_id.rjust(64, "0"),
        )
        return Instance(
            instance_id=instance_id,
            deployment_id="multiplier",
            generation=1,
            spec=spec,
            python=sys.executable,
            checkout=str(checkout),
            artifacts=str(artifacts),
            created_at=datetime.now(UTC),
        )

    async def serve(self, *args: Any, **kwargs: Any) -> Instance:
        """Return an instance that is running."""
        instance = self.instance(*args, **kwargs)
        await self.supervisor.start(instance)
        return instance

    def client(self, instance: Instance) -> httpx2.AsyncClient:
        transport = httpx2.AsyncHTTPTransport(uds=str(self.paths.socket(instance.instance_id)), verify=False)
        return httpx2.AsyncClient(transport=transport, base_url="http://runner", timeout=30)

    async def connect(self, instance: Instance) -> Wire:
        return Wire(*await asyncio.open_unix_connection(str(self.paths.socket(instance.instance_id))))

    def put_artifact(self, instance: Instance, name: str, text: str) -> None:
        Path(instance.artifacts, name).write_text(text)

    async def begun(self, instance: Instance) -> None:
        """Wait until the model is at work on a request whose x is "wait"."""
        await self.until(Path(instance.artifacts, "begun").exists)

    def open_gate(self, instance: Instance) -> None:
        """Let go of every request whose x is "wait"."""
        self.put_artifact(instance, "gate", "")

    def processes(self) -> list[psutil.Process]:
        """Return every living process that was started from this bench's run directory."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if any(str(self.paths.root) in part for part in process.cmdline()):
                    found.append(process)
        return found

    async def until(self, true: Callable[[], Any | Awaitable[Any]], seconds: float = 30.0) -> Any:
        """Wait for something to be true, and return it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            value = true()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.01)
        raise AssertionError("did not happen in time")


class Wire:
    """A connection on which every byte is the test's own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    def post(self, document: Any, path: str = "/infer/multiplier") -> None:
        body = json.dumps(document).encode()
        self.send(b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (path.encode(), len(body), body))

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        """Return status, header fields and document of the next answer."""
        async with asyncio.timeout(30):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = dict(line.split(": ", 1) for line in head[1:] if line)
            body = await self.reader.readexactly(int(fields["content-length"]))
        return int(head[0].split()[1]), fields, json.loads(body)

    async def closed(self) -> bool:
        """Whether the runner closes the connection, with nothing more to say."""
        async with asyncio.timeout(30):
            return await self.reader.read() == b""

    def close(self) -> None:
        self.writer.close()


def _card(version: str, changes: dict[str, Any]) -> ModelCard:
    sections: dict[str, Any] = {
        "metadata": {
            "name": "multiplier",
            "version": version,
            "description": "Multiplies a number by a factor.",
            "owner": "ml@example.com",
        },
        "runtime": {
            "framework": "custom",
            "framework_version": "1.0",
            "python_version": f"{sys.version_info[0]}.{sys.version_info[1]}",
            "dependencies": [],
        },
        "artifacts": {"storage_type": "http", "model_path": "https://files.example.com/model.bin"},
        "code": {
            "repository": "https://git.example.com/multiplier.git",
            "path": "src/",
            "ref": f"v{version}",
            "entrypoint": "src.model",
        },
        "preprocessing": {"module": "src.before", "function": "unwrap"},
        "postprocessing": {"module": "src.after", "function": "wrap"},
        "interface": {"input_schema": INPUT, "output_schema": OUTPUT, "batch_size": 8},
        "resources": {"cpu": 1.0, "memory": "256Mi"},
    }
    for section, change in changes.items():
        sections[section] = {k: v for k, v in {**sections[section], **change}.items() if v is not None}
    return ModelCard.model_validate_json(json.dumps({"schemaVersion": "3.0.0", **sections}))


@pytest.fixture(scope="session")
def support(tmp_path_factory):
    """Filled by the first test that starts a runner."""
    return tmp_path_factory.mktemp("support")


@pytest.fixture
async def bench(support):
    """A device of which nothing is left after the test, whatever the test did."""
    # Short, for the socket's path; pytest's own folders are too deep.
    root = Path(tempfile.mkdtemp(prefix="longshore-", dir="/tmp"))
    device = Bench(root, support)
    try:
        yield device
    finally:
        device.supervisor.release()
        for process in device.processes():
            with suppress(psutil.Error):
                process.kill()
        shutil.rmtree(root, ignore_errors=True)
