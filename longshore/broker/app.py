"""The broker process: side tasks with names; if one dies, all stop, and the process ends (its supervisor restarts it).

Nothing of what it holds in memory matters: Temporal has the workflows, git has the desired state.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import structlog
from temporalio.client import Client
from temporalio.service import RPCError

from longshore.activities.commits import CommitActivities
from longshore.activities.fleet import FleetActivities
from longshore.activities.planner import Planner
from longshore.activities.reconciliations import ReconciliationActivities
from longshore.activities.records import RecordActivities
from longshore.activities.rollouts import RolloutActivities
from longshore.activities.telling import TellingActivities
from longshore.broker.alarms import Alarms
from longshore.broker.commit_status import CommitStatuses, WebUI
from longshore.broker.control import control_worker
from longshore.broker.entities import Entities
from longshore.broker.http import serve_http
from longshore.broker.keeper import Keeper
from longshore.broker.looking import LookNow
from longshore.broker.notifications import Notifications
from longshore.broker.recorder import RegistryRecorder
from longshore.broker.registry_service import RegistryService
from longshore.broker.settings import BrokerSettings, UpSettings
from longshore.broker.temporal_client import TemporalHealth, connect_patiently, register_search_attributes
from longshore.broker.temporal_server import TemporalServer
from longshore.broker.webhook import Webhook, webhook_app
from longshore.registry.repositories.git import Git
from longshore.registry.repositories.signing import require_verifiable
from longshore.telemetry.metrics import BrokerMetrics

log = structlog.get_logger()

PAUSE_SECONDS = 1.0


async def serve(settings: BrokerSettings) -> None:
    """Be a broker until SIGTERM (returns) or SIGINT, or until one of its parts dies (which raises)."""
    await _until_sigterm(_broker(settings))


async def serve_with_temporal(settings: UpSettings) -> None:
    """Be a broker and its own Temporal server, which stops when this returns."""
    await _until_sigterm(_broker_with_temporal(settings))


async def _broker_with_temporal(settings: UpSettings) -> None:
    server = TemporalServer(settings.state_dir / "temporal", port=settings.temporal_port, ui_port=settings.ui_port)
    broker = BrokerSettings(**dict(settings), temporal=server.address)
    try:
        await server.start()
        await _together({"temporal-server": server.keep_running(), "broker": _broker(broker)})
    finally:
        await server.stop()


async def _broker(settings: BrokerSettings) -> None:
    await require_verifiable(settings.allowed_keys, os.environ)
    client = await connect_patiently(settings)
    await _patiently(lambda: register_search_attributes(client))
    git = Git(settings.state_dir / "git", settings)
    metrics = BrokerMetrics()
    registry = RegistryService(git, settings.registry, settings.branch, keys=settings.allowed_keys, metrics=metrics)
    entities = Entities(client, settings, metrics)
    look_now = LookNow(registry, entities)
    keeper = Keeper(entities, settings.state_dir, settings.keep_interval)
    webhook = Webhook(settings, look_now, TemporalHealth(client).require, metrics)
    await _together(
        {
            "control-worker": _work(client, settings, git, registry, entities),
            "webhook": serve_http(webhook_app(webhook, metrics), settings.webhook_host, settings.webhook_port),
            "look-now": look_now.run(),
            "start-up": _start_up(entities, look_now, keeper),
            "alarms": Alarms(client, settings).run(),
        }
    )


async def _work(
    client: Client, settings: BrokerSettings, git: Git, registry: RegistryService, entities: Entities
) -> None:
    recorder = RegistryRecorder(git, entities, registry, settings)
    commits = CommitActivities(registry, entities, recorder)
    records = RecordActivities(recorder)
    planner = Planner(registry, entities)
    fleet = FleetActivities(registry, registry, entities, planner)
    reconciliations = ReconciliationActivities(planner, registry, entities)
    rollouts = RolloutActivities(entities, registry)
    telling = await _telling(client, settings)
    activities: list[Callable[..., Any]] = [
        commits.validate_commit,
        commits.start_devices,
        commits.ask_fleet_for_plan,
        commits.record_result,
        fleet.plan_commit,
        fleet.watch_registry,
        fleet.start_commit_again,
        reconciliations.start_reconciliation,
        reconciliations.watch_drift,
        reconciliations.hear_devices,
        reconciliations.last_applied,
        records.keep_records,
        records.record_reconciliation,
        rollouts.start_rollouts,
        rollouts.resolve_spec,
        rollouts.await_freed,
        telling.show_status,
        telling.notify,
    ]
    await control_worker(client, activities, max_cached_workflows=settings.max_cached_workflows).run()


async def _telling(client: Client, settings: BrokerSettings) -> TellingActivities:
    web_ui = WebUI(settings.temporal_ui, client.namespace)
    statuses = CommitStatuses(settings.status_host, settings.repository, settings.status_token, web_ui)
    notifications = Notifications(settings.channels, web_ui)
    await asyncio.to_thread(notifications.check)
    return TellingActivities(statuses, notifications, lambda token: client.get_async_activity_handle(task_token=token))


async def _start_up(entities: Entities, look_now: LookNow, keeper: Keeper) -> None:
    """Look at once: the watch of a broker that was killed is taken over only after 30 s. Then keep all alive."""
    await _patiently(keeper.check_durable)
    await _patiently(entities.start_fleet)
    look_now()
    await _patiently(keeper.remember)
    await keeper.run()


async def _patiently(call: Callable[[], Awaitable[None]]) -> None:
    """Repeat an idempotent call until Temporal has taken it."""
    while True:
        try:
            await call()
        except RPCError as error:
            log.warning("temporal_unreachable", error=str(error))
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return


async def _together(parts: Mapping[str, Coroutine[Any, Any, None]]) -> None:
    """Run the parts side by side; the first that fails ends all, and its exception is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for name, part in parts.items():
                group.create_task(part, name=name)
    except BaseExceptionGroup as group_error:
        raise group_error.exceptions[0] from group_error


async def _until_sigterm(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work, name="broker")
    told = asyncio.Event()

    def stop() -> None:
        told.set()
        task.cancel()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not told.is_set():
            raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
