"""Starts, watches, adopts, drains and stops the runners of one device (DESIGN §5 "Runner", "Journal", "Memory").

An instance stands in the journal from before its process exists until after the last trace of it has gone, so that no
crash of this daemon, at whatever moment, leaves a runner that its successor does not find.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import structlog

from longshore.schemas.failures import Failure, LongshoreError
from longshore.worker_host import locks
from longshore.worker_host.processes import uninterrupted
from longshore.worker_host.runners import runner_client, runner_process
from longshore.worker_host.runners.instances import Instance, InstanceStore, RunPaths
from longshore.worker_host.runners.oom import OomWatch
from longshore.worker_host.runners.runner_client import Answer, Identity
from longshore.worker_host.runners.runner_process import Exit, RunnerProcess
from longshore.worker_host.runners.support import Support
from longshore.worker_host.stores.shelves import disk_errors

log = structlog.get_logger()

# Between SIGTERM and SIGKILL. By then nobody has a connection any more: there is nothing left to finish.
_TERM_GRACE_SECONDS = 5.0

# From the last connection's end until the runner is told to go (DESIGN §5 "Traffic"), and how often it is looked at.
_QUIET_SECONDS = 0.25
_DRAIN_POLL_SECONDS = 0.05

# A model that is ready in 50 ms is seen within 10 ms of it; one that loads for minutes is not asked all the time.
_READY_POLL_FIRST_SECONDS = 0.01
_READY_POLL_LAST_SECONDS = 0.25
_READY_POLL_FACTOR = 1.5

# A runner that was found alive may be in the middle of a long predict() that holds Python's lock.
_ADOPTION_SECONDS = 5.0
_ADOPTION_POLL_SECONDS = 0.05

# The kernel frees gigabytes before it lets go of a killed process.
_KILL_SECONDS = 30.0

# How fresh the count of OOM kills is that an exit is compared with, and how often logs are looked at.
_HOUSEKEEPING_SECONDS = 5.0

# A model that prints for each request fills a disk in a day; what it said last week explains nothing.
_LOG_LIMIT_BYTES = 64 * 1024 * 1024


class _Runner:
    def __init__(self, instance: Instance, process: RunnerProcess) -> None:
        self.instance = instance
        self.process = process
        self.ready = False
        self.leaving: asyncio.Task[None] | None = None
        """Set as soon as it is to go: its end is no news then."""


class Supervisor:
    """Timeouts are in seconds. `on_exit` is called, in the event loop, for each runner that ended unasked."""

    def __init__(
        self,
        paths: RunPaths,
        store: InstanceStore,
        *,
        start_timeout: float,
        drain_timeout: float,
        on_exit: Callable[[Instance, Failure], None],
        support: Support | None = None,
    ) -> None:
        self._paths = paths
        self._store = store
        self._support = support or Support(paths.root / "support")
        self._start_timeout = start_timeout
        self._drain_timeout = drain_timeout
        self._on_exit = on_exit
        self._runners: dict[str, _Runner] = {}
        self._oom = OomWatch()
        self._housekeeping: asyncio.Task[None] | None = None
        self.drains_cut = 0
        """How many runners were killed because requests had not finished within the drain timeout."""

    def running(self) -> list[Instance]:
        """Return every runner that has its model loaded, until it is gone: one that drains still takes its memory."""
        return [runner.instance for runner in self._runners.values() if runner.ready]

    def memory_bytes(self, instance_id: str) -> int:
        """Return the resident memory of a runner and its children, in bytes; 0 if there is none."""
        if instance_id not in self._runners:
            return 0
        try:
            leader = psutil.Process(self._runners[instance_id].process.pid)
            family = (leader, *leader.children(recursive=True))
            return sum(int(process.memory_info().rss) for process in family)
        except psutil.NoSuchProcess:
            return 0

    async def start(self, instance: Instance) -> None:
        """Spawn a runner and return when its model has been loaded.

        Raises LongshoreError RUNNER_CRASHED, RUNNER_OOM, LOAD_TIMEOUT, MODEL_LOAD_FAILED, ENTRYPOINT_INVALID,
        PROCESSING_INVALID, CARD_INVALID, IO_ERROR, DISK_FULL, and what Support.materialise raises. Then, and on
        cancellation, nothing of it is left.
        """
        self._keep_house()
        support = await self._support.materialise(instance.python)
        self._store.save(instance)
        try:
            with disk_errors():
                process = runner_process.spawn(instance, self._paths, support)
        except BaseException:  # no process: only what was written for it has to go
            self._forget(instance.instance_id)
            raise
        runner = self._keep(instance, process)
        try:
            await self._until_ready(runner)
        except BaseException:  # whatever ended it, a cancellation included: half a runner is of no use
            await uninterrupted(self._end(runner, grace=0.0))
            raise
        runner.ready = True

    async def adopt(self) -> list[Instance]:
        """Take over the runners of a former daemon, and remove everything else that it left in the run directory.

        A runner is adopted if its lock is held and it says that it is the instance of the journal, with its model
        loaded. Others are killed and forgotten: one that was still loading, too, since its command starts anew.
        """
        self._keep_house()
        known = {instance.instance_id: instance for instance in self._store.all()}
        found = await asyncio.gather(
            *(self._adopt(name, known.get(name)) for name in sorted({*known, *self._paths.present()}))
        )
        return [instance for instance in found if instance is not None]

    async def infer(self, instance_id: str, document: Any) -> Answer:
        """Ask a runner for one inference, past Envoy. Raises LongshoreError RUNNER_CRASHED, VALIDATION_FAILED."""
        if instance_id not in self._runners:
            raise LongshoreError("RUNNER_CRASHED", f"there is no runner {instance_id}")
        return await runner_client.infer(self._paths.socket(instance_id), document)

    async def drain(self, instance_id: str) -> None:
        """Let a runner go once Envoy has closed its last connection; after the drain timeout, kill it.

        Call it when no route leads there any more. It goes on if the caller is cancelled. Unknown ids are gone already.
        """
        runner = self._runners.get(instance_id)
        if runner is None:
            return
        if runner.leaving is None:
            runner.leaving = asyncio.create_task(self._drain(runner), name=f"drain:{instance_id}")
        await asyncio.shield(runner.leaving)

    async def stop(self, instance_id: str) -> None:
        """End a runner now: what is in work is answered, what is connected is cut off. Unknown ids are gone already."""
        if runner := self._runners.get(instance_id):
            await uninterrupted(self._end(runner, grace=_TERM_GRACE_SECONDS))

    async def stop_all(self) -> None:
        """Stop every runner; for the end of the daemon."""
        await asyncio.gather(*(self.stop(instance_id) for instance_id in list(self._runners)))
        self.release()

    def release(self) -> None:
        """Leave the runners to the next daemon (handover): they run on, and nothing here watches them any more."""
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            self._housekeeping = None
        for runner in self._runners.values():
            if runner.leaving is not None:
                runner.leaving.cancel()
        self._runners.clear()

    def _keep(self, instance: Instance, process: RunnerProcess) -> _Runner:
        runner = self._runners[instance.instance_id] = _Runner(instance, process)
        process.exited.add_done_callback(lambda exited: self._exited(runner, exited.result()))
        return runner

    async def _until_ready(self, runner: _Runner) -> None:
        pause = _READY_POLL_FIRST_SECONDS
        try:
            async with asyncio.timeout(self._start_timeout):
                while not await runner.process.ended_within(pause):
                    who = await runner_client.identity(self._paths.socket(runner.instance.instance_id))
                    if who is not None and who.ready:
                        return
                    pause = min(pause * _READY_POLL_FACTOR, _READY_POLL_LAST_SECONDS)
        except TimeoutError:
            message = (
                f"{runner.instance.deployment_id} {runner.instance.version}: not loaded in {self._start_timeout:g} s"
            )
            details = runner_process.log_tail(runner.instance, self._paths)
            raise LongshoreError("LOAD_TIMEOUT", message, details=details) from None
        raise _error(self._failure(runner, runner.process.exited.result()))

    def _failure(self, runner: _Runner, end: Exit) -> Failure:
        return runner_process.failure(runner.instance, self._paths, end, oom=self._oom.rose())

    def _exited(self, runner: _Runner, end: Exit) -> None:
        instance_id = runner.instance.instance_id
        if not runner.ready or runner.leaving or self._runners.get(instance_id) is not runner:
            return  # whoever starts or ends it is waiting for this, or it has been left to another daemon
        failure = self._failure(runner, end)
        try:
            self._forget(instance_id)
        finally:  # a journal that cannot be written must not hide that a model is gone
            self._on_exit(runner.instance, failure)

    async def _adopt(self, instance_id: str, instance: Instance | None) -> Instance | None:
        who = await self._introduction(instance_id) if instance else None
        if instance and who and _is(instance, who):
            runner = self._keep(instance, runner_process.adopt(instance, self._paths, who.pid))
            runner.ready = True
            log.info("runner_adopted", deployment_id=instance.deployment_id, instance_id=instance_id, pid=who.pid)
            return instance
        await uninterrupted(self._clear(instance_id))
        return None

    async def _introduction(self, instance_id: str) -> Identity | None:
        """Return who a living runner says it is; None if it is dead, or silent for too long."""
        deadline = asyncio.get_running_loop().time() + _ADOPTION_SECONDS
        while locks.held(self._paths.lock(instance_id)):
            who = await runner_client.identity(self._paths.socket(instance_id))
            if who is not None or asyncio.get_running_loop().time() > deadline:
                return who
            await asyncio.sleep(_ADOPTION_POLL_SECONDS)
        return None

    async def _clear(self, instance_id: str) -> None:
        """Kill and forget what another daemon has left of a runner."""
        lock = self._paths.lock(instance_id)
        deadline = asyncio.get_running_loop().time() + _KILL_SECONDS
        if locks.held(lock):
            log.warning("stray_runner_killed", instance_id=instance_id)
        while locks.held(lock) and asyncio.get_running_loop().time() < deadline:
            # It writes its pid as its first act; until then there is none to kill.
            if (pid := locks.holder(lock)) is not None:
                runner_process.signal_group(pid, signal.SIGKILL)
            await asyncio.sleep(_ADOPTION_POLL_SECONDS)
        self._forget(instance_id)

    async def _drain(self, runner: _Runner) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._drain_timeout
        busy_at = clock()
        who = None
        while clock() - busy_at < _QUIET_SECONDS:
            if clock() >= deadline:
                self._note_cut(runner, who)
                return await self._end(runner, grace=0.0)
            if await runner.process.ended_within(_DRAIN_POLL_SECONDS):
                break
            who = await runner_client.identity(self._paths.socket(runner.instance.instance_id))
            if who is None or who.connections or who.in_flight:
                busy_at = clock()
        return await self._end(runner, grace=_TERM_GRACE_SECONDS)

    def _note_cut(self, runner: _Runner, who: Identity | None) -> None:
        self.drains_cut += 1
        log.warning(
            "runner_drain_cut",
            deployment_id=runner.instance.deployment_id,
            instance_id=runner.instance.instance_id,
            connections=who and who.connections,
            in_flight=who and who.in_flight,
        )

    async def _end(self, runner: _Runner, *, grace: float) -> None:
        """Bring a runner to its end, and remove and forget all of it. Several may do so at once."""
        if runner.leaving is None:
            runner.leaving = asyncio.current_task()
        if grace:
            runner.process.signal(signal.SIGTERM)
        if not await runner.process.ended_within(grace):
            runner.process.signal(signal.SIGKILL)
            await runner.process.ended_within(_KILL_SECONDS)
        self._forget(runner.instance.instance_id)

    def _forget(self, instance_id: str) -> None:
        self._runners.pop(instance_id, None)
        for path in self._paths.of(instance_id):
            _remove(path)
        self._store.forget(instance_id)

    def _keep_house(self) -> None:
        if self._housekeeping is None:
            self._housekeeping = asyncio.create_task(self._housekeep(), name="runner-housekeeping")

    async def _housekeep(self) -> None:
        while True:
            self._oom.sample()
            for instance_id in self._runners:
                log_file = self._paths.log(instance_id)
                with contextlib.suppress(FileNotFoundError):  # somebody has tidied up
                    if log_file.stat().st_size > _LOG_LIMIT_BYTES:
                        log.warning("runner_log_truncated", instance_id=instance_id, limit_bytes=_LOG_LIMIT_BYTES)
                        os.truncate(log_file, 0)  # the runner appends: it goes on from there
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)


def _is(instance: Instance, who: Identity) -> bool:
    return who.ready and (who.instance_id, who.digest) == (instance.instance_id, instance.digest)


def _error(failure: Failure) -> LongshoreError:
    return LongshoreError(failure.code, failure.message, details=failure.details)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
