"""The daemon as an operator starts it: real Temporal server, Envoy, runner, git and artifact server."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sqlite3
import sys
import tempfile
import uuid
from contextlib import asynccontextmanager, closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from repositories import ModelRepository, dump_yaml, git
from ruamel.yaml import YAML
from system import Process, artifact_server, eventually, free_port
from temporalio import workflow
from temporalio.client import WorkflowFailureError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from longshore.cli.demo.load import Load
from longshore.schemas.cards import ModelCard
from longshore.schemas.commands import CommandResult, LoadCommand, ReloadCommand, UnloadCommand, UnloadReason
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.devices import DeviceReport, PresenceRequest
from longshore.workflows.conventions import DELIVERY, device_queue

pytestmark = pytest.mark.envoy

WORKER_ID = "worker-real"
QUEUE = "tests"


@workflow.defn
class Deliver:
    """Brings one message to the device's queue."""

    @workflow.run
    async def run(self, activity: str, message: Any) -> Any:
        return await workflow.execute_activity(
            activity,
            message,
            task_queue=device_queue(WORKER_ID),
            schedule_to_close_timeout=timedelta(minutes=2),
            heartbeat_timeout=timedelta(seconds=5),
            retry_policy=DELIVERY,
        )


class Site:
    """One device, its Temporal server and a model repository with two versions."""

    def __init__(self, root: Path, artifacts_url: str, client: Any, address: str) -> None:
        self.root = root
        self.client = client
        self.model = ModelRepository(root, root / "artifacts", artifacts_url)
        self.commits = {version: self.model.release(version, factor=factor) for version, factor in VERSIONS.items()}
        self.port = free_port()
        config = root / "worker.yaml"
        dump_yaml(
            config,
            {
                "worker_id": WORKER_ID,
                "supported_schema_versions": ["3.0.0"],
                "capacity": {"max_models": 2, "max_memory": "2Gi", "max_cpu": 2.0},
                "labels": {"pool": "production", "region": "eu-west-1"},
            },
        )
        argv = [
            sys.executable, "-m", "longshore", "worker-host", "--config", str(config), "--temporal", address,
            "--state-dir", str(root / "state"), "--listen", f"127.0.0.1:{self.port}", "--command-interval", "0.5s",
        ]  # fmt: skip
        self.daemon = Process("worker-host", argv, root / "worker-host.log", dict(os.environ))

    def spec(self, version: str) -> DeploymentSpec:
        with YAML(typ="safe", pure=True) as yaml:
            card = yaml.load(git(self.model.directory, "show", f"v{version}:model-card.yaml"))
        return DeploymentSpec(
            deployment_id="multiplier",
            priority=50,
            endpoint=None,
            card=ModelCard.model_validate(card, strict=False),
            card_repository=self.model.url,
            card_ref=f"v{version}",
            card_commit=git(self.model.directory, "rev-parse", f"v{version}^{{commit}}"),
            code_commit=git(self.model.directory, "rev-parse", f"v{version}^{{commit}}"),
            digest=version.replace(".", "") * 8,
        )

    async def deliver(self, activity: str, message: Any) -> Any:
        return await self.client.execute_workflow(
            Deliver.run, args=[activity, message], id=uuid.uuid4().hex, task_queue=QUEUE
        )

    async def load(self, version: str, generation: int) -> CommandResult:
        command = LoadCommand(**common(generation), spec=self.spec(version))
        return CommandResult.model_validate(await self.deliver("load_model", command))

    async def reload(self, version: str, generation: int, previous: str, *, recreate: bool = False) -> CommandResult:
        old = self.spec(previous)
        command = ReloadCommand(
            **common(generation),
            spec=self.spec(version),
            previous_version=previous,
            previous_digest=old.digest,
            recreate=recreate,
        )
        return CommandResult.model_validate(await self.deliver("reload_model", command))

    async def unload(self, generation: int) -> CommandResult:
        command = UnloadCommand(**common(generation), reason=UnloadReason.DISABLED)
        return CommandResult.model_validate(await self.deliver("unload_model", command))

    async def presence(self, seen: str | None = None, *, hold: bool = True) -> DeviceReport:
        request = PresenceRequest(worker_id=WORKER_ID, seen_digest=seen, hold=hold)
        return DeviceReport.model_validate(await self.deliver("report_presence", request))

    def restart(self, *options: str) -> None:
        """Stop the daemon, and start one with further options."""
        self.daemon.stop()
        self.daemon.argv += options
        self.daemon.start()

    async def infer(self) -> tuple[int, Any]:
        async with httpx2.AsyncClient() as client:
            answer = await client.post(f"http://127.0.0.1:{self.port}/infer/multiplier", json={"x": 7})
            return answer.status_code, answer.json()

    async def answers(self, y: int) -> None:
        async def probe() -> bool:
            with suppress(httpx2.HTTPError):
                return await self.infer() == (200, {"y": y})
            return False

        await eventually(probe, f"the device answers {y}; see {self.daemon.log.read_text()[-3000:]}")

    def sabotage(self, *lines: str) -> None:
        """Let the daemons that start from now on execute some lines first."""
        code = "\n".join((*lines, "from longshore.cli.main import main", "main()"))
        self.daemon.argv[1:3] = ["-c", code]

    def under_load(self) -> Load:
        return Load(f"http://127.0.0.1:{self.port}/infer/multiplier", {"x": 7}, connections=4)

    def heard_from_its_successor(self) -> Any:
        log = self.daemon.log

        async def started_twice() -> bool:
            return log.read_text().count('"worker_host_started"') >= 2

        return started_twice

    def runners(self) -> set[int]:
        """The pids of the runner processes of this site."""
        found = set()
        for process in psutil.process_iter(["cmdline"]):
            line = process.info["cmdline"] or []
            if any(part.endswith("runner.py") for part in line) and any(str(self.root) in part for part in line):
                found.add(process.pid)
        return found


VERSIONS = {"1.0.0": 2, "2.0.0": 3}


def common(generation: int) -> dict[str, Any]:
    return {
        "deployment_id": "multiplier",
        "worker_id": WORKER_ID,
        "generation": generation,
        "cause": "f" * 40,
        "issued_at": datetime.now(UTC),
    }


@asynccontextmanager
async def a_site():
    root = Path(tempfile.mkdtemp(prefix="ls-", dir="/tmp"))
    (root / "artifacts").mkdir()
    temporal = await WorkflowEnvironment.start_local(
        dev_server_existing_path=shutil.which("temporal"), data_converter=pydantic_data_converter
    )
    worker = Worker(temporal.client, task_queue=QUEUE, workflows=[Deliver], workflow_runner=UnsandboxedWorkflowRunner())
    site = None
    try:
        with artifact_server(root / "artifacts") as url:
            address = temporal.client.service_client.config.target_host
            async with worker:
                site = Site(root, url, temporal.client, address)
                site.daemon.start()
                yield site
                await asyncio.to_thread(site.daemon.stop)
    finally:
        if site is not None:
            with suppress(ProcessLookupError, AssertionError):
                site.daemon.stop()
            for process in psutil.process_iter(["cmdline"]):  # a test that failed leaves nothing behind either
                if belongs(process, site):
                    process.kill()
        await temporal.shutdown()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
async def site():
    async with a_site() as site:
        yield site


async def test_the_life_of_a_model(site):
    """LOAD, inference through Envoy, RELOAD, a kill -9 of the daemon, UNLOAD; nothing is left behind."""
    loaded = await site.load("1.0.0", 1)
    assert loaded.version == "1.0.0"
    assert await site.infer() == (200, {"y": 14})

    assert (await site.reload("2.0.0", 2, "1.0.0")).version == "2.0.0"
    assert await site.infer() == (200, {"y": 21})
    [runner] = site.runners()

    site.daemon.kill()
    assert await site.infer() == (200, {"y": 21})
    site.daemon.start()
    report = await site.presence()
    assert [(model.version, model.state) for model in report.models] == [("2.0.0", "ready")]
    assert site.runners() == {runner}
    assert (await site.load("2.0.0", 2)).already_done

    assert (await site.unload(3)).version is None
    status, problem = await site.infer()
    assert (status, problem["type"].rpartition(":")[2]) == (503, "disabled")
    assert site.runners() == set()


async def test_a_version_that_fits_only_alone_is_recreated(site):
    """The old version goes first; one that then cannot load leaves the model FAILED, and the device serving nothing."""
    whole = {"resources": {"cpu": 0.1, "memory": "2Gi"}}
    site.model.release("3.0.0", factor=4, card=whole)
    site.model.release("4.0.0", broken=True, card=whole)
    await site.load("1.0.0", 1)
    [old] = site.runners()

    assert (await site.reload("3.0.0", 2, "1.0.0", recreate=True)).version == "3.0.0"
    assert await site.infer() == (200, {"y": 28})
    assert old not in site.runners()
    [model] = (await site.presence()).models
    assert (model.reserved.memory, model.load_seconds > 0) == (2 * 2**30, True)

    with pytest.raises(WorkflowFailureError) as failed:
        await site.reload("4.0.0", 3, "3.0.0", recreate=True)
    assert failed.value.cause.cause.type == "MODEL_LOAD_FAILED"
    status, problem = await site.infer()
    assert (status, problem["type"].rpartition(":")[2]) == (503, "not-loaded")
    [model] = (await site.presence()).models
    assert (model.state, model.generation, model.error.code) == ("failed", 3, "MODEL_LOAD_FAILED")
    assert site.runners() == set()


async def test_an_offline_reboot_serves(site):
    """With Temporal, git and the artifact store away, a device that starts from nothing serves what it served."""
    await site.load("1.0.0", 1)
    os.kill(site.daemon.popen.pid, signal.SIGTERM)
    await asyncio.to_thread(site.daemon.popen.wait, 60)
    assert site.runners() == set()
    shutil.rmtree(site.root / "artifacts")
    shutil.rmtree(site.model.directory)
    argv = site.daemon.argv
    argv[argv.index("--temporal") + 1] = f"127.0.0.1:{free_port()}"
    site.daemon.start()
    await site.answers(14)


async def test_a_handover_keeps_the_runner(site):
    """A daemon that is started with --handover takes over; the presence that was held says `restarting`."""
    await site.load("1.0.0", 1)
    seen = (await site.presence()).digest
    held = asyncio.create_task(site.presence(seen))
    [runner] = site.runners()
    former = site.daemon.popen
    await eventually(lambda: asyncio.to_thread(lambda: '"token"' in noted(site)), "the presence is held")
    site.daemon.argv.append("--handover")
    site.daemon.start()
    assert (await held).status == "restarting"
    await asyncio.to_thread(former.wait, 60)
    assert await site.infer() == (200, {"y": 14})
    assert (await site.presence()).boot_id
    assert site.runners() == {runner}


def belongs(process, site):
    return any(str(site.root / "state") in part for part in process.info["cmdline"] or [])


def noted(site):
    """What the daemon has written down of its presence."""
    with closing(sqlite3.connect(site.root / "state" / "journal.sqlite")) as journal:
        return journal.execute("SELECT text FROM notes WHERE name = 'presence'").fetchone()[0]


async def test_a_handover_under_load_fails_no_request(site):
    """While one daemon takes over from the other, callers notice nothing."""
    await site.load("1.0.0", 1)
    former = site.daemon.popen
    async with site.under_load() as load:
        await load.more(100)
        site.daemon.argv.append("--handover")
        site.daemon.start()
        await asyncio.to_thread(former.wait, 60)
        await eventually(site.heard_from_its_successor(), "the successor reports")
        await load.more(200)
    assert load.outcomes.keys() == {"200"}


@pytest.mark.parametrize(
    ("module", "method"),
    [
        ("proxy.traffic", "Traffic._retire"),
        ("commands.loading", "Loading._now_serves"),
        ("runners.supervisor", "Supervisor.drain"),
    ],
    ids=["after the flip", "before it is noted", "before the drain"],
)
async def test_a_kill_in_the_middle_of_a_reload_fails_no_request(site, module, method):
    """kill -9 at each point after the flip: the next daemon goes on with what Envoy follows, and the RELOAD is done."""
    await site.load("1.0.0", 1)
    site.daemon.kill()
    whole = list(site.daemon.argv)
    owner, _, name = method.partition(".")
    site.sabotage(
        f"import os, signal; from longshore.worker_host.{module} import {owner}",
        f"{owner}.{name} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)",
    )
    site.daemon.start()
    async with site.under_load() as load:
        reloading = asyncio.create_task(site.reload("2.0.0", 2, "1.0.0"))
        await asyncio.to_thread(site.daemon.popen.wait, 60)
        await load.more(50)
        site.daemon.argv[:] = whole
        site.daemon.start()
        assert (await reloading).version == "2.0.0"
        await load.more(50)
    assert load.outcomes.keys() == {"200"}
    assert await site.infer() == (200, {"y": 21})
    assert len(site.runners()) == 1


async def test_sigterm_under_load_cuts_no_request(site):
    """What has been let in is answered; then nobody is let in any more, and nothing is left running."""
    site.model.release("3.0.0", factor=4, predict_seconds=0.05)
    await site.load("3.0.0", 1)
    async with site.under_load() as load:
        await load.more(50)
        os.kill(site.daemon.popen.pid, signal.SIGTERM)
        await asyncio.to_thread(site.daemon.popen.wait, 60)
    # Refused is who comes too late; cut off would be ConnectionResetError or RemoteProtocolError.
    assert load.outcomes.keys() <= {"200", "ConnectionRefusedError"}
    assert not [process for process in psutil.process_iter(["cmdline"]) if belongs(process, site)]


async def test_sigterm_with_drain_waits_until_the_models_have_moved(site):
    """It says so at once, serves and obeys meanwhile, and ends when its last model has been unloaded."""
    site.restart("--drain")
    await site.load("1.0.0", 1)
    seen = (await site.presence()).digest
    held = asyncio.create_task(site.presence(seen))
    await eventually(lambda: asyncio.to_thread(lambda: '"token"' in noted(site)), "the presence is held")
    os.kill(site.daemon.popen.pid, signal.SIGTERM)
    report = await held
    assert (report.draining, report.status) == (True, "healthy")
    assert (await site.reload("2.0.0", 2, "1.0.0")).version == "2.0.0"
    assert await site.infer() == (200, {"y": 21})
    await site.unload(3)
    await asyncio.to_thread(site.daemon.popen.wait, 60)
    assert '"drain_patience_over"' not in site.daemon.log.read_text()


async def test_a_second_sigterm_ends_a_drain(site):
    """Whoever insists does not wait for models that nobody moves."""
    site.restart("--drain")
    await site.load("1.0.0", 1)
    os.kill(site.daemon.popen.pid, signal.SIGTERM)

    async def draining() -> bool:
        return '"worker_host_draining"' in site.daemon.log.read_text()

    await eventually(draining, "the host drains")
    assert await site.infer() == (200, {"y": 14})
    os.kill(site.daemon.popen.pid, signal.SIGTERM)
    await asyncio.to_thread(site.daemon.popen.wait, 60)
    assert site.runners() == set()


async def test_a_drain_ends_with_its_patience(site):
    """A fleet that has no other place for its models holds no device up for ever."""
    site.restart("--drain", "--drain-patience", "1s")
    await site.load("1.0.0", 1)
    os.kill(site.daemon.popen.pid, signal.SIGTERM)
    await asyncio.to_thread(site.daemon.popen.wait, 60)
    assert '"drain_patience_over"' in site.daemon.log.read_text()
    assert site.runners() == set()


async def test_a_daemon_whose_part_dies_leaves_its_models_serving(site):
    """A defect ends the daemon with an error; runners and Envoy serve on, and the next daemon adopts them."""
    await site.load("1.0.0", 1)
    [runner] = site.runners()
    site.daemon.kill()
    whole = list(site.daemon.argv)
    site.sabotage(
        "import asyncio; from longshore.worker_host.agent import Agent",
        "async def die(self): await asyncio.sleep(1); raise KeyError('a defect')",
        "Agent.run = die",
    )
    site.daemon.start()
    assert await asyncio.to_thread(site.daemon.popen.wait, 60) == 1
    assert "SideTaskDied" in site.daemon.log.read_text()
    assert await site.infer() == (200, {"y": 14})
    site.daemon.argv[:] = whole
    site.daemon.start()
    assert (await site.presence()).boot_id
    assert site.runners() == {runner}


async def test_an_unload_while_envoy_is_down(site):
    """What was disabled while Envoy could not be started is disabled when Envoy is back."""
    site.daemon.argv += ["--ack-timeout", "1s"]
    site.daemon.kill()
    site.daemon.start()
    await site.load("1.0.0", 1)
    [envoy] = [p for p in psutil.process_iter(["cmdline", "name"]) if belongs(p, site) and p.info["name"] == "envoy"]
    envoy.suspend()
    unloaded = await site.unload(2)
    envoy.resume()
    assert unloaded.state == "idle"
    assert site.runners() == set()
    status, problem = await site.infer()
    assert (status, problem["type"].rpartition(":")[2]) == (503, "disabled")


async def test_a_port_that_is_taken_ends_the_start(site):
    """The operator is told which port it is, and no Envoy stays behind that serves nobody."""
    await asyncio.to_thread(site.daemon.stop)
    with socket.create_server(("127.0.0.1", site.port)):
        site.daemon.start()
        assert await asyncio.to_thread(site.daemon.popen.wait, 60) == 1
    said = site.daemon.log.read_text()
    assert "cannot bind" in said
    assert f"127.0.0.1:{site.port}" in said
    assert not [process for process in psutil.process_iter(["cmdline"]) if belongs(process, site)]


async def test_a_state_folder_of_another_worker_is_refused(site):
    """Its models, generations and tokens are that worker's; nothing of it is touched."""
    await site.load("1.0.0", 1)
    [runner] = site.runners()
    site.daemon.kill()
    config = site.root / "worker.yaml"
    config.write_text(config.read_text().replace(WORKER_ID, "worker-wrong"))
    site.daemon.start()
    assert await asyncio.to_thread(site.daemon.popen.wait, 60) == 1
    assert f"belongs to {WORKER_ID}" in site.daemon.log.read_text()
    assert site.runners() == {runner}
    config.write_text(config.read_text().replace("worker-wrong", WORKER_ID))
    site.daemon.start()
    assert (await site.presence()).boot_id


async def test_a_kill_during_a_load_is_made_good_by_the_next_daemon(site):
    """The command is delivered again when its heartbeats have stopped, and done once."""
    site.model.release("3.0.0", factor=4, load_seconds=3)
    loading = asyncio.create_task(site.load("3.0.0", 1))
    await eventually(lambda: asyncio.sleep(0, site.runners()), "a runner starts")
    site.daemon.kill()
    site.daemon.start()
    assert (await loading).version == "3.0.0"
    assert await site.infer() == (200, {"y": 28})
    assert len(site.runners()) == 1
