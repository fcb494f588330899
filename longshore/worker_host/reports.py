"""The device's word about itself (PRD §6.3): from the journal, the runners and Envoy's counters."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime

from longshore.schemas.cards import Resources
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.devices import BreakerReport, DeviceReport, DeviceStatus, ModelReport
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.slots import Demand
from longshore.schemas.workers import WorkerConfig
from longshore.worker_host import resources
from longshore.worker_host.commands import admission
from longshore.worker_host.commands.bringing_up import BringingUp
from longshore.worker_host.commands.parts import Hook, Runners
from longshore.worker_host.journal import Journal, Record, Traffic
from longshore.worker_host.resources import HostSampler
from longshore.worker_host.runners.instances import Instance


class Reporter:
    def __init__(
        self,
        worker: WorkerConfig,
        journal: Journal,
        runners: Runners,
        bringing_up: BringingUp,
        *,
        count_requests: Hook,
        progress: Callable[[str], float | None],
        pythons: Callable[[], tuple[str, ...]],
        breakers: Callable[[], tuple[BreakerReport, ...]],
        cached: Callable[[], Awaitable[tuple[str, ...]]],
        data_address: str,
        clock: Callable[[], datetime],
    ) -> None:
        """`progress`: how far the command at work on a deployment is (0 to 1), None where there is none."""
        self._worker = worker
        self._journal = journal
        self._runners = runners
        self._bringing_up = bringing_up
        self._count_requests = count_requests
        self._progress = progress
        self._pythons = pythons
        self._breakers = breakers
        self._cached = cached
        self._data_address = data_address
        self._clock = clock
        self._sequence = itertools.count(1)
        self.boot_id = secrets.token_hex(8)
        self._host = HostSampler()
        self._status = DeviceStatus.HEALTHY
        self._goodbye: DeviceStatus | None = None
        self._draining = False

    def say(self, goodbye: DeviceStatus) -> None:
        """Report this status from now on: `leaving` or `restarting`."""
        self._goodbye = goodbye

    def drain(self) -> None:
        """Ask in every report from now on that the models be moved elsewhere."""
        self._draining = True

    async def report(self) -> DeviceReport:
        """Return a fresh report, numbered."""
        await self._count_requests()
        running = {instance.instance_id: instance for instance in self._runners.running()}
        cached = await self._cached()
        traffic, reserved = self._journal.traffic(), self._bringing_up.reserved()
        records = self._journal.records()
        models = tuple(
            self._model(record, running, traffic.get(record.deployment_id), reserved.get(record.deployment_id, ()))
            for record in records
            if _worth_telling(record)
        )
        self._status = resources.status(self._worker.capacity, sum(m.memory_bytes for m in models), self._status)
        return DeviceReport(
            worker_id=self._worker.worker_id,
            boot_id=self.boot_id,
            sequence=next(self._sequence),
            status=self._goodbye or self._status,
            timestamp=self._clock(),
            capacity=admission.reserved(self._worker.capacity, reserved),
            models=models,
            data_address=self._data_address,
            pythons=self._pythons(),
            usage=self._host.sample(),
            breakers=self._breakers(),
            draining=self._draining,
            highest_generation=max((record.generation for record in records), default=0),
            cached=cached,
        )

    def _model(
        self,
        record: Record,
        running: Mapping[str, Instance],
        traffic: Traffic | None,
        reserved: Iterable[Resources],
    ) -> ModelReport:
        spec = record.spec
        mine = [instance for instance in running.values() if instance.deployment_id == record.deployment_id]
        card = spec.card.resources if spec else None
        return ModelReport(
            deployment_id=record.deployment_id,
            state=record.state,
            generation=record.generation,
            version=spec.version if spec else None,
            digest=spec.digest if spec else None,
            incoming_version=record.incoming_version,
            progress=self._progress(record.deployment_id),
            loaded_at=record.loaded_at,
            last_inference=traffic.last_inference if traffic else None,
            request_count=traffic.requests if traffic else 0,
            memory_bytes=sum(self._runners.memory_bytes(instance.instance_id) for instance in mine),
            cpu=card.cpu if card else 0.0,
            gpu=card.gpu if card else 0,
            error=record.error,
            retry=record.retry,
            reserved=_demand(spec, reserved),
            load_seconds=record.load_seconds,
            fetch_seconds=record.fetch_seconds,
        )


def _demand(spec: DeploymentSpec | None, reserved: Iterable[Resources]) -> Demand:
    """Return what a deployment's instances take; at least what the one that serves needs, be it dead just now."""
    taken = sum((Demand.of(resources) for resources in reserved), Demand())
    return taken.at_least(Demand.of(spec.card.resources)) if spec else taken


def _worth_telling(record: Record) -> bool:
    """Say whether the broker has any use for it: not for what went, without an error, and only fences now."""
    return record.state is not ModelState.IDLE or record.error is not None
