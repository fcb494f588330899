"""A latest-wins actor: it brings one deployment to the target with the highest generation (DESIGN §3).

Every target is answered exactly once: with how its commands ended or, when another commit's won, with SUPERSEDED. A
newer target of the same commit inherits who awaits the one before. The actor ends when nothing is left to do or to
say; the next signal starts it anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception

from longshore.activities.rollouts import RolloutActivities
from longshore.schemas.commands import Action
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.failures import Failure
from longshore.schemas.fleet import SlotSettled
from longshore.schemas.plans import DeploymentPlan, PlannedCommand
from longshore.schemas.rollouts import (
    Freed,
    FreedRequest,
    RolloutAnswer,
    RolloutInput,
    RolloutOutcome,
    RolloutTarget,
    SlotResult,
    SpecRequest,
    Steering,
)
from longshore.workflows import conventions, stories
from longshore.workflows.commands import carry_out
from longshore.workflows.commits import RegistryCommitWorkflow
from longshore.workflows.fleet import FleetWorkflow
from longshore.workflows.outcomes import OVERTAKEN, compact, failure_of
from longshore.workflows.steering import Barred, Helm, Turns
from longshore.workflows.targets import Targets, withdrawn

Reply = TypeVar("Reply")


@workflow.defn(failure_exception_types=conventions.DEFECTS)
class RolloutWorkflow:
    @workflow.init
    def __init__(self, start: RolloutInput | None = None) -> None:
        self._inbox: list[RolloutTarget] = []
        self._targets = Targets(start)
        self._helm = Helm()
        self._turns: Turns | None = None
        self._asked: list[workflow.ActivityHandle[Any]] = []
        self._letters: list[asyncio.Task[None]] = []
        self._progress: dict[str, str] = {}
        if start is not None and start.steering is not None:
            self._helm.say(start.steering, start.target)

    @workflow.signal(description="Bring the deployment to this plan; the highest generation wins")
    def set_target(self, target: RolloutTarget) -> None:
        self._inbox.append(target)
        # At once, and only when it is new: a word that comes after it is newer.
        if target.steering is not None and target is self._newest():
            self._helm.say(target.steering, target)

    @workflow.signal(description="Pause, resume or abort; what a device has begun is never broken off")
    def steer(self, word: Steering) -> None:
        newest = self._newest()
        if newest is None or not self._helm.say(word, newest):
            return
        context = {"deployment_id": newest.plan.deployment_id, "generation": newest.plan.generation, "by": word.by}
        workflow.logger.info("rollout_steered", extra={"context": context | {"kind": word.kind, "reason": word.reason}})
        if newest is self._targets.newest:
            self._tell_story(newest)
        if self._helm.aborted(newest):
            for question in self._asked:
                question.cancel()

    @workflow.query(description="The generation of the newest target; none before there is one")
    def generation(self) -> int | None:
        newest = self._newest()
        return newest.plan.generation if newest else None

    @workflow.run
    async def run(self, start: RolloutInput | None = None) -> RolloutAnswer | None:  # noqa: ARG002 (taken by __init__)
        await workflow.wait_condition(lambda: bool(self._inbox) or self._targets.waiting)
        answer: RolloutAnswer | None = None
        while self._inbox or self._letters or self._targets.waiting:
            self._read_inbox()
            if self._targets.waiting and self._grown_long():
                await self._letters_delivered()
                if not self._inbox:
                    self._continue_as_new()
                continue
            if (target := self._targets.next()) is not None:
                ended = withdrawn(target) if target.outdated else await self._work_on(target)
                self._targets.end(ended)
                if ended is not None:
                    answer = ended
                    workflow.upsert_search_attributes([conventions.OUTCOME.value_set(ended.outcome)])
                    await self._letters_delivered()  # the ledger knows before the commit is told, and writes it to git
                    self._reply()
            await self._letters_delivered()
        return answer

    def _newest(self) -> RolloutTarget | None:
        known = [target for target in (self._targets.newest, *self._inbox) if target is not None]
        return max(known, key=lambda target: target.plan.generation, default=None)

    def _grown_long(self) -> bool:
        # A history that was begun without it goes on, however long it is.
        return workflow.info().is_continue_as_new_suggested() and workflow.patched(conventions.BRAIN)

    def _continue_as_new(self) -> None:
        carried = self._targets.carried_over()
        if carried is not None:
            steering = self._helm.word_to(carried.target)
            workflow.continue_as_new(carried.model_copy(update={"steering": steering}))

    def _read_inbox(self) -> None:
        """Take in what has arrived; answer what has lost, except the one under way, which gets its own answer."""
        inbox, self._inbox = self._inbox, []
        for target in inbox:
            self._targets.offer(target)
        self._reply()

    async def _work_on(self, target: RolloutTarget) -> RolloutAnswer | None:
        """Carry out the target, unless a newer one arrives first: then stop, and wait for nothing.

        Returns None where the newer one answers in its stead.
        """
        workflow.upsert_search_attributes(
            [conventions.DEPLOYMENT.value_set(target.plan.deployment_id), conventions.COMMIT.value_set(target.sha)]
        )
        work = asyncio.create_task(self._carry_out(target))
        while not work.done():
            await workflow.wait_condition(lambda: work.done() or bool(self._inbox))
            if work.done():
                break
            self._read_inbox()
            if self._targets.waiting:
                work.cancel()
                with suppress(asyncio.CancelledError):
                    await work
                return self._targets.overtaken()
        return work.result()

    async def _carry_out(self, target: RolloutTarget) -> RolloutAnswer:
        commands = _by_worker(target.plan)
        self._progress = {
            stories.command_summary(target.plan, command): "waiting" for queue in commands for command in queue
        }
        self._tell_story(target)
        # Beside the commands: an UNLOAD needs no spec, and does not wait for a git host that is away.
        spec = asyncio.create_task(self._resolve_spec(target))
        self._turns = turns = Turns(target, self._helm, self._turns)
        windows: list[list[asyncio.Task[list[SlotResult]]]] = []
        try:
            for first in range(0, len(commands), conventions.FAN_OUT_WINDOW):
                if windows:
                    await workflow.wait(windows[-1], timeout=conventions.FAN_OUT_PAUSE.total_seconds())
                window = commands[first : first + conventions.FAN_OUT_WINDOW]
                windows.append([asyncio.create_task(self._serve(target, queue, spec, turns)) for queue in window])
            served = await asyncio.gather(*(task for window in windows for task in window))
        finally:
            for task in (spec, *(task for window in windows for task in window)):
                task.cancel()
        return _answer(target, tuple(result for results in served for result in results))

    async def _resolve_spec(self, target: RolloutTarget) -> DeploymentSpec | Barred | None:
        """Return what the devices are to run, why that cannot be known, or None where nothing is to run."""
        plan = target.plan
        if aborted := self._helm.aborted(target):
            return aborted
        if plan.digest is None or all(command.action is Action.UNLOAD for command in plan.commands):
            return None
        asked = workflow.start_activity_method(
            RolloutActivities.resolve_spec,
            SpecRequest(registry=target.registry, sha=target.sha, deployment_id=plan.deployment_id, digest=plan.digest),
            task_queue=conventions.BROKER_QUEUE,
            start_to_close_timeout=conventions.VALIDATION_TIMEOUT,
            schedule_to_close_timeout=conventions.BROKER_PATIENCE,
            heartbeat_timeout=conventions.BROKER_HEARTBEAT_TIMEOUT,
            retry_policy=conventions.BROKER_RETRY,
            cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
            summary=f"what {plan.deployment_id} {plan.version} consists of",
        )
        return await self._replied(target, asked)

    async def _room_made(self, target: RolloutTarget, planned: PlannedCommand) -> Barred | None:
        """Return once what is evicted for this command has gone, or why it does not go."""
        asked = workflow.start_activity_method(
            RolloutActivities.await_freed,
            FreedRequest(registry=target.registry, slots=planned.after),
            task_queue=conventions.BROKER_QUEUE,
            start_to_close_timeout=conventions.WATCH_TIMEOUT,
            heartbeat_timeout=conventions.FREED_HEARTBEAT_TIMEOUT,
            retry_policy=conventions.BROKER_RETRY,
            cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
            summary=f"{planned.worker_id}: {stories.room_words(planned)} must have gone",
        )
        reply = await self._replied(target, asked)
        if isinstance(reply, Freed):
            kept = Failure(code="PREEMPTION_FAILED", message=reply.words)
            return Barred(kept) if reply.outcome == "kept" else None
        return reply

    async def _replied(self, target: RolloutTarget, asked: workflow.ActivityHandle[Reply]) -> Reply | Barred:
        """Return the broker's reply, or why there is none. An abort withdraws the question."""
        self._asked.append(asked)
        try:
            return await asked
        except ActivityError as error:
            if not is_cancelled_exception(error):
                return Barred(failure_of(error))
            if aborted := self._helm.aborted(target):
                return aborted
            raise asyncio.CancelledError from error
        finally:
            self._asked.remove(asked)

    async def _serve(
        self,
        target: RolloutTarget,
        queue: list[PlannedCommand],
        spec: asyncio.Task[DeploymentSpec | Barred | None],
        turns: Turns,
    ) -> list[SlotResult]:
        """Carry out one device's commands, each after the one before has ended."""
        results = []
        for planned in queue:
            label = stories.command_summary(target.plan, planned)
            self._say(target, label, "under way")
            wanted = None if planned.action is Action.UNLOAD else await spec
            if planned.after and not isinstance(wanted, Barred):
                self._say(target, label, f"waits until {stories.room_words(planned)} has gone")
                wanted = turns.barred(planned) or await self._room_made(target, planned) or wanted
                self._say(target, label, "under way")
            turn = partial(self._turn, target, planned, turns, label)
            result, settled = await carry_out(target, planned, wanted, turn, label)
            turns.end(planned, result)
            if settled is not None:
                self._tell_ledger(target, settled)
            self._say(target, label, f"{result.failure.code}: {result.failure.message}" if result.failure else "done")
            results.append(result)
        return results

    async def _turn(self, target: RolloutTarget, planned: PlannedCommand, turns: Turns, label: str) -> Barred | None:
        """Return once the command may begin, or why it never will."""
        waited = False
        while not (barred := turns.barred(planned)) and not turns.free(planned):
            if not waited:
                self._say(target, label, "waits for its turn")
            waited = True
            await workflow.wait_condition(lambda: turns.barred(planned) is not None or turns.free(planned))
        if barred is None:
            turns.begin(planned)
            if waited:
                self._say(target, label, "under way")
        return barred

    def _reply(self) -> None:
        for who, answer in self._targets.replies():
            commit = workflow.get_external_workflow_handle_for(RegistryCommitWorkflow.run, who)
            self._post(who, commit.signal(RegistryCommitWorkflow.answer, answer))

    def _tell_ledger(self, target: RolloutTarget, settled: SlotSettled) -> None:
        fleet_id = conventions.fleet_workflow_id(target.registry)
        fleet = workflow.get_external_workflow_handle_for(FleetWorkflow.run, fleet_id)
        self._post(fleet_id, fleet.signal(FleetWorkflow.slot_settled, settled))

    def _post(self, addressee: str, letter: Coroutine[Any, Any, None]) -> None:
        """Send a letter beside the work: it is never cancelled, and an addressee that has gone is no failure."""

        async def deliver() -> None:
            try:
                await letter
            except FailureError as error:
                context = {"addressee": addressee, "error": str(error)}
                workflow.logger.warning("letter_undelivered", extra={"context": context})

        self._letters.append(asyncio.create_task(deliver()))

    async def _letters_delivered(self) -> None:
        while self._letters:
            await self._letters.pop(0)

    def _say(self, target: RolloutTarget, label: str, state: str) -> None:
        self._progress[label] = state
        self._tell_story(target)

    def _tell_story(self, target: RolloutTarget) -> None:
        awaited_by = target.model_copy(update={"reply_also": self._targets.heirs(target)})
        workflow.set_current_details(stories.rollout_story(awaited_by, self._progress, self._helm.word_to(target)))


def _by_worker(plan: DeploymentPlan) -> list[list[PlannedCommand]]:
    """Return each device's commands, what makes room first: queue order is never relied on (DESIGN §3)."""
    queues: dict[str, list[PlannedCommand]] = {}
    for command in sorted(plan.commands, key=lambda command: command.action is not Action.UNLOAD):
        queues.setdefault(command.worker_id, []).append(command)
    return list(queues.values())


def _answer(target: RolloutTarget, results: tuple[SlotResult, ...]) -> RolloutAnswer:
    codes = {result.failure.code for result in results if result.failure is not None}
    if codes and codes <= OVERTAKEN:
        outcome = RolloutOutcome.SUPERSEDED
    elif codes:
        outcome = RolloutOutcome.FAILED
    else:
        outcome = RolloutOutcome.INCOMPLETE if target.plan.unplaced else RolloutOutcome.DONE
    answer = RolloutAnswer(
        deployment_id=target.plan.deployment_id,
        generation=target.plan.generation,
        sha=target.sha,
        outcome=outcome,
        version=target.plan.version,
        results=compact(results),
        held=target.plan.held,
        given_up=target.plan.unplaced > 0 and not target.plan.without_place,
    )
    return answer.model_copy(update={"message": stories.answer_message(target.plan, answer)})
