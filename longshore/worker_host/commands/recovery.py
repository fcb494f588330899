"""Models that should serve and do not: runners that died, and runners that were not there after a reboot.

A crashed model comes back as a *new* instance, through the same steps as at its LOAD and in the same queue, so that a
command that arrives meanwhile takes over. Meanwhile its callers get 503. Its first restart does not wait; too many
crashes within a while make it FAILED. What merely cannot be fetched (a cache was emptied and the network is away) or
written (the disk is full) never does: it is tried for ever.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Set as AbstractSet
from datetime import timedelta

import structlog

from longshore.schemas.failures import Backoff, Category, Failure, LongshoreError
from longshore.schemas.lifecycle import ModelState
from longshore.worker_host.commands.attempts import Attempt, OwnInitiative, defect
from longshore.worker_host.commands.command_queue import CommandQueue, Rank, Turn
from longshore.worker_host.commands.lifecycle import Event
from longshore.worker_host.commands.loading import Loading
from longshore.worker_host.commands.models import Models
from longshore.worker_host.commands.parts import Routes, Runners
from longshore.worker_host.commands.steps import Steps
from longshore.worker_host.journal import Record
from longshore.worker_host.proxy import routes
from longshore.worker_host.runners.instances import Instance
from longshore.xds.routing import Unavailable

log = structlog.get_logger()

_DISK = {"DISK_FULL", "IO_ERROR"}


def resume(record: Record, alive: AbstractSet[str]) -> Event | None:
    """Return what a daemon that starts must tell the table about this record, if anything. Pure.

    `alive`: the instances that were adopted. A command that was interrupted is over: its next delivery starts anew.
    """
    serves = record.serving is not None and record.serving.instance_id in alive
    match record.state:
        case ModelState.READY:
            return None if serves else Event.CRASHED
        case ModelState.RELOADING:
            return Event.KEPT
        case ModelState.LOADING if record.serving is None:
            return Event.STOPPED
        case ModelState.LOADING:
            return Event.LOADED if serves else None
        case ModelState.UNLOADING:
            return Event.UNLOADED
        case ModelState.IDLE | ModelState.FAILED:
            return None


class Recovery:
    def __init__(
        self,
        *,
        models: Models,
        queue: CommandQueue,
        loading: Loading,
        runners: Runners,
        traffic: Routes,
        backoff: Backoff,
        window: timedelta,
    ) -> None:
        self._models = models
        self._queue = queue
        self._loading = loading
        self._runners = runners
        self._traffic = traffic
        self._backoff = backoff
        self._window = window.total_seconds()
        self._crashes: defaultdict[str, list[float]] = defaultdict(list)
        self._turns: dict[str, Turn] = {}
        """The restarts that are under way."""
        self._stopping = False

    def resume(self, adopted: AbstractSet[str]) -> None:
        """Settle every record that a former daemon left, before the first route is told."""
        for record in self._models.all():
            event = resume(record, adopted)
            if event is not None:
                self._models.fire(record.deployment_id, event, incoming_version=None)

    def start(self) -> None:
        """Bring back what should serve and does not. Called again from time to time, for what was abandoned."""
        for record in self._models.all():
            self.look_after(record.deployment_id)

    def runner_exited(self, instance: Instance, failure: Failure) -> None:
        """Take note that a runner died on its own (the supervisor's `on_exit`)."""
        log.error(
            "runner_exited",
            deployment_id=instance.deployment_id,
            instance_id=instance.instance_id,
            code=failure.code,
            message=failure.message,
        )
        record = self._models.get(instance.deployment_id)
        if record.serving is None or record.serving.instance_id != instance.instance_id:
            return  # a candidate: whoever brings it up has been told
        self._crashes[instance.deployment_id].append(time.monotonic())
        if record.state is ModelState.READY:
            self._models.fire(instance.deployment_id, Event.CRASHED, error=failure)
        self.look_after(instance.deployment_id)

    def look_after(self, deployment_id: str) -> None:
        """Start to bring a model back, if it should serve, does not, and no command is at work on it.

        Called again when a command has ended, which may have found the model crashed and not replaced it.
        """
        record = self._models.get(deployment_id)
        if record.serving is None or self._queue.busy(deployment_id) or self._loading.alive(record) or self._stopping:
            return
        if record.state in (ModelState.READY, ModelState.FAILED):
            self._models.fire(deployment_id, Event.CRASHED)
        turn = Turn(deployment_id, record.generation, Rank.LOAD, record.serving.spec.priority)
        turn.task = task = asyncio.create_task(self._bring_back(record.serving, turn), name=f"restart:{deployment_id}")
        self._queue.enter(turn)
        self._turns[deployment_id] = turn
        task.add_done_callback(lambda task: self._ended(deployment_id, turn, task))

    async def stop_unclaimed(self) -> None:
        """Stop the runners that a former daemon or a failed command left, and that no command has asked for again."""
        for instance in self._runners.running():
            record = self._models.get(instance.deployment_id)
            serves = record.serving is not None and record.serving.instance_id == instance.instance_id
            if serves or self._queue.busy(instance.deployment_id):
                continue
            log.warning("runner_unclaimed", deployment_id=instance.deployment_id, instance_id=instance.instance_id)
            turn = Turn(instance.deployment_id, record.generation, Rank.UNLOAD)
            self._queue.enter(turn)
            try:
                async with self._queue.granted(turn):
                    await self._runners.stop(instance.instance_id)
            finally:
                self._queue.leave(turn)

    async def stop(self) -> None:
        """Begin no restart any more, and end those that are under way; what they had begun is gone, or serves."""
        self._stopping = True
        turns = list(self._turns.values())
        for turn in turns:
            turn.stop(None)
        tasks = [turn.task for turn in turns if turn.task]
        if tasks:
            await asyncio.wait(tasks)

    def _ended(self, deployment_id: str, turn: Turn, task: asyncio.Task[None]) -> None:
        self._queue.leave(turn)
        if self._turns.get(deployment_id) is turn:
            del self._turns[deployment_id]
        if task.cancelled():
            return
        if error := task.exception():
            log.error("runner_restart_abandoned", deployment_id=deployment_id, exc_info=error)
        else:
            self.look_after(deployment_id)  # it may have died again in the very moment in which it was there

    async def _bring_back(self, instance: Instance, turn: Turn) -> None:
        spec = instance.spec
        pause = self._pause(spec.deployment_id)
        while pause is not None:
            await asyncio.sleep(pause.total_seconds())
            try:
                async with self._queue.granted(turn):
                    steps = Steps(OwnInitiative().beat)
                    attempt = Attempt(turn.generation, OwnInitiative(), turn, self._queue, steps)
                    await self._loading.run(spec, attempt)
            except Exception as error:  # noqa: BLE001 (whatever keeps a model away, its restart must go on)
                failure = (error if isinstance(error, LongshoreError) else defect(error)).failure
                log.warning("runner_restart_failed", deployment_id=spec.deployment_id, **failure.model_dump())
                self._models.update(spec.deployment_id, error=failure)
                if failure.kind.category is Category.NETWORK or failure.code in _DISK:
                    pause = self._backoff.cap
                elif _may_pass(failure):
                    self._crashes[spec.deployment_id].append(time.monotonic())
                    pause = self._pause(spec.deployment_id)
                else:
                    break
            else:
                log.info("runner_restarted", deployment_id=spec.deployment_id, model_version=spec.version)
                return
        await self._give_up(turn)

    def _pause(self, deployment_id: str) -> timedelta | None:
        """Return how long to wait before the next restart, or None after too many crashes."""
        since = time.monotonic() - self._window
        crashes = self._crashes[deployment_id] = [t for t in self._crashes[deployment_id] if t > since]
        if len(crashes) >= self._backoff.attempts:
            return None
        return self._backoff.delay_after(len(crashes) - 1) if len(crashes) > 1 else timedelta()

    async def _give_up(self, turn: Turn) -> None:
        async with self._queue.granted(turn):
            record = self._models.get(turn.deployment_id)
            log.error("model_failed", deployment_id=turn.deployment_id, code=record.error and record.error.code)
            record = self._models.fire(
                turn.deployment_id, Event.FAILED, serving=None, loaded_at=None, incoming_version=None, completed=None
            )
            await self._traffic.set_route(routes.to_nobody(record, Unavailable.NOT_LOADED))


def _may_pass(failure: Failure) -> bool:
    """Say whether another try may succeed. An OOM may: the device had less memory for a while."""
    return failure.kind.retriable or failure.code == "RUNNER_OOM"
