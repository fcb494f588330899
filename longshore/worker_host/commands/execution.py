"""Commands from Temporal: refused, answered from the journal, or carried out in their turn; failures are counted.

Which failures are tried again, after how long and how often is decided here and nowhere else (DESIGN §3 "Retries"):
Temporal only delivers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from longshore.activities.devices import CommandFailed, Lease
from longshore.schemas.commands import CommandResult, LoadCommand, ReloadCommand, UnloadCommand, UnloadReason
from longshore.schemas.devices import RetryState
from longshore.schemas.failures import Backoff, Category, LongshoreError
from longshore.schemas.lifecycle import ModelState
from longshore.worker_host.commands import steps
from longshore.worker_host.commands.attempts import Attempt, defect
from longshore.worker_host.commands.command_queue import CommandQueue, Rank, Turn
from longshore.worker_host.commands.lifecycle import Event
from longshore.worker_host.commands.loading import Loading
from longshore.worker_host.commands.models import Models
from longshore.worker_host.commands.recovery import Recovery
from longshore.worker_host.commands.steps import Steps
from longshore.worker_host.commands.unloading import Unloading
from longshore.worker_host.journal import Record

AnyCommand = LoadCommand | ReloadCommand | UnloadCommand

log = structlog.get_logger()

# temporalio 1.35 takes a delay of zero for "none given" and then backs off by the delivery policy.
AT_ONCE = timedelta(milliseconds=1)

# Errors kept per generation (PRD §8.2 "Error History"): as many as there are tries, and a few host restarts.
_ERRORS_KEPT = 8


class Commands:
    def __init__(
        self,
        *,
        worker_id: str,
        models: Models,
        queue: CommandQueue,
        loading: Loading,
        unloading: Unloading,
        recovery: Recovery,
        backoff: Backoff,
        interval: timedelta,
        clock: Callable[[], datetime],
    ) -> None:
        """`interval`: time between two beats of a command."""
        self._worker_id = worker_id
        self._models = models
        self._queue = queue
        self._loading = loading
        self._unloading = unloading
        self._recovery = recovery
        self._backoff = backoff
        self._interval = interval.total_seconds()
        self._clock = clock
        self._attempts: dict[str, Attempt] = {}
        self._stopping = False

    def progress(self, deployment_id: str) -> float | None:
        """Return how far the command at work on a deployment is (0 to 1), if there is one."""
        attempt = self._attempts.get(deployment_id)
        return attempt.steps.progress.progress if attempt else None

    async def execute(self, command: AnyCommand, lease: Lease) -> CommandResult:
        """Implement `activities.devices.Host.execute`."""
        with structlog.contextvars.bound_contextvars(
            deployment_id=command.deployment_id, correlation_id=command.correlation_id
        ):
            log.info("command_received", command_type=_kind(command))
            try:
                earlier = self._admit(command)
            except LongshoreError as error:
                raise self._told(error) from error
            if earlier is not None:
                log.info("command_already_done")
                return earlier
            return await self._carry_out(command, lease)

    async def stop(self) -> None:
        """Refuse what comes, stop what can be stopped with HOST_RESTART, and wait for the rest to complete."""
        self._stopping = True
        for turn in self._queue.turns:
            turn.stop(_host_restart())
        tasks = [turn.task for turn in self._queue.turns if turn.task]
        if tasks:
            await asyncio.wait(tasks)

    def _admit(self, command: AnyCommand) -> CommandResult | None:
        """Refuse the command, or return its earlier result, or remember its generation: synchronously, all of it."""
        if self._stopping:
            raise _host_restart()
        if command.worker_id != self._worker_id:
            raise LongshoreError("WRONG_DEVICE", f"this is {self._worker_id}, the command is for {command.worker_id}")
        record = self._models.get(command.deployment_id)
        if command.generation < record.generation:
            message = f"generation {command.generation} came after {record.generation}"
            raise LongshoreError("STALE_GENERATION", message)
        done = record.completed
        if done and done.generation == command.generation and done.digest == _digest(command):
            return done.model_copy(update={"already_done": True})
        if command.generation > record.generation:
            # From here on nothing older comes back, whatever happens to this command (DESIGN §3 "Device workers").
            self._models.update(
                command.deployment_id, generation=command.generation, retry=None, error=None, completed=None
            )
        return None

    async def _carry_out(self, command: AnyCommand, lease: Lease) -> CommandResult:
        turn = Turn(command.deployment_id, command.generation, _rank(command), self._priority(command))
        attempt = Attempt(command.generation, lease, turn, self._queue, Steps(lease.beat))
        self._queue.enter(turn)
        turn.task = task = asyncio.create_task(self._run(command, attempt), name=command.correlation_id)
        cancelled = False
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:  # Temporal's word; an attempt past its point of no return completes
                cancelled = True
                turn.stop(None)
        self._queue.leave(turn)
        self._recovery.look_after(command.deployment_id)
        if not task.cancelled():
            return task.result()
        if turn.verdict is None and cancelled:
            raise asyncio.CancelledError
        raise self._told(turn.verdict or _host_restart())

    async def _run(self, command: AnyCommand, attempt: Attempt) -> CommandResult:
        beating = asyncio.create_task(self._keep_beating(attempt), name=f"beat:{command.correlation_id}")
        try:
            async with self._queue.granted(attempt.turn):
                self._attempts[command.deployment_id] = attempt
                try:
                    return await self._act(command, attempt)
                finally:
                    del self._attempts[command.deployment_id]
        finally:
            beating.cancel()

    async def _act(self, command: AnyCommand, attempt: Attempt) -> CommandResult:
        """Carry out a command whose turn it is, and settle the model's state before the turn ends."""
        try:
            await attempt.lease.confirm()
            if isinstance(command, UnloadCommand):
                record = await self._unloading.run(command.deployment_id, command.reason, attempt)
            else:
                recreate = isinstance(command, ReloadCommand) and command.recreate
                record = await self._loading.run(command.spec, attempt, recreate=recreate)
        except asyncio.CancelledError:
            self._settle(command, None)
            raise
        except LongshoreError as error:
            raise self._failed(command, error, attempt) from error
        except Exception as error:
            log.exception("command_defect")
            raise self._failed(command, defect(error), attempt) from error
        return self._completed(command, record, attempt)

    async def _keep_beating(self, attempt: Attempt) -> None:
        while True:
            attempt.lease.beat(attempt.steps.progress)
            await asyncio.sleep(self._interval)

    def _completed(self, command: AnyCommand, record: Record, attempt: Attempt) -> CommandResult:
        result = CommandResult(
            deployment_id=command.deployment_id,
            worker_id=self._worker_id,
            generation=command.generation,
            state=record.state,
            version=record.spec.version if record.spec else None,
            digest=record.spec.digest if record.spec else None,
            step_seconds=attempt.steps.seconds,
        )
        self._models.update(
            command.deployment_id, completed=result, error=None, retry=None, **steps.timings(attempt.steps.seconds)
        )
        return result

    def _failed(self, command: AnyCommand, error: LongshoreError, attempt: Attempt) -> CommandFailed:
        """Settle the model's state, count the failure where something is broken, and return what Temporal is told."""
        failure = error.failure
        ours = failure.kind.category is Category.CONTROL
        self._settle(command, None if ours else error)
        facts = {
            "error_type": error.code,
            "error_message": failure.message,
            "step": failure.step or attempt.steps.progress.step,
            "stack_trace": failure.details,
        }
        match command:
            case _ if ours:
                log.info("command_stopped", **facts)
            case LoadCommand():
                log.error("model_load_failed", **facts)
            case ReloadCommand():
                log.error("model_reload_failed", **facts)
            case UnloadCommand():
                log.error("model_unload_failed", **facts)
        return self._told(error) if ours else CommandFailed(error, self._count(command, error))

    @staticmethod
    def _told(error: LongshoreError) -> CommandFailed:
        """Return a control failure as Temporal is told: not counted by anyone.

        FENCED may be delivered again: where the lease is lost the answer is ignored anyhow, and where the attempt
        was merely paused or reset by an operator it has to come back.
        """
        return CommandFailed(error, AT_ONCE if error.code in ("HOST_RESTART", "FENCED") else None)

    def _count(self, command: AnyCommand, error: LongshoreError) -> timedelta | None:
        record = self._models.get(command.deployment_id)
        if record.generation != command.generation:
            return None  # a newer command has begun to count anew
        attempts = record.retry.attempts + 1 if record.retry else 1
        errors = (*(record.retry.errors if record.retry else ()), error.failure)
        retry_in = self._backoff.delay_after(attempts) if error.failure.kind.retriable else None
        now = self._clock()
        retry = RetryState(
            attempts=attempts,
            last_attempt=now,
            next_attempt=now + retry_in if retry_in is not None else None,
            errors=errors[-_ERRORS_KEPT:],
        )
        self._models.update(command.deployment_id, retry=retry)
        return retry_in

    def _settle(self, command: AnyCommand, error: LongshoreError | None) -> None:
        """Leave the state that the command was in; `error` is None where nothing is broken."""
        deployment_id = command.deployment_id
        changes = {"incoming_version": None, "error": error and error.failure}
        match self._models.get(deployment_id).state, error:
            case ModelState.RELOADING, _:
                self._models.fire(deployment_id, Event.KEPT, **changes)
            case ModelState.LOADING, None:
                self._models.fire(deployment_id, Event.STOPPED, incoming_version=None)
            case ((ModelState.LOADING | ModelState.UNLOADING | ModelState.IDLE | ModelState.FAILED), LongshoreError()):
                self._models.fire(deployment_id, Event.FAILED, **changes)
            case ModelState.READY, LongshoreError():
                self._models.update(deployment_id, error=error.failure)
            case _:
                pass

    def _priority(self, command: AnyCommand) -> int:
        spec = self._models.get(command.deployment_id).spec if isinstance(command, UnloadCommand) else command.spec
        return spec.priority if spec else 0


def _kind(command: AnyCommand) -> str:
    match command:
        case LoadCommand():
            return "LOAD"
        case ReloadCommand():
            return "RELOAD"
        case UnloadCommand():
            return "UNLOAD"


def _rank(command: AnyCommand) -> Rank:
    match command:
        case LoadCommand():
            return Rank.LOAD
        case ReloadCommand():
            return Rank.RELOAD
        case UnloadCommand(reason=UnloadReason.DISABLED):
            return Rank.DISABLE
        case UnloadCommand(reason=UnloadReason.EVICTED):
            return Rank.EVICT
        case UnloadCommand():
            return Rank.UNLOAD


def _digest(command: AnyCommand) -> str | None:
    return None if isinstance(command, UnloadCommand) else command.spec.digest


def _host_restart() -> LongshoreError:
    return LongshoreError("HOST_RESTART", "the worker host is stopping")
