"""One device's daemon, from its first to its last moment (DESIGN §5 "Start-up order").

Start: lock the state folder → journal → prove each runner → routes of what is proved → only then bind the ADS socket →
Envoy → Temporal. Nobody is asked for anything on the way, so that a device that is offline serves what it served. A
new Envoy that cannot open its port ends the start: whoever has the port is the operator's to find.

SIGTERM and SIGINT finish or break off what is under way, say goodbye, drain and stop everything. With the setting
`drain`, SIGTERM first serves and obeys until the fleet has moved every model elsewhere, or patience ends. SIGHUP leaves
runners and Envoy running for the next daemon.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

import structlog

from longshore.schemas.devices import BreakerReport, DeviceStatus
from longshore.schemas.failures import Failure, LongshoreError
from longshore.schemas.workers import WorkerConfig
from longshore.worker_host.agent import Agent
from longshore.worker_host.breakers import Breaker
from longshore.worker_host.commands.bringing_up import Stores
from longshore.worker_host.host import Outside, WorkerHost
from longshore.worker_host.journal import Journal
from longshore.worker_host.proxy import routes
from longshore.worker_host.proxy.envoy import Envoy
from longshore.worker_host.proxy.stats import ClusterStats
from longshore.worker_host.proxy.traffic import Traffic
from longshore.worker_host.runners.instances import Instance, RunPaths
from longshore.worker_host.runners.supervisor import Supervisor
from longshore.worker_host.runners.support import Support
from longshore.worker_host.settings import WorkerHostSettings
from longshore.worker_host.state_dir import StateDir
from longshore.worker_host.stores import caches
from longshore.worker_host.stores.artifacts import Artifacts
from longshore.worker_host.stores.checkouts import Checkouts
from longshore.worker_host.stores.environments import Environments

log = structlog.get_logger()


_PYTHONS_NOTE, _OWNER_NOTE = "pythons", "worker_id"


# Between two looks at whether a draining host is empty.
_LOOK_SECONDS = 0.5


class Stop(Enum):
    DRAIN = "drain"
    HANDOVER = "handover"


class SideTaskDied(Exception):
    """A part that runs as long as the daemon has ended; its own error is the cause."""


class Daemon:
    def __init__(
        self, settings: WorkerHostSettings, worker: WorkerConfig, state: StateDir, journal: Journal, paths: RunPaths
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._cache = state.cache
        self._stop: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()
        self._emptying: asyncio.Task[None] | None = None
        self._breakers = tuple(Breaker(name) for name in ("git", "packages", "storage"))
        git, packages, storage = self._breakers
        self._environments = Environments(state.cache, packages)
        self._supervisor = Supervisor(
            paths,
            journal,
            start_timeout=settings.start_timeout.total_seconds(),
            drain_timeout=settings.drain_timeout.total_seconds(),
            on_exit=self._runner_exited,
            support=Support(state.cache / "support"),
        )
        ads_socket = paths.root / "ads.sock"
        self._envoy = Envoy(
            paths.root,
            node_id=worker.worker_id,
            ads_socket=ads_socket,
            state=state.root,
            drain_timeout=settings.drain_timeout.total_seconds(),
        )
        self._traffic = Traffic(
            ads_socket,
            node_id=worker.worker_id,
            listen=settings.listen_address,
            arriving=self._envoy.arriving,
            ack_timeout=settings.ack_timeout.total_seconds(),
        )
        self._paths = paths
        artifacts = Artifacts(state.cache, storage)
        outside = Outside(
            paths=paths,
            stores=Stores(Checkouts(state.cache, git), self._environments, artifacts),
            runners=self._supervisor,
            traffic=self._traffic,
            stats=self._stats,
            pythons=self._pythons,
            breakers=self._breaker_reports,
            cached=artifacts.cached,
        )
        self._host = WorkerHost(settings, worker, journal, outside)
        self._agent = Agent(settings, worker.worker_id, self._host, self._host.presence)

    async def run(self) -> None:
        """Serve until a signal. Raises SideTaskDied, and then leaves runners and Envoy running."""
        self._listen_to_signals()
        await self._start()
        side_tasks = [
            asyncio.create_task(self._agent.run(), name="agent"),
            asyncio.create_task(self._housekeeping(), name="housekeeping"),
            asyncio.create_task(self._collect(), name="collector"),
        ]
        waited: list[asyncio.Future[Any]] = [self._stop, *side_tasks]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        dead = [task for task in side_tasks if task.done()]
        await self._end(Stop.HANDOVER if dead else self._stop.result())
        if self._emptying:
            self._emptying.cancel()
        for task in side_tasks:
            task.cancel()
        await asyncio.gather(*side_tasks, return_exceptions=True)
        if dead:
            log.error("side_task_died", task=dead[0].get_name())
            raise SideTaskDied(dead[0].get_name()) from dead[0].exception()

    async def _start(self) -> None:
        adopted = await self._supervisor.adopt()
        alive = {instance.instance_id for instance in adopted}
        self._host.recovery.resume(alive)
        table = routes.table(self._host.models.all(), alive, self._paths)
        await self._traffic.start(table, spare=[routes.backend(instance, self._paths) for instance in adopted])
        if self._journal.note(_PYTHONS_NOTE) is None:
            await self._probe()
        if not await self._envoy.ensure():
            await self._require_listener()
        self._host.recovery.start()
        log.info("worker_host_started", adopted=len(adopted), listen=self._settings.listen)

    async def _require_listener(self) -> None:
        """Raise XDS_NACK where Envoy cannot listen, and leave no Envoy behind that serves nobody."""
        try:
            await self._traffic.listening()
        except LongshoreError as error:
            log.warning("envoy_not_listening", code=error.code, error=error.failure.message)
            if error.code == "XDS_NACK":
                await self._envoy.stop()
                raise

    async def _end(self, stop: Stop) -> None:
        log.info("worker_host_stopping", how=stop.value)
        handover = stop is Stop.HANDOVER
        self._host.reporter.say(DeviceStatus.RESTARTING if handover else DeviceStatus.LEAVING)
        await self._agent.stop(self._host.commands.stop)
        await self._host.recovery.stop()
        if handover:
            self._envoy.release()
            self._supervisor.release()
        else:
            await self._envoy.stop()
            await self._supervisor.stop_all()
        await self._traffic.stop()
        log.info("worker_host_stopped")

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._terminate)
        loop.add_signal_handler(signal.SIGINT, self._request, Stop.DRAIN)
        loop.add_signal_handler(signal.SIGHUP, self._request, Stop.HANDOVER)

    def _terminate(self) -> None:
        if not self._settings.drain or self._emptying:
            self._request(Stop.DRAIN)
            return
        log.info("worker_host_draining", models=self._host.models.at_work())
        self._host.drain()
        self._emptying = asyncio.create_task(self._emptied(), name="emptying")
        self._emptying.add_done_callback(lambda _: self._request(Stop.DRAIN))

    async def _emptied(self) -> None:
        """Return when no model is left here, or when patience ends."""
        try:
            async with asyncio.timeout(self._settings.drain_patience.total_seconds()):
                while self._host.models.at_work():  # noqa: ASYNC110 (they are in the journal: there is no event)
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            log.warning("drain_patience_over", models=self._host.models.at_work())

    def _request(self, stop: Stop) -> None:
        if not self._stop.done():
            self._stop.set_result(stop)

    def _runner_exited(self, instance: Instance, failure: Failure) -> None:
        self._host.recovery.runner_exited(instance, failure)

    async def _stats(self) -> Mapping[str, ClusterStats]:
        counters = await self._envoy.stats()
        clusters = {i.instance_id: routes.backend(i, self._paths).cluster for i in self._supervisor.running()}
        return {name: counters[cluster] for name, cluster in clusters.items() if cluster in counters}

    async def _probe(self) -> None:
        pythons = await self._environments.probe()
        with suppress(LongshoreError):  # it is only a note
            self._journal.write_note(_PYTHONS_NOTE, " ".join(pythons))

    def _pythons(self) -> tuple[str, ...]:
        """Return the interpreters as they were last started: looking again takes a second, and is no hurry."""
        return self._environments.pythons() or tuple((self._journal.note(_PYTHONS_NOTE) or "").split())

    def _breaker_reports(self) -> tuple[BreakerReport, ...]:
        return tuple(breaker.report() for breaker in self._breakers)

    async def _housekeeping(self) -> None:
        """Tidy up after the former daemon, then see again and again to what nobody else sees to."""
        try:
            await self._traffic.settled()
        except LongshoreError as error:  # it stays as it is until the next move of traffic
            log.warning("envoy_unsettled", code=error.code, error=error.failure.message)
        if not self._environments.pythons():
            await self._probe()
        while True:
            await asyncio.sleep(self._settings.unclaimed_after.total_seconds())
            try:
                self._host.recovery.start()
                await self._host.recovery.stop_unclaimed()
            except LongshoreError as error:
                log.warning("housekeeping_failed", **error.failure.model_dump())

    async def _collect(self) -> None:
        while True:
            await asyncio.sleep(self._settings.cache_interval.total_seconds())
            try:
                await caches.collect(self._cache, self._named(), self._settings.cache_max_bytes)
            except OSError as error:  # a sick disk under the caches is no reason to stop serving
                log.warning("cache_collection_failed", error=str(error))

    def _named(self) -> set[Path]:
        """Return every path that the journal names: what runs, and what would be started after a reboot."""
        serving = (record.serving for record in self._host.models.all() if record.serving)
        instances = [*self._journal.all(), *serving]
        return {Path(path) for i in instances for path in (i.python, i.checkout, i.artifacts)}


async def run(settings: WorkerHostSettings, worker: WorkerConfig) -> None:
    """Be the daemon of one device until a signal. Raises LongshoreError where it cannot start."""
    state = await StateDir(settings.state_dir).acquire(handover=settings.handover)
    journal = Journal(state.journal)
    try:
        _require_owner(journal, worker, state)
        await Daemon(settings, worker, state, journal, state.run_paths(journal)).run()
    finally:
        journal.close()
        state.release()


def _require_owner(journal: Journal, worker: WorkerConfig, state: StateDir) -> None:
    """Raise WORKER_CONFIG_INVALID where the state folder is another worker's: its models and generations are, too."""
    owner = journal.note(_OWNER_NOTE)
    if owner is None:
        journal.write_note(_OWNER_NOTE, worker.worker_id)
    elif owner != worker.worker_id:
        raise LongshoreError("WORKER_CONFIG_INVALID", f"{state.root} belongs to {owner}, not to {worker.worker_id}")
