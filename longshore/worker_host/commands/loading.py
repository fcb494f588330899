"""LOAD and RELOAD (PRD §6.2). Which of the two is done follows from what is found, not from the command's name.

A plan may be older than what runs: a LOAD can find a version that serves (then it is replaced without a gap), and a
RELOAD can find nothing (then there is nothing to keep). Either way the spec of the command is what runs afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime

import structlog

from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.failures import LongshoreError
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.workers import WorkerConfig
from longshore.worker_host.commands import admission, steps
from longshore.worker_host.commands.attempts import Attempt
from longshore.worker_host.commands.bringing_up import BringingUp
from longshore.worker_host.commands.lifecycle import Event
from longshore.worker_host.commands.models import Models
from longshore.worker_host.commands.parts import Hook, Routes, Runners
from longshore.worker_host.journal import Record
from longshore.worker_host.processes import uninterrupted
from longshore.worker_host.proxy import routes
from longshore.worker_host.runners.instances import Instance, RunPaths
from longshore.xds.routing import Unavailable

log = structlog.get_logger()


class Loading:
    def __init__(
        self,
        *,
        worker: WorkerConfig,
        models: Models,
        bringing_up: BringingUp,
        runners: Runners,
        traffic: Routes,
        paths: RunPaths,
        count_requests: Hook,
        clock: Callable[[], datetime],
    ) -> None:
        """`count_requests` reads Envoy's counters a last time before those of a replaced version vanish."""
        self._worker = worker
        self._models = models
        self._bringing_up = bringing_up
        self._runners = runners
        self._traffic = traffic
        self._paths = paths
        self._count_requests = count_requests
        self._clock = clock

    async def run(self, spec: DeploymentSpec, attempt: Attempt, *, recreate: bool = False) -> Record:
        """Make `spec` serve. Where its digest serves already, only the record learns of the new spec.

        `recreate`: another version that serves is taken down before, since there is no room for both.
        """
        record = self._models.get(spec.deployment_id)
        serving = self.alive(record)
        await self._clear_away(spec, serving)
        if serving is None:
            former = record.serving if record.serving and record.serving.digest == spec.digest else None
            return await self._load(spec, former, attempt, steps.LOAD)
        if serving.spec.digest == spec.digest:
            renewed = serving.model_copy(update={"spec": spec})
            return self._models.update(spec.deployment_id, serving=renewed, error=None)
        if recreate:
            return await self._recreate(spec, serving, attempt)
        return await self._reload(spec, serving, attempt)

    def alive(self, record: Record) -> Instance | None:
        """Return the instance that serves, where it is not merely remembered."""
        if record.serving is None or record.state not in (ModelState.READY, ModelState.RELOADING):
            return None
        running = {instance.instance_id for instance in self._runners.running()}
        return record.serving if record.serving.instance_id in running else None

    async def _clear_away(self, spec: DeploymentSpec, serving: Instance | None) -> None:
        """Give back the room of what an earlier try or daemon left, and that neither serves nor is wanted."""
        left = [
            instance
            for instance in self._runners.running()
            if instance.deployment_id == spec.deployment_id and instance.digest != spec.digest
            if serving is None or instance.instance_id != serving.instance_id
        ]
        await asyncio.gather(*(self._runners.drain(instance.instance_id) for instance in left))

    async def _load(
        self, spec: DeploymentSpec, former: Instance | None, attempt: Attempt, names: Sequence[str]
    ) -> Record:
        log.info("model_load_started", deployment_id=spec.deployment_id, model_version=spec.version)
        step = attempt.steps.follow(names).step
        with ExitStack() as held:
            self._admit(spec, attempt, held)
            with step("state_loading"):
                self._models.fire(
                    spec.deployment_id,
                    Event.LOAD,
                    incoming_version=spec.version,
                    unavailable=Unavailable.NOT_LOADED,
                    endpoint=spec.endpoint,
                )
            candidate = await self._bringing_up.candidate(spec, attempt.generation, attempt.steps, former)
            with step("route_flip"):
                await self._give_traffic(candidate, attempt)
            with step("state_ready"):
                self._now_serves(candidate)
                record = self._models.fire(spec.deployment_id, Event.LOADED)
        seconds = sum(attempt.steps.seconds.values())
        with step("capacity_update"):  # what is reported follows from the runners there are; nothing is stored
            log.info(
                "model_load_success",
                deployment_id=spec.deployment_id,
                model_version=spec.version,
                total_duration_ms=round(seconds * 1000),
            )
        return record

    async def _reload(self, spec: DeploymentSpec, old: Instance, attempt: Attempt) -> Record:
        _tell_start(spec, old)
        step = attempt.steps.follow(steps.RELOAD).step
        with ExitStack() as held:
            self._admit(spec, attempt, held)
            with step("state_reloading"):
                self._models.fire(spec.deployment_id, Event.RELOAD, incoming_version=spec.version)
            candidate = await self._bringing_up.candidate(spec, attempt.generation, attempt.steps)
            with step("atomic_swap"):
                await self._give_traffic(candidate, attempt)
                self._now_serves(candidate)
        with step("old_version_cleanup"):
            await self._runners.drain(old.instance_id)
        with step("state_ready"):
            record = self._models.fire(spec.deployment_id, Event.RELOADED)
        _tell_success(spec, attempt)
        return record

    async def _recreate(self, spec: DeploymentSpec, old: Instance, attempt: Attempt) -> Record:
        """Replace `old` with a gap. What fails before it is taken down leaves it serving; later, nothing serves.

        An attempt that is stopped in the gap leaves the place empty: whatever stopped it, or its next try, fills it.
        """
        _tell_start(spec, old)
        attempt.steps.follow(steps.RECREATE)
        with ExitStack() as held:
            self._admit(spec, attempt, held, recreate=True)
            materials = await self._bringing_up.materials(spec, attempt.generation, attempt.steps)
            await attempt.lease.confirm()
            await uninterrupted(self._take_down(spec.deployment_id, attempt))
        record = await self._load(spec, materials, attempt, steps.RECREATE)
        _tell_success(spec, attempt)
        return record

    async def _take_down(self, deployment_id: str, attempt: Attempt) -> None:
        step = attempt.steps.step
        with step("state_unloading"):
            gone = {"serving": None, "loaded_at": None, "unavailable": Unavailable.NOT_LOADED}
            record = self._models.fire(deployment_id, Event.UNLOAD, **gone)
        with step("traffic_draining"):
            nobody = routes.to_nobody(record, Unavailable.NOT_LOADED)
            await self._traffic.set_route(nobody, before_removal=self._count_requests)
        with step("in_flight_completion"):
            mine = [i.instance_id for i in self._runners.running() if i.deployment_id == deployment_id]
            await asyncio.gather(*(self._runners.drain(instance_id) for instance_id in mine))
        self._models.fire(deployment_id, Event.UNLOADED)

    def _admit(self, spec: DeploymentSpec, attempt: Attempt, held: ExitStack, *, recreate: bool = False) -> None:
        with attempt.steps.step("command_validation"):
            routes.require_address(spec)
            held.enter_context(self._bringing_up.room_for(spec, recreate=recreate))
        with attempt.steps.step("schema_compatibility_check"):
            admission.require_schema_version(spec, self._worker)

    async def _give_traffic(self, candidate: Instance, attempt: Attempt) -> None:
        async def before_flip() -> None:
            await attempt.pass_point_of_no_return()
            if candidate not in self._runners.running():
                raise LongshoreError("RUNNER_CRASHED", f"{candidate.deployment_id} ended before it got any traffic")

        try:
            await self._traffic.set_route(
                routes.to_instance(candidate, self._paths),
                before_flip=before_flip,
                before_removal=self._count_requests,
            )
        except BaseException as error:  # whatever kept it from its traffic: nobody else will end it
            silent = isinstance(error, LongshoreError) and error.code == "ENVOY_WARM_TIMEOUT"
            # A silent Envoy may have followed. Then it lives until the next try takes it up, or Recovery stops it.
            if not (silent and attempt.turn.committed):
                await uninterrupted(self._runners.stop(candidate.instance_id))
            raise

    def _now_serves(self, instance: Instance) -> None:
        self._models.update(
            instance.deployment_id,
            serving=instance,
            loaded_at=self._clock(),
            endpoint=instance.spec.endpoint,
            unavailable=Unavailable.NOT_LOADED,
            incoming_version=None,
            error=None,
        )


def _tell_start(spec: DeploymentSpec, old: Instance) -> None:
    log.info(
        "model_reload_started", deployment_id=spec.deployment_id, old_version=old.version, new_version=spec.version
    )


def _tell_success(spec: DeploymentSpec, attempt: Attempt) -> None:
    log.info(
        "model_reload_success",
        deployment_id=spec.deployment_id,
        new_version=spec.version,
        total_duration_ms=round(sum(attempt.steps.seconds.values()) * 1000),
    )
