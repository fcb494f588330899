"""A whole Longshore of separate processes on this machine, as an operator would run it."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import hmac
import http.server
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import psutil
from repositories import ModelRepository, Registry
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError

from longshore.schemas.commits import CommitResult
from longshore.schemas.devices import DeviceView
from longshore.schemas.fleet import FleetView
from longshore.schemas.lifecycle import ModelState
from longshore.workflows import conventions


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


T = TypeVar("T")

WEBHOOK_SECRET = "a-secret-of-the-tests"


async def eventually(probe: Callable[[], Awaitable[T | None]], what: str, timeout: float = 60.0) -> T:
    """Return the first true value of `probe`; fail with `what` and the last exception after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    last: object = None
    while time.monotonic() < deadline:
        try:
            if value := await probe():
                return value
        except (RPCError, OSError, KeyError, AssertionError) as error:
            last = error
        await asyncio.sleep(0.1)
    raise AssertionError(f"did not happen within {timeout:g} s: {what} (last error: {last!r})")


@contextmanager
def artifact_server(directory: Path) -> Iterator[str]:
    """Serve `directory` over HTTP on loopback."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Process:
    """One `longshore …` process whose output goes to a log file."""

    def __init__(self, name: str, argv: list[str], log: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.argv = argv
        self.log = log
        self.environment = environment
        self.popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                self.argv,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self.environment,
                start_new_session=True,
            )

    def kill(self) -> None:
        """kill -9 the process itself, and nothing that it has started."""
        assert self.popen is not None
        self.popen.kill()
        self.popen.wait()

    def stop(self, timeout: float = 40.0) -> None:
        if self.popen is None or self.popen.poll() is not None:
            return
        self.popen.send_signal(signal.SIGTERM)
        try:
            self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise AssertionError(f"{self.name} did not stop within {timeout:g} s of SIGTERM; see {self.log}") from None


class System:
    """Temporal, one broker, any number of worker hosts; a registry and one model repository."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="ls-", dir="/tmp"))
        self.temporal_port = free_port()
        self.webhook_port = free_port()
        self.registry = Registry(self.root)
        self.processes: dict[str, Process] = {}
        self.data_ports: dict[str, int] = {}
        (self.root / "artifacts").mkdir()
        self._serving = artifact_server(self.root / "artifacts")
        artifacts_url = self._serving.__enter__()
        self.artifacts_port = urlsplit(artifacts_url).port or 0
        self.model = ModelRepository(self.root, self.root / "artifacts", artifacts_url)
        self._client: Client | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.temporal_port}"

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "LONGSHORE_WEBHOOK_SECRET": WEBHOOK_SECRET,
        }

    def process(self, name: str, *argv: str) -> Process:
        process = Process(name, list(argv), self.root / f"{name}.log", self.environment())
        self.processes[name] = process
        process.start()
        return process

    def start_temporal(self) -> Process:
        """The embedded server with its database file, as `longshore up` starts it, as a process of its own."""
        binary = shutil.which("temporal", path=self.environment()["PATH"])
        assert binary is not None
        return self.process(
            "temporal", binary, "server", "start-dev", "--headless", "--ip", "127.0.0.1",
            "--port", str(self.temporal_port), "--db-filename", str(self.root / "temporal.db"),
            "--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=NORMAL", "--log-level", "error",
            *(f"--search-attribute={key.name}=Keyword" for key in conventions.SEARCH_ATTRIBUTES),
        )  # fmt: skip

    def start_broker(self, *more: str) -> Process:
        return self.process(
            "broker", sys.executable, "-m", "longshore", "broker", "--registry", self.registry.url,
            "--temporal", self.address, "--state-dir", str(self.root / "broker"),
            "--webhook-port", str(self.webhook_port), "--poll-interval", "1s",
            "--repository-schemes", "file", *more,
        )  # fmt: skip

    def start_worker(self, worker_id: str, *more: str, prefix: tuple[str, ...] = (), **capacity: Any) -> Process:
        """`more` flags overrule ours; `prefix` begins the command line."""
        port = self.data_ports.setdefault(worker_id, free_port())
        config = self.registry.clone / "workers" / f"{worker_id}.yaml"
        if not config.exists():
            self.registry.worker(worker_id, **capacity)
        return self.process(
            worker_id, *prefix, sys.executable, "-m", "longshore", "worker-host", "--config", str(config),
            "--temporal", self.address, "--state-dir", str(self.root / worker_id), "--listen", f"127.0.0.1:{port}",
            "--backoff-base", "1s", *more,
        )  # fmt: skip

    def device_processes(self, worker_id: str) -> list[psutil.Process]:
        """The daemon of a worker, its Envoy and its runners."""
        folder = str(self.root / worker_id)
        return [process for process in self.descendants() if any(folder in part for part in process.info["cmdline"])]

    def power_off(self, worker_id: str) -> None:
        """kill -9 all of a device at once. The daemon goes first: it would start the others again."""
        self.processes[worker_id].kill()
        for process in self.device_processes(worker_id):
            process.kill()

    def freeze(self, worker_id: str) -> None:
        for process in self.device_processes(worker_id):
            process.suspend()

    def thaw(self, worker_id: str) -> None:
        for process in self.device_processes(worker_id):
            process.resume()

    def restart(self, name: str) -> None:
        self.processes[name].start()

    async def client(self) -> Client:
        async def connect() -> Client | None:
            try:
                return await Client.connect(self.address, data_converter=pydantic_data_converter)
            except RuntimeError:
                return None

        if self._client is None:
            self._client = await eventually(connect, "the Temporal server answers")
        return self._client

    async def commit_handle(self, sha: str) -> WorkflowHandle[Any, CommitResult]:
        client = await self.client()
        return client.get_workflow_handle(conventions.commit_workflow_id("registry", sha), result_type=CommitResult)

    async def outcome(self, sha: str, timeout: float = 120.0) -> CommitResult:
        """Wait until the workflow of a commit has ended, and return its result."""
        handle = await self.commit_handle(sha)

        async def result() -> CommitResult | None:
            return await asyncio.wait_for(handle.result(), timeout)

        return await eventually(result, f"the workflow of commit {sha[:10]} ends", timeout)

    async def fleet(self) -> FleetView:
        handle = (await self.client()).get_workflow_handle(conventions.fleet_workflow_id("registry"))
        return await handle.query("fleet", result_type=FleetView)

    async def device(self, worker_id: str) -> DeviceView:
        handle = (await self.client()).get_workflow_handle(conventions.device_workflow_id(worker_id))
        return await handle.query("device", result_type=DeviceView)

    async def heard(self, *worker_ids: str) -> None:
        """Wait until every device has reported."""
        for worker_id in worker_ids:

            async def reported(worker_id: str = worker_id) -> bool:
                return (await self.device(worker_id)).report is not None

            await eventually(reported, f"{worker_id} reports")

    async def model_state(self, worker_id: str, deployment_id: str) -> ModelState:
        report = (await self.device(worker_id)).report
        models = {model.deployment_id: model for model in report.models} if report else {}
        return models[deployment_id].state if deployment_id in models else ModelState.IDLE

    async def reaches(self, worker_id: str, deployment_id: str, state: ModelState, timeout: float = 60.0) -> None:
        async def there() -> bool:
            return await self.model_state(worker_id, deployment_id) == state

        await eventually(there, f"{deployment_id} on {worker_id} is {state}", timeout)

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.longshore("status", "--json"))
        return document

    def longshore(self, *arguments: str) -> str:
        """Run one command against this system's Temporal server and return what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "longshore", *arguments, "--temporal", self.address],
            env=self.environment(), capture_output=True, check=True, timeout=60, text=True,
        )  # fmt: skip
        return done.stdout

    async def webhook(self) -> int:
        """Post a signed push event, as GitHub would, and return the answer's status."""
        body = json.dumps({"ref": "refs/heads/main", "repository": {"clone_url": self.registry.url}}).encode()
        signature = hmac.new(WEBHOOK_SECRET.encode(), body, hashlib.sha256).hexdigest()
        async with httpx2.AsyncClient() as client:
            answer = await client.post(
                f"http://127.0.0.1:{self.webhook_port}/webhooks/git",
                content=body,
                headers={
                    "content-type": "application/json",
                    "x-github-event": "push",
                    "x-github-delivery": secrets.token_hex(8),
                    "x-hub-signature-256": f"sha256={signature}",
                },
            )
        return answer.status_code

    def descendants(self) -> list[psutil.Process]:
        """Every process that belongs to this system: its folder stands in the command line."""
        return [
            process
            for process in psutil.process_iter(["pid", "cmdline"])
            if any(str(self.root) in argument for argument in process.info["cmdline"] or ())
        ]

    def runners(self) -> list[psutil.Process]:
        # From the listing, not asked again: a process may have ended since.
        return [p for p in self.descendants() if any("runner.py" in part for part in p.info["cmdline"])]

    def stop(self) -> None:
        """Stop everything as Ctrl-C would, and fail when anything is left."""
        try:
            for name in sorted(self.processes, key=lambda name: ("worker" not in name, name == "temporal")):
                self.processes[name].stop()
            left = [" ".join(process.info["cmdline"]) for process in self.descendants()]
            assert not left, f"processes left behind: {left}"
        finally:
            for process in self.descendants():
                process.kill()
            self._serving.__exit__(None, None, None)
            if not os.environ.get("LONGSHORE_TEST_KEEP"):
                shutil.rmtree(self.root, ignore_errors=True)
