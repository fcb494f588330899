"""A latest-wins actor: it brings one deployment to the target with the highest generation (DESIGN §3).

Every target is answered exactly once: with how its commands ended, or with SUPERSEDED when a newer one won. The
actor ends when nothing is left to do or to say; the next signal starts it anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception

from longshore.activities.rollouts import RolloutActivities
from longshore.schemas.commands import Action
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.failures import Failure
from longshore.schemas.fleet import SlotSettled
from longshore.schemas.plans import DeploymentPlan, PlannedCommand
from longshore.schemas.rollouts import RolloutAnswer, RolloutOutcome, RolloutTarget, SlotResult, SpecRequest
from longshore.workflows import conventions, stories
from longshore.workflows.commands import OVERTAKEN, carry_out
from longshore.workflows.commits import RegistryCommitWorkflow
from longshore.workflows.fleet import FleetWorkflow
from longshore.workflows.outcomes import compact, failure_of


@workflow.defn(failure_exception_types=conventions.DEFECTS)
class RolloutWorkflow:
    @workflow.init
    def __init__(self) -> None:
        self._inbox: list[RolloutTarget] = []
        self._known: dict[tuple[int, str], None] = {}
        self._newest: RolloutTarget | None = None
        self._letters: list[asyncio.Task[None]] = []
        self._progress: dict[str, str] = {}

    @workflow.signal(description="Bring the deployment to this plan; the highest generation wins")
    def set_target(self, target: RolloutTarget) -> None:
        self._inbox.append(target)

    @workflow.run
    async def run(self) -> RolloutAnswer | None:
        await workflow.wait_condition(lambda: bool(self._inbox))
        begun: RolloutTarget | None = None
        answer: RolloutAnswer | None = None
        while self._inbox or self._letters or self._newest is not begun:
            self._read_inbox(begun)
            if self._newest is not None and self._newest is not begun:
                begun = self._newest
                answer = await self._work_on(begun)
                workflow.upsert_search_attributes([conventions.OUTCOME.value_set(answer.outcome)])
                await self._letters_delivered()  # the ledger knows before the commit is told, and writes state to git
                self._reply(begun, answer)
            await self._letters_delivered()
        return answer

    def _read_inbox(self, begun: RolloutTarget | None) -> None:
        """Find the newest target; answer those that it supersedes, except `begun`, which gets its own answer."""
        inbox, self._inbox = self._inbox, []
        for target in inbox:
            key = (target.plan.generation, target.reply_to)
            if key in self._known:
                continue  # delivered again: signal-with-start is retried
            self._known[key] = None
            loser: RolloutTarget | None = target
            if self._newest is None or target.plan.generation > self._newest.plan.generation:
                loser, self._newest = self._newest, target
            if loser is not None and loser is not begun:
                self._reply(loser, _superseded(loser, self._newest))

    async def _work_on(self, target: RolloutTarget) -> RolloutAnswer:
        """Carry out the target, unless a newer one arrives first: then stop, and wait for nothing."""
        workflow.upsert_search_attributes(
            [conventions.DEPLOYMENT.value_set(target.plan.deployment_id), conventions.COMMIT.value_set(target.sha)]
        )
        work = asyncio.create_task(self._carry_out(target))
        while not work.done():
            await workflow.wait_condition(lambda: work.done() or bool(self._inbox))
            if work.done():
                break
            self._read_inbox(target)
            if self._newest is not None and self._newest is not target:
                work.cancel()
                with suppress(asyncio.CancelledError):
                    await work
                return _superseded(target, self._newest)
        return work.result()

    async def _carry_out(self, target: RolloutTarget) -> RolloutAnswer:
        commands = _by_worker(target.plan)
        self._progress = {
            stories.command_summary(target.plan, command): "waiting" for queue in commands for command in queue
        }
        self._tell_story(target)
        # Beside the commands: an UNLOAD needs no spec, and does not wait for a git host that is away.
        spec = asyncio.create_task(self._resolve_spec(target))
        windows: list[list[asyncio.Task[list[SlotResult]]]] = []
        try:
            for first in range(0, len(commands), conventions.FAN_OUT_WINDOW):
                if windows:
                    await workflow.wait(windows[-1], timeout=conventions.FAN_OUT_PAUSE.total_seconds())
                window = commands[first : first + conventions.FAN_OUT_WINDOW]
                windows.append([asyncio.create_task(self._serve(target, queue, spec)) for queue in window])
            served = await asyncio.gather(*(task for window in windows for task in window))
        finally:
            for task in (spec, *(task for window in windows for task in window)):
                task.cancel()
        return _answer(target, tuple(result for results in served for result in results))

    async def _resolve_spec(self, target: RolloutTarget) -> DeploymentSpec | Failure | None:
        """Return what the devices are to run, why that cannot be known, or None where nothing is to run."""
        plan = target.plan
        if plan.digest is None or all(command.action is Action.UNLOAD for command in plan.commands):
            return None
        try:
            return await workflow.execute_activity_method(
                RolloutActivities.resolve_spec,
                SpecRequest(
                    registry=target.registry, sha=target.sha, deployment_id=plan.deployment_id, digest=plan.digest
                ),
                task_queue=conventions.BROKER_QUEUE,
                start_to_close_timeout=conventions.VALIDATION_TIMEOUT,
                schedule_to_close_timeout=conventions.BROKER_PATIENCE,
                heartbeat_timeout=conventions.BROKER_HEARTBEAT_TIMEOUT,
                retry_policy=conventions.BROKER_RETRY,
                cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
                summary=f"what {plan.deployment_id} {plan.version} consists of",
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise asyncio.CancelledError from error
            return failure_of(error)

    async def _serve(
        self, target: RolloutTarget, queue: list[PlannedCommand], spec: asyncio.Task[DeploymentSpec | Failure | None]
    ) -> list[SlotResult]:
        """Carry out one device's commands, each after the one before has ended."""
        results = []
        for planned in queue:
            label = stories.command_summary(target.plan, planned)
            self._progress[label] = "under way"
            self._tell_story(target)
            wanted = None if planned.action is Action.UNLOAD else await spec
            result, settled = await carry_out(target, planned, wanted, label)
            if settled is not None:
                self._tell_ledger(target, settled)
            self._progress[label] = f"{result.failure.code}: {result.failure.message}" if result.failure else "done"
            self._tell_story(target)
            results.append(result)
        return results

    def _reply(self, target: RolloutTarget, answer: RolloutAnswer) -> None:
        commit = workflow.get_external_workflow_handle_for(RegistryCommitWorkflow.run, target.reply_to)
        self._post(target.reply_to, commit.signal(RegistryCommitWorkflow.answer, answer))

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

    def _tell_story(self, target: RolloutTarget) -> None:
        workflow.set_current_details(stories.rollout_story(target, self._progress))


def _by_worker(plan: DeploymentPlan) -> list[list[PlannedCommand]]:
    """Return each device's commands, what makes room first: queue order is never relied on (DESIGN §3)."""
    queues: dict[str, list[PlannedCommand]] = {}
    for command in sorted(plan.commands, key=lambda command: command.action is not Action.UNLOAD):
        queues.setdefault(command.worker_id, []).append(command)
    return list(queues.values())


def _superseded(target: RolloutTarget, by: RolloutTarget) -> RolloutAnswer:
    return RolloutAnswer(
        deployment_id=target.plan.deployment_id,
        generation=target.plan.generation,
        sha=target.sha,
        outcome=RolloutOutcome.SUPERSEDED,
        version=target.plan.version,
        message=f"superseded by commit {stories.short(by.sha)} (generation {by.plan.generation})",
    )


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
    )
    return answer.model_copy(update={"message": stories.answer_message(target.plan, answer)})
