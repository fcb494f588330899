"""The set of the demo: its folder, its ports, and the processes that play in it."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx2

from longshore.cli.demo import fixtures, storage
from longshore.cli.demo.git import Repository
from longshore.cli.demo.ports import LOOPBACK, choose
from longshore.cli.demo.processes import DemoFailed, Process, Processes, search_path, sweep
from longshore.cli.demo.report import Report
from longshore.cli.demo.screen import Screen
from longshore.cli.demo.training import Trainer
from longshore.cli.demo.watching import Watcher

REGISTRY = "model-registry"
READY_TIMEOUT = 60.0  # seconds; each of them takes one or two on an idle machine
ANSWER_TIMEOUT = 30.0  # seconds for one HTTP request
SCHEMES = ("--repository-schemes", "file")  # the models' repositories are folders beside the registry's
POLL_INTERVAL = "10s"  # the broker's own look at the registry; the webhook is what makes it quick
# Minutes in a fleet, where a device may be away for that long; nobody would wait for them here.
PRESENCE = ("--heartbeat-interval", "2s", "--suspect-after", "5s", "--failed-after", "10s", "--ping-timeout", "2s")
PROGRAMS = {
    "git": "apt install git, or on macOS xcode-select --install",
    "uv": "python3 dev.py setup",
    "temporal": "python3 dev.py setup",
    "envoy": "python3 dev.py setup; on an Intel Mac: brew install envoy",
    "weed": "python3 dev.py setup; on an Intel Mac: brew install seaweedfs",
}
# What a second run finds again. Everything else is made anew: a fresh ledger counts its generations from 1, and a
# device that remembered more would rightly refuse them.
KEPT = {"cache", "devices", "demo.lock"}
KEPT_SHELVES = {"environments", "locks", "packages", "support"}


class Stage:
    """Where the demo plays. Made by `prepared`, which also clears it away."""

    def __init__(self, state: Path, screen: Screen, report: Report) -> None:
        self.state = state
        self.screen = screen
        self.report = report
        self._taken: set[int] = set()
        self.temporal_port = choose(7233, self._taken)
        self.ui_port = choose(8233, self._taken)
        self.webhook_port = choose(8088, self._taken)
        self.storage = storage.Storage(choose(8333, self._taken))
        self._webhook_secret = secrets.token_hex(32)
        self.registry = fixtures.Registry(Repository(state / f"{REGISTRY}.git", state / REGISTRY, fixtures.OPS))
        self.processes = Processes(state, self._environment())
        self.data_ports: dict[str, int] = {}
        self._hosts: dict[str, Process] = {}
        self._watcher: Watcher | None = None

    @property
    def temporal(self) -> str:
        return f"{LOOPBACK}:{self.temporal_port}"

    @property
    def watcher(self) -> Watcher:
        if self._watcher is None:
            raise DemoFailed("the Temporal server has not been started yet")
        return self._watcher

    @property
    def ui_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ui_port}"

    def data_url(self, worker_id: str) -> str:
        return f"http://{LOOPBACK}:{self.data_ports[worker_id]}"

    def _environment(self) -> dict[str, str]:
        """Return what the processes inherit. Secrets go this way, never on a command line."""
        local = f"{LOOPBACK},localhost"
        dropped = {"AWS_PROFILE", "AWS_SESSION_TOKEN"}
        inherited = {name: value for name, value in os.environ.items() if name not in dropped}
        return {
            **inherited,
            "PATH": search_path(),
            "NO_PROXY": ",".join(filter(None, [local, os.environ.get("NO_PROXY")])),
            "LONGSHORE_WEBHOOK_SECRET": self._webhook_secret,
            **self.storage.environment(),
        }

    async def set_up(self) -> None:
        """Make the artifact store, the models' repositories and the registry."""
        with self.report.step("set up: artifact store (SeaweedFS)"):
            await self.storage.start(self.processes, self.state / "storage", self._taken)
            self.screen.good(f"artifact store answers at {self.storage.url}, bucket {storage.BUCKET}")
        trainer = Trainer(self.state / "cache")
        urls = {}
        for model in fixtures.MODELS:
            with self.report.step(f"set up: model repository {model}"):
                folder = self.state / "repositories"
                repository = Repository(folder / f"{model}.git", folder / model, fixtures.ML)
                repository.create()
                for version in fixtures.VERSIONS:
                    objects = await fixtures.release(model, version, repository, self.storage.bucket_url, trainer)
                    await asyncio.to_thread(self.storage.upload, objects)
                    self.screen.good(f"{model} v{version} tagged, {len(objects)} objects uploaded")
                repository.push()
                urls[model] = repository.url
        with self.report.step("set up: registry"):
            sha = self.registry.create(urls)
            self.screen.good(f"registry with {len(self.registry.workers())} devices at commit {sha[:10]}")

    async def start(self) -> None:
        """Start Temporal and the broker, then one worker host per device of the registry."""
        with self.report.step("start: Temporal and broker"):
            await self._start_control_plane()
        with self.report.step("start: three devices, each with its Envoy"):
            await self._start_devices()

    async def _start_control_plane(self) -> None:
        arguments = ["up", "--registry", self.registry.repository.url, "--state-dir", str(self.state / "control")]
        arguments += ["--temporal-port", str(self.temporal_port), "--ui-port", str(self.ui_port)]
        arguments += ["--webhook-port", str(self.webhook_port), "--poll-interval", POLL_INTERVAL]
        arguments += [*SCHEMES, *PRESENCE]
        self.screen.say(f"$ longshore {' '.join(arguments)}")
        await self.processes.longshore("up", *arguments)
        workers = [file.stem for file in self.registry.workers()]

        async def connect() -> Watcher:
            return await Watcher.connect(self.temporal, REGISTRY, workers)

        self._watcher = await self.processes.until("the Temporal server answers", connect, READY_TIMEOUT)
        self.screen.good(f"Temporal answers at {self.temporal}, its Web UI at {self.ui_url}")
        fleet = await self.processes.until("the fleet's ledger answers", self._watcher.fleet, READY_TIMEOUT)
        self.screen.good(f"broker has started the fleet's ledger of {fleet.registry!r}")

    async def _start_devices(self) -> None:
        for port, file in enumerate(self.registry.workers(), start=8080):
            self.data_ports[file.stem] = choose(port, self._taken)
            self._share_packages(file.stem)
            await self.switch_on(file.stem)
        await self.processes.until("all devices report", self.watcher.all_heard, READY_TIMEOUT)
        for worker_id in self.watcher.workers:
            view = await self.watcher.device(worker_id)
            if view is not None and view.report is not None:
                self.screen.good(f"{worker_id} is {view.health}, data plane at {view.report.data_address}")

    async def switch_on(self, worker_id: str) -> None:
        """Start the worker host of a device: for the first time, or on what it had when it lost its power."""
        config = self.registry.repository.clone / "workers" / f"{worker_id}.yaml"
        arguments = ["worker-host", "--config", str(config), "--temporal", self.temporal]
        arguments += ["--state-dir", str(self.device(worker_id))]
        arguments += ["--listen", f"{LOOPBACK}:{self.data_ports[worker_id]}", "--presence-interval", "1s"]
        self.screen.say(f"$ longshore {' '.join(arguments)}")
        self._hosts[worker_id] = await self.processes.longshore(worker_id, *arguments)

    async def cut_power(self, worker_id: str) -> int:
        """Kill all processes of a device at once; return how many there were."""
        return await self.processes.cut(self._hosts.pop(worker_id), self.device(worker_id))

    def device(self, worker_id: str) -> Path:
        """Return the folder in which a device keeps everything."""
        return self.state / "devices" / worker_id

    def plan_arguments(self) -> tuple[str, ...]:
        """Return what asks for the plan of the registry's clone as it lies there."""
        return ("plan", str(self.registry.repository.clone), "--temporal", self.temporal, *SCHEMES)

    def _share_packages(self, worker_id: str) -> None:
        """Give the devices one download cache: they are one machine here, and three downloads would teach nothing."""
        packages = self.device(worker_id) / "cache" / "packages"
        packages.mkdir(parents=True, exist_ok=True)
        if not (packages / "uv").exists():
            (packages / "uv").symlink_to(self.state / "cache" / "uv")

    async def announce(self) -> int:
        """Tell the broker's webhook of a push, as a GitHub server would, and return its status."""
        push = {"ref": "refs/heads/main", "repository": {"clone_url": self.registry.repository.url}}
        body = json.dumps(push).encode()
        signature = hmac.new(self._webhook_secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {
            "content-type": "application/json",
            "x-github-event": "push",
            "x-github-delivery": secrets.token_hex(16),
            "x-hub-signature-256": f"sha256={signature}",
        }
        url = f"http://{LOOPBACK}:{self.webhook_port}/webhooks/git"
        async with client() as http:
            return (await http.post(url, content=body, headers=headers)).status_code

    async def clear(self) -> None:
        """Stop everything that was started."""
        began = time.monotonic()
        await self.processes.stop()
        storage.remove_sockets(self._taken)
        self.screen.good(f"all processes have ended ({time.monotonic() - began:.1f} s)")


def client() -> httpx2.AsyncClient:
    """Return an HTTP client that goes straight to loopback, whatever proxy this user has."""
    return httpx2.AsyncClient(timeout=ANSWER_TIMEOUT, trust_env=False)


def check_programs() -> None:
    """Raise DemoFailed with the remedy for each program that is missing."""
    missing = [
        f"{name}: {remedy}" for name, remedy in PROGRAMS.items() if shutil.which(name, path=search_path()) is None
    ]
    if missing:
        raise DemoFailed("these programs are missing:\n" + "\n".join(missing))


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Hold the state folder. Raises DemoFailed while another demo does, and for a folder that is not a demo's.

    The latter because a new demo empties it.
    """
    state.mkdir(parents=True, exist_ok=True)
    file = state / "demo.lock"
    if not file.exists() and any(state.iterdir()):
        raise DemoFailed(f"{state} is not empty and no demo's folder: give another --state-dir")
    with file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise DemoFailed(f"a demo is running in {state} (process {lock.read().strip()})") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def clear_leftovers(state: Path, screen: Screen) -> None:
    """End the processes and remove the files of an earlier demo; keep the caches, which are named by content."""
    if left := sweep(state):
        screen.say(f"ended {len(left)} processes that an earlier demo had left: {', '.join(sorted(set(left)))}")
    for device in (state / "devices").glob("*"):
        _empty(device / "cache", KEPT_SHELVES)
        _empty(device, {"cache"})
    _empty(state, KEPT)


def _empty(folder: Path, kept: set[str]) -> None:
    for entry in folder.glob("*"):
        if entry.name in kept:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@asynccontextmanager
async def prepared(state: Path, screen: Screen, report: Report) -> AsyncIterator[Stage]:
    """Give a clean stage, and clear it away whatever happens on it."""
    check_programs()
    with locked(state):
        await asyncio.to_thread(clear_leftovers, state, screen)
        stage = Stage(state, screen, report)
        stage.processes.guard()
        try:
            yield stage
        finally:
            screen.act("Stopping")
            await stage.clear()
