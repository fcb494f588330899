"""Record histories that the replay tests read: `python tests/replay/record.py device_brain`.

Run it when a workflow has been changed on purpose, behind `workflow.patched`: with a recorder of the new histories'
own, which writes beside the old files, so that both are proven.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path += [str(HERE.parents[1]), str(HERE.parent / "support"), str(HERE.parent / "planning")]

from fake_device import FakeDevice  # noqa: E402 (after the path above)
from fleets import Wanted, registry, worker  # noqa: E402 (after the path above)
from rollout_stage import Stage, making_room, target  # noqa: E402 (after the path above)
from temporalio.client import AsyncActivityCancelledError  # noqa: E402 (after the path above)
from workflow_world import REGISTRY, World, eventually, real_server, world  # noqa: E402 (after the path above)

from longshore.cli.exits import leave  # noqa: E402 (after the path above)
from longshore.schemas.devices import Health, ModelReport  # noqa: E402 (after the path above)
from longshore.schemas.failures import Failure  # noqa: E402 (after the path above)
from longshore.schemas.held import Acceptance  # noqa: E402 (after the path above)
from longshore.schemas.issues import Audience, Issue  # noqa: E402 (after the path above)
from longshore.schemas.lifecycle import ModelState  # noqa: E402 (after the path above)
from longshore.schemas.orders import Order  # noqa: E402 (after the path above)
from longshore.schemas.plans import CauseKind  # noqa: E402 (after the path above)
from longshore.schemas.telling import Alarm, defect  # noqa: E402 (after the path above)
from longshore.workflows import conventions  # noqa: E402 (after the path above)
from longshore.workflows.alarms import AlarmWorkflow  # noqa: E402 (after the path above)

WORKERS = tuple(worker(f"worker-{letter}") for letter in "ab")


async def record_commits() -> None:
    async with real_server() as client, world(client, **_QUICK) as around:
        await around.start_broker()
        await around.entities.start_fleet()
        for letter in "ab":
            await around.device(f"worker-{letter}")
        await _commits(around)
        await _superseded(around)
        await _failed_device(around)
        await _save(around, conventions.fleet_workflow_id(REGISTRY), "fleet")
        await _save(around, conventions.device_workflow_id("worker-a"), "device-failed-and-recovered")
        await _save(around, conventions.device_workflow_id("worker-b"), "device-healthy")
        await _held_back(around)
        await _save(around, conventions.fleet_workflow_id(REGISTRY), "fleet-accepted")


_QUICK = {
    "heartbeat_interval": timedelta(seconds=1),
    "suspect_after": timedelta(seconds=2),
    "failed_after": timedelta(seconds=4),
}


async def _commits(around: World) -> None:
    steps = {
        "loaded": registry(WORKERS, Wanted("ten", replicas=2)),
        "reloaded": registry(WORKERS, Wanted("ten", version="1.1.0", replicas=2)),
        "unloaded": registry(WORKERS, Wanted("ten", version="1.1.0", replicas=2, enabled=False)),
    }
    for name, snapshot in steps.items():
        sha = around.registry.push(snapshot)
        await around.result(sha)
        await around.settled()
        await _save(around, conventions.commit_workflow_id(REGISTRY, sha), f"commit-{name}")
        await _save(around, conventions.rollout_workflow_id("ten"), f"rollout-{name}")
    issue = Issue(code="MANIFEST_INVALID", file="models/production/ten.yaml", message="replicas is -1")
    sha = around.registry.push(registry(WORKERS), issue)
    await around.result(sha)
    await _save(around, conventions.commit_workflow_id(REGISTRY, sha), "commit-rejected")


async def _superseded(around: World) -> None:
    loading = asyncio.Event()
    never = asyncio.Event()

    async def hang(command: Any) -> None:
        if command.spec.version == "2.0.0":
            loading.set()
            await never.wait()

    for device in around.devices.values():
        device.before = hang
    first = around.registry.push(registry(WORKERS, Wanted("ten", version="2.0.0", replicas=2)))
    handle = await around.commit(first)
    await loading.wait()
    await around.result(around.registry.push(registry(WORKERS, Wanted("ten", version="2.1.0", replicas=2))))
    await handle.result()
    await around.settled()
    await _save(around, conventions.commit_workflow_id(REGISTRY, first), "commit-superseded")
    await _save(around, conventions.rollout_workflow_id("ten"), "rollout-superseded")


async def _held_back(around: World) -> None:
    for device in around.devices.values():
        device.before = None
    for sha, code in (
        (around.registry.rewrite(registry(WORKERS, Wanted("ten", replicas=2))), "HISTORY_REWRITTEN"),
        (around.registry.rewrite(registry(WORKERS), "f0" * 20), "MASS_UNLOAD_BLOCKED"),
    ):
        name = code.lower().replace("_", "-")
        workflow_id = conventions.commit_workflow_id(REGISTRY, sha)
        handle = around.client.get_workflow_handle(workflow_id)
        await around.result(sha)
        await _save(around, workflow_id, f"commit-{name}")
        held = (await handle.describe()).run_id
        fleet = around.client.get_workflow_handle(conventions.fleet_workflow_id(REGISTRY))
        await fleet.execute_update("accept", Acceptance(sha=sha, code=code, by="olga@laptop"))

        async def again(handle: Any = handle, held: str | None = held) -> bool:
            return (await handle.describe()).run_id != held

        await eventually(again, "its workflow is started again")
        await handle.result()
        await around.settled()
    await _save(around, workflow_id, "commit-accepted")


async def _failed_device(around: World) -> None:
    device = around.devices["worker-a"]
    for health in (Health.FAILED, Health.HEALTHY):
        device.silent = health is Health.FAILED

        async def there(health: Health = health) -> bool:
            return (await around.entities.device("worker-a")).health is health

        await eventually(there, f"the device is {health}", timeout=60)


async def record_telling() -> None:
    """Commits of a broker whose settings say whom to tell."""
    channels = {"notify_ops": "json://ops.example/, json://pager.example/", "notify_ml": "json://ml.example/"}
    status = {"status_host": "github", "status_repository": f"acme/{REGISTRY}", "status_token": "t"}
    async with real_server() as client, world(client, **_QUICK, **channels, **status) as around:
        await around.start_broker()
        for letter in "ab":
            await around.device(f"worker-{letter}")
        told = (Audience.OPS, Audience.ML)
        card = Issue(code="CARD_INVALID", file="x@v1.0.0:card.yaml", message="no owner", told=told)
        for name, pushed in {
            "told-applied": (registry(WORKERS, Wanted("ten")),),
            "told-rejected": (registry(WORKERS), card),
        }.items():
            sha = around.registry.push(*pushed)
            await around.result(sha)
            await _save(around, conventions.commit_workflow_id(REGISTRY, sha), f"commit-{name}")


async def record_device_brain() -> None:
    """A device that is odd, unreadable, configured anew, failed and back, in a run that knows the brain."""
    async with real_server() as client, world(client, **_QUICK) as around:
        await around.start_broker()
        await around.entities.start_fleet()
        device = await around.device("worker-a")
        error = Failure(code="RUNNER_OOM", message="killed")
        device.models["ten"] = ModelReport(deployment_id="ten", state=ModelState.FAILED, generation=7, error=error)
        plain = device.report
        device.report = lambda: plain().model_copy(update={"timestamp": datetime(2001, 1, 1, tzinfo=UTC)})
        await around.entities.start_devices(("worker-a",))
        await _held(device)
        device.report = plain
        token, device._held = device._held, None
        await client.get_async_activity_handle(task_token=token).complete({"worker_id": 5})
        await _held(device)
        handle = client.get_workflow_handle(conventions.device_workflow_id("worker-a"))
        shorter = around.settings.presence.model_copy(update={"ping_timeout": timedelta(milliseconds=500)})
        await handle.signal("configure", shorter)

        async def withdrawn() -> bool:
            try:
                await device.beat()
            except AsyncActivityCancelledError:
                await device.say_something()
                return True
            return False

        await eventually(withdrawn, "the presence is withdrawn")
        await _failed_device(around)
        await _save(around, handle.id, "device-brain")


async def record_rollouts() -> None:
    """What makes room for a LOAD goes; a rollout is paused, resumed and aborted; one takes over what another began."""
    for name, play in {"evicting": _evicting, "paused": _paused, "heir": _heir}.items():
        async with real_server() as client, world(client) as around:
            stage = Stage(around)
            await stage.open()
            await play(stage)
            await stage.ended()
            await _save(around, stage.handle.id, f"rollout-{name}")


async def _evicting(stage: Stage) -> None:
    stage.evicting()
    await stage.set(making_room(1))
    await stage.commanded("worker-a")
    stage.ledger = ()


async def _paused(stage: Stage) -> None:
    async def pause(step: str) -> None:
        if step == "resolve 1":
            await stage.steer("pause")

    stage.at = pause
    await stage.set(target(1, workers="abz"))
    await stage.idle()
    await stage.steer("resume")
    await stage.commanded("worker-b")
    await stage.steer("abort")


async def _heir(stage: Stage) -> None:
    async def take_over(step: str) -> None:
        if step == "worker-a 1":
            await stage.set(target(2, commit=1))

    stage.at = take_over
    await stage.set(target(1))


async def record_brain() -> None:
    """A fleet whose device fails and comes back, that takes orders, and is made anew after it was terminated."""
    workers = tuple(worker(f"worker-{letter}") for letter in "abcd")
    async with real_server() as client, world(client, **_QUICK, notify_ops="json://ops.example/") as around:
        await around.start_broker()
        await around.entities.start_fleet()
        for letter in "abcd":
            (await around.device(f"worker-{letter}")).beat_seconds = 0.2
        await around.result(around.registry.push(registry(workers, Wanted("ten", replicas=2))))
        lost, _ = sorted(slot.worker_id for slot in (await around.settled()).slots)
        around.devices[lost].silent = True
        await _ready_without(around, lost)
        await _save_reconciliation(around, CauseKind.WORKER_FAILED, "failed-worker")
        around.devices[lost].silent = False

        async def surplus_gone() -> bool:
            view = await around.settled()
            return len(view.slots) == 2 and view.devices[lost].health is Health.HEALTHY

        await eventually(surplus_gone, "the surplus has gone", timeout=60)
        fleet = around.client.get_workflow_handle(conventions.fleet_workflow_id(REGISTRY))
        drained = next(slot.worker_id for slot in (await around.fleet()).slots)
        await fleet.execute_update("order", Order(kind="drain", target=drained, by="olga"))
        await _ready_without(around, drained)
        await _save_reconciliation(around, CauseKind.DRAIN, "drain")
        for kind in ("pause", "resume"):
            await fleet.signal("give_order", Order(kind=kind, target="ten", by="olga"))
        await fleet.execute_update("order", Order(kind="reconcile", by="olga"))
        await _save(around, fleet.id, "fleet-brain")
        await fleet.terminate("to record how it is made anew")
        await around.entities.keep_fleet()

        async def made_anew() -> bool:
            return len((await around.fleet()).slots) == 2

        await eventually(made_anew, "the ledger knows again what runs")
        await around.result(around.registry.push(registry(workers, Wanted("ten", version="1.1.0", replicas=2))))
        await _save(around, fleet.id, "fleet-rebuilt")


async def record_alarm() -> None:
    """Ops is told of a run that a defect has ended."""
    async with real_server() as client, world(client, notify_ops="json://ops.example/") as around:
        await around.start_broker()
        alarm = Alarm(
            registry=REGISTRY,
            notice=defect(REGISTRY, conventions.reconciliation_workflow_id(REGISTRY, 7), "run-1", "a defect"),
            telling=around.settings.telling,
        )
        workflow_id = conventions.defect_alarm_workflow_id(REGISTRY, "run-1")
        queue = conventions.BROKER_QUEUE
        await client.execute_workflow(AlarmWorkflow.run, alarm, id=workflow_id, task_queue=queue)
        await _save(around, workflow_id, "alarm-told")


async def _ready_without(around: World, worker_id: str) -> None:
    """Wait until both replicas are READY on other devices, and those of this one gone or given up."""

    async def probe() -> bool:
        slots = [slot for slot in (await around.fleet()).slots if slot.state is ModelState.READY]
        there = {slot.worker_id for slot in slots if not slot.replaced}
        return len(there - {worker_id}) == 2 and worker_id not in there

    await eventually(probe, f"both replicas are elsewhere than {worker_id}", timeout=60)


async def _save_reconciliation(around: World, kind: CauseKind, name: str) -> None:
    async def recorded() -> str | None:
        ids = [
            conventions.reconciliation_workflow_id(REGISTRY, request.plan.generation)
            for request in around.registry.reconciled
            if request.result.cause.kind is kind
        ]
        return ids[0] if ids else None

    workflow_id = await eventually(recorded, f"a reconciliation is recorded: {kind}")
    await around.client.get_workflow_handle(workflow_id).result()
    await _save(around, workflow_id, f"reconciliation-{name}")


async def _held(device: FakeDevice) -> None:
    """Wait until the device holds a presence that it has nothing to say to."""

    async def probe() -> bool:
        return device._held is not None

    await eventually(probe, "the device holds a presence")


async def _save(around: World, workflow_id: str, name: str) -> None:
    history = await around.client.get_workflow_handle(workflow_id).fetch_history()
    document = {"workflow_id": workflow_id, **_scrubbed(history.to_json_dict())}
    (HERE / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    print(f"{name}: {len(history.events)} events")  # noqa: T201 (a script)


def _scrubbed(value: Any) -> Any:
    """Leave out what names this machine: identities, sticky queues and stack traces take no part in a replay."""
    if isinstance(value, dict):
        return {key: _scrubbed(child) for key, child in value.items() if key not in {"identity", "stackTrace"}}
    if isinstance(value, list):
        return [_scrubbed(child) for child in value]
    return re.sub(r"^[0-9]+@[A-Za-z0-9.-]+", "recorder", value) if isinstance(value, str) else value


if __name__ == "__main__":
    for name in sys.argv[1:]:
        asyncio.run(globals()[f"record_{name}"]())
    leave(0)
