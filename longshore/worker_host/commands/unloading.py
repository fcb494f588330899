"""UNLOAD (PRD §6.2): first nobody is sent there, then those who are there may finish, then it goes."""

from __future__ import annotations

import asyncio

import structlog

from longshore.schemas.commands import UnloadReason
from longshore.worker_host.commands import steps
from longshore.worker_host.commands.attempts import Attempt
from longshore.worker_host.commands.lifecycle import Event
from longshore.worker_host.commands.models import Models
from longshore.worker_host.commands.parts import Hook, Routes, Runners
from longshore.worker_host.journal import Record
from longshore.worker_host.proxy import routes
from longshore.xds.routing import Unavailable

log = structlog.get_logger()


class Unloading:
    def __init__(self, models: Models, runners: Runners, traffic: Routes, *, count_requests: Hook) -> None:
        self._models = models
        self._runners = runners
        self._traffic = traffic
        self._count_requests = count_requests

    async def run(self, deployment_id: str, reason: UnloadReason, attempt: Attempt) -> Record:
        """Take a model away. Where none is loaded, only the answer to its callers changes."""
        log.info("model_unload_started", deployment_id=deployment_id, reason=reason)
        step = attempt.steps.follow(steps.UNLOAD).step
        afterwards = routes.after_unload(reason)
        with step("state_unloading"):
            await attempt.pass_point_of_no_return()
            record = self._models.fire(
                deployment_id, Event.UNLOAD, serving=None, loaded_at=None, unavailable=afterwards, incoming_version=None
            )
        meanwhile = Unavailable.DISABLED if afterwards is Unavailable.DISABLED else Unavailable.DRAINING
        with step("traffic_draining"):
            await self._traffic.set_route(routes.to_nobody(record, meanwhile), before_removal=self._count_requests)
        with step("in_flight_completion"):
            mine = [i.instance_id for i in self._runners.running() if i.deployment_id == deployment_id]
            await asyncio.gather(*(self._runners.drain(instance_id) for instance_id in mine))
        with step("resource_cleanup"):
            if afterwards is None:
                await self._traffic.remove(deployment_id)
            elif afterwards is not meanwhile:
                await self._traffic.set_route(routes.to_nobody(record, afterwards))
        with step("model_removal"):
            record = self._models.fire(deployment_id, Event.UNLOADED, error=None)
        log.info(
            "model_unload_success",
            deployment_id=deployment_id,
            duration_ms=round(sum(attempt.steps.seconds.values()) * 1000),
        )
        return record
