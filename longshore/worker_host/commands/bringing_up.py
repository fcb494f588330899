"""From a spec to a runner that has proved itself: the steps that LOAD, RELOAD and a restart share (PRD §6.2)."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from longshore.schemas.cards import Resources
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.failures import LongshoreError
from longshore.schemas.workers import WorkerConfig
from longshore.worker_host.commands import admission
from longshore.worker_host.commands.parts import ArtifactStore, CodeStore, EnvironmentStore, Runners
from longshore.worker_host.commands.steps import Steps
from longshore.worker_host.commands.validation import validate
from longshore.worker_host.processes import uninterrupted
from longshore.worker_host.runners.instances import Instance

log = structlog.get_logger()

_MEBIBYTE = 1024**2


@dataclass(frozen=True)
class Stores:
    code: CodeStore
    environments: EnvironmentStore
    artifacts: ArtifactStore


class BringingUp:
    """Makes candidates: runners that are validated and have no traffic yet."""

    def __init__(self, worker: WorkerConfig, stores: Stores, runners: Runners) -> None:
        self._worker = worker
        self._stores = stores
        self._runners = runners
        self._incoming: dict[str, DeploymentSpec] = {}

    def reserved(self) -> dict[str, list[Resources]]:
        """Return what takes room here, by deployment: every runner, and what is about to become one."""
        specs = [instance.spec for instance in self._runners.running()]
        specs += [coming for coming in self._incoming.values() if not any(_same(coming, spec) for spec in specs)]
        reservations: defaultdict[str, list[Resources]] = defaultdict(list)
        for spec in specs:
            reservations[spec.deployment_id].append(spec.card.resources)
        return dict(reservations)

    @contextmanager
    def room_for(self, spec: DeploymentSpec, *, recreate: bool = False) -> Iterator[None]:
        """Reserve room for a spec while it is brought up; `recreate`: what serves goes first, and leaves its own.

        Raises CAPACITY_INSUFFICIENT.
        """
        if self._left_over(spec) is None:
            taken = self.reserved()
            if recreate:
                taken.pop(spec.deployment_id, None)
            admission.require_room(self._worker.capacity, taken, spec)
        self._incoming[spec.deployment_id] = spec
        try:
            yield
        finally:
            del self._incoming[spec.deployment_id]

    async def candidate(
        self, spec: DeploymentSpec, generation: int, steps: Steps, former: Instance | None = None
    ) -> Instance:
        """Return a started and validated runner. On any failure, and on cancellation, it is gone again.

        A runner of the same spec that an earlier daemon had started and not yet given traffic is used, not repeated.
        `former` is an instance of this very spec that ran before: what it ran from is used as it lies in the caches,
        so that a device that is offline can do it.
        """
        instance = self._left_over(spec)
        if instance is None:
            if former is not None and _is_there(former):
                instance = _again(former, spec, generation)
            else:
                instance = await self.materials(spec, generation, steps)
            with steps.step("model_initialization"):
                log.debug("model_initialization_started", deployment_id=spec.deployment_id)
                await self._runners.start(instance)
        try:
            with steps.step("model_validation"):
                await self._validate(instance)
        except BaseException:  # whatever ends the trial: an unproved runner is of no use to anyone
            await uninterrupted(self._runners.stop(instance.instance_id))
            raise
        return instance

    async def _validate(self, instance: Instance) -> None:
        deployment_id = instance.deployment_id
        log.debug("model_validation_started", deployment_id=deployment_id)
        start = time.perf_counter()
        try:
            await validate(self._runners, instance.instance_id, instance.spec.card.interface)
        except LongshoreError as error:
            problem = error.failure.message
            log.error("model_validation_failed", deployment_id=deployment_id, validation_error=problem)  # noqa: TRY400 (expected: it needs no traceback of ours)
            raise
        milliseconds = round((time.perf_counter() - start) * 1000)
        log.info("model_validation_success", deployment_id=deployment_id, validation_duration_ms=milliseconds)

    def _left_over(self, spec: DeploymentSpec) -> Instance | None:
        return next((instance for instance in self._runners.running() if _same(instance.spec, spec)), None)

    async def materials(self, spec: DeploymentSpec, generation: int, steps: Steps) -> Instance:
        """Return an instance that could be started: all that it runs from is here."""
        checkout, python, artifacts = await _together(
            self._code(spec, steps), self._environment(spec, steps), self._artifacts(spec, steps)
        )
        return Instance(
            instance_id=_new_id(),
            deployment_id=spec.deployment_id,
            generation=generation,
            spec=spec,
            python=str(python),
            checkout=str(checkout),
            artifacts=str(artifacts),
            created_at=datetime.now(UTC),
        )

    async def _code(self, spec: DeploymentSpec, steps: Steps) -> Path:
        with steps.step("code_checkout"):
            code = spec.card.code
            return await self._stores.code.materialise(code.repository, spec.code_commit, code.path)

    async def _environment(self, spec: DeploymentSpec, steps: Steps) -> Path:
        with steps.step("environment_preparation"):
            return await self._stores.environments.materialise(
                spec.card.runtime, lambda line: steps.detail("environment_preparation", line)
            )

    async def _artifacts(self, spec: DeploymentSpec, steps: Steps) -> Path:
        def beat(done: int, total: int | None) -> None:
            whole = "" if total is None else f" of {total // _MEBIBYTE}"
            steps.detail("artifact_download", f"{done // _MEBIBYTE}{whole} MiB")

        with steps.step("artifact_download"):
            try:
                folder = await self._stores.artifacts.materialise(spec.card.artifacts, beat)
            except LongshoreError as error:
                if error.code != "CHECKSUM_MISMATCH":
                    raise
                raise LongshoreError(error.code, error.failure.message, step="checksum_validation") from error
        with steps.step("checksum_validation"):
            return folder  # computed while it arrived: a folder is what has passed


def _new_id() -> str:
    """Return ten hex digits: 40 bits, so that ids do not repeat within a device's life."""
    return secrets.token_hex(5)


def _is_there(instance: Instance) -> bool:
    return all(Path(path).exists() for path in (instance.python, instance.checkout, instance.artifacts))


def _again(former: Instance, spec: DeploymentSpec, generation: int) -> Instance:
    fresh = {"instance_id": _new_id(), "created_at": datetime.now(UTC), "generation": generation, "spec": spec}
    return former.model_copy(update=fresh)


def _same(one: DeploymentSpec, other: DeploymentSpec) -> bool:
    return one.deployment_id == other.deployment_id and one.digest == other.digest


async def _together(*parts: Coroutine[Any, Any, Path]) -> list[Path]:
    """Run the parts at once. The first error cancels the others, and leaves when they have ended."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
