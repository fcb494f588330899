"""The ledger of one registry: which commit is applied, which device holds what, and who asked for it.

Plans are made one at a time, against the ledger as it then stands, so that no plan is stale (DESIGN §3).
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from datetime import datetime

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from longshore.activities.boundary import MAX_PAYLOAD, fitting
from longshore.activities.fleet import FleetActivities
from longshore.schemas.devices import DeviceRecord
from longshore.schemas.failures import Failure, LongshoreError
from longshore.schemas.fleet import (
    FleetInput,
    FleetSettings,
    FleetView,
    PlanAnswer,
    PlanningInput,
    PlanRequest,
    SlotSettled,
    WatchRequest,
)
from longshore.schemas.held import (
    VERBS,
    Acceptance,
    Accepted,
    HeldBack,
    accept,
    after_plan,
    check_name,
    hold,
    named,
    started,
)
from longshore.schemas.ledger import reserve, settle
from longshore.workflows import conventions, stories
from longshore.workflows.outcomes import failure_of


@workflow.defn(failure_exception_types=conventions.DEFECTS)
class FleetWorkflow:
    @workflow.init
    def __init__(self, start: FleetInput) -> None:
        self._registry = start.registry
        self._settings = start.settings
        self._applied = start.applied_sha
        self._generation = start.generation
        self._watched = start.watched_sha
        self._devices = dict(start.devices)
        self._slots = start.slots
        self._answers = {answer.request_id: answer for answer in start.answers}
        self._held = start.held
        self._queue: deque[PlanRequest] = deque()
        self._waiting: dict[str, asyncio.Future[PlanAnswer]] = {}
        self._planning = False
        self._rewatch = False
        self._settled_meanwhile: list[SlotSettled] = []

    @workflow.run
    async def run(self, start: FleetInput) -> None:  # noqa: ARG002 (taken by __init__: handlers may run before this)
        self._watching = asyncio.create_task(self._watch())
        self._restarting = asyncio.create_task(self._restart())
        while not self._is_due_and_drained():
            self._tell_story()
            await workflow.wait_condition(self._has_work)
            for endless in (self._watching, self._restarting):
                if endless.done():
                    endless.result()  # it never returns: this raises the defect that ended it
            if self._rewatch:
                await self._watch_anew()
            if self._queue:
                await self._answer(self._queue.popleft())
        # The old run's watch ends at its next heartbeat; until then it can only start a commit that starts once.
        workflow.continue_as_new(self._carried_over())

    @workflow.update
    async def plan(self, request: PlanRequest) -> PlanAnswer:
        """Return what the commit changes; the same request gets the same answer, also across continue-as-new."""
        if recorded := self._recorded(request):
            return recorded
        if request.request_id not in self._waiting:
            self._waiting[request.request_id] = asyncio.Future()
            self._queue.append(request)
        return await self._waiting[request.request_id]

    @plan.validator
    def refuse_foreign_requests(self, request: PlanRequest) -> None:
        if request.registry != self._registry:
            raise ValueError(f"this is the fleet of {self._registry!r}, not of {request.registry!r}")
        if not request.sha or not request.request_id:
            raise ValueError("a plan request names a commit and its own id")

    @workflow.update
    def accept(self, acceptance: Acceptance) -> Accepted:
        """Let a commit through that is held back, and start its workflow again; once more, it is the same answer."""
        if accepted := self._let_through(acceptance):
            return accepted
        meant = named(self._held, acceptance)
        now = Accepted(sha=meant.sha, code=meant.code, by=acceptance.by.strip(), at=workflow.now())
        self._held = accept(self._held, now)
        self._tell_story()
        return named(self._held, acceptance).accepted or now

    @accept.validator
    def refuse_what_is_not_held_back(self, acceptance: Acceptance) -> None:
        check_name(acceptance)
        try:
            self._let_through(acceptance) or named(self._held, acceptance)
        except LongshoreError as error:
            raise _refusal(error.failure, retriable=False) from error

    @workflow.signal(description="The settings of a broker that has just started")
    def configure(self, settings: FleetSettings) -> None:
        """Take over the settings of the broker that has just started; the watch begins anew with them."""
        if settings != self._settings:
            self._settings = settings
            self._rewatch = True

    @workflow.signal(description="A device's health or models have changed")
    def device_changed(self, record: DeviceRecord) -> None:
        self._devices[record.worker_id] = record
        self._tell_story()

    @workflow.signal(description="A command on a device has ended")
    def slot_settled(self, event: SlotSettled) -> None:
        """Keep the ledger. A plan under way has seen it as it was, so what settles meanwhile waits for the plan."""
        self._settled_meanwhile.append(event)
        if not self._planning:
            self._apply_settled()

    @workflow.query(description="The ledger: applied commit, devices, slots, plan")
    def fleet(self) -> FleetView:
        applied = self._applied_answer()
        plan = applied.plan if applied else None
        left = (
            self._devices.keys() - plan.workers if plan else frozenset()
        )  # a device that left git is not of the fleet
        return FleetView(
            registry=self._registry,
            applied_sha=self._applied,
            generation=self._generation,
            devices={name: record for name, record in self._devices.items() if name not in left},
            slots=self._slots,
            plan=plan,
            held_back=self._held,
        )

    def _has_work(self) -> bool:
        ended = self._watching.done() or self._restarting.done()
        return bool(self._queue) or self._rewatch or ended or self._is_due_and_drained()

    async def _watch_anew(self) -> None:
        self._rewatch = False
        self._watching.cancel()
        with suppress(asyncio.CancelledError):
            await self._watching
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            try:
                self._watched = await workflow.execute_activity_method(
                    FleetActivities.watch_registry,
                    WatchRequest(
                        registry=self._registry,
                        seen_sha=self._watched,
                        poll_interval=self._settings.poll_interval,
                    ),
                    start_to_close_timeout=conventions.WATCH_TIMEOUT,
                    heartbeat_timeout=conventions.BROKER_HEARTBEAT_TIMEOUT,
                    retry_policy=conventions.BROKER_RETRY,
                    summary=f"waiting for a commit after {stories.short(self._watched)}",
                )
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise asyncio.CancelledError from error
                context = {"registry": self._registry, "error": failure_of(error).message}
                workflow.logger.error("registry_watch_ended", extra={"context": context})
                await workflow.sleep(self._settings.poll_interval)

    async def _restart(self) -> None:
        while True:
            await workflow.wait_condition(lambda: any(held.due for held in self._held))
            await asyncio.gather(*(self._start_again(held) for held in self._held if held.due))

    async def _start_again(self, held: HeldBack) -> None:
        try:
            await workflow.execute_activity_method(
                FleetActivities.start_commit_again,
                held,
                start_to_close_timeout=conventions.BROKER_PATIENCE,
                schedule_to_close_timeout=conventions.BROKER_PATIENCE,
                heartbeat_timeout=conventions.BROKER_HEARTBEAT_TIMEOUT,
                retry_policy=conventions.BROKER_RETRY,
                summary=f"start {stories.short(held.sha)} again: {held.accepted or 'what it stands on is applied'}"[
                    :200
                ],
            )
        except ActivityError as error:
            context = {"commit_sha": held.sha, "error": failure_of(error).message}
            workflow.logger.error("commit_not_started_again", extra={"context": context})
        self._held = started(self._held, held)

    async def _answer(self, request: PlanRequest) -> None:
        waiting = self._waiting.pop(request.request_id)
        self._planning = True
        try:
            answer = self._recorded(request) or await self._plan(request)
        except LongshoreError as error:
            waiting.set_exception(_refusal(error.failure, retriable=False))
        except ActivityError as error:
            failure = failure_of(error)
            waiting.set_exception(_refusal(failure, retriable=failure.kind.retriable))
        else:
            self._answers[request.request_id] = answer
            while len(self._answers) > conventions.ANSWERS_KEPT:
                del self._answers[next(iter(self._answers))]
            waiting.set_result(answer)
        finally:
            self._planning = False
            self._apply_settled()

    async def _plan(self, request: PlanRequest) -> PlanAnswer:
        await self._hear_new_devices(request.workers)
        answer = await workflow.execute_activity_method(
            FleetActivities.plan_commit,
            fitting(
                PlanningInput(
                    request=request,
                    applied_sha=self._applied,
                    generation=self._generation,
                    devices=self._devices,
                    slots=self._slots,
                    held=self._held,
                    mass_unload_limit=self._settings.mass_unload_limit,
                )
            ),
            start_to_close_timeout=conventions.VALIDATION_TIMEOUT,
            # The next commit waits for this one: the asker asks again, and lets others through meanwhile.
            schedule_to_close_timeout=conventions.VALIDATION_TIMEOUT,
            heartbeat_timeout=conventions.BROKER_HEARTBEAT_TIMEOUT,
            retry_policy=conventions.BROKER_RETRY,
            summary=f"plan {stories.short(request.sha)} on top of {stories.short(self._applied)}",
        )
        if answer.plan is not None:
            self._slots = reserve(self._slots, answer.plan)
            self._generation = answer.plan.generation
            self._applied = answer.sha
            self._held = after_plan(self._held, answer.held_descendants)
            workflow.upsert_search_attributes([conventions.COMMIT.value_set(answer.sha)])
        elif answer.outcome.code in VERBS:
            self._held = hold(self._held, _held_back(answer, workflow.now()))
        return answer

    async def _hear_new_devices(self, workers: tuple[str, ...]) -> None:
        """Give devices that the ledger has never met a moment to say what they hold, once."""
        new = [worker_id for worker_id in workers if worker_id not in self._devices]
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: all(worker_id in self._devices for worker_id in new),
                timeout=self._settings.first_report_grace,
            )
        for worker_id in new:
            self._devices.setdefault(worker_id, DeviceRecord(worker_id=worker_id))

    def _recorded(self, request: PlanRequest) -> PlanAnswer | None:
        answer = self._answers.get(request.request_id)
        if answer is None and request.sha == self._applied:
            answer = self._applied_answer()
        return answer and answer.model_copy(update={"request_id": request.request_id})

    def _applied_answer(self) -> PlanAnswer | None:
        planned = (a for a in reversed(self._answers.values()) if a.plan is not None and a.sha == self._applied)
        return next(planned, None)

    def _let_through(self, acceptance: Acceptance) -> Accepted | None:
        """Return who accepted the applied commit, where that is what is asked for."""
        applied = self._applied_answer()
        for accepted in applied.accepted if applied else ():
            if acceptance.sha and accepted.sha.startswith(acceptance.sha) and accepted.code == acceptance.code:
                return accepted
        return None

    def _apply_settled(self) -> None:
        for event in self._settled_meanwhile:
            self._slots = settle(self._slots, event)
        self._settled_meanwhile.clear()
        self._tell_story()

    def _is_due_and_drained(self) -> bool:
        due = workflow.info().is_continue_as_new_suggested()
        return due and not self._queue and workflow.all_handlers_finished()

    def _carried_over(self) -> FleetInput:
        ledger = FleetInput(
            registry=self._registry,
            settings=self._settings,
            applied_sha=self._applied,
            generation=self._generation,
            watched_sha=self._watched,
            devices=self._devices,
            slots=self._slots,
            held=self._held,
        )
        room = MAX_PAYLOAD - len(ledger.model_dump_json())
        return ledger.model_copy(update={"answers": _newest_within(tuple(self._answers.values()), room)})

    def _tell_story(self) -> None:
        waiting = len(self._queue) + self._planning
        story = stories.fleet_story(
            self._applied, self._generation, self._devices, self._slots, waiting, held=self._held
        )
        workflow.set_current_details(story)


def _held_back(answer: PlanAnswer, now: datetime) -> HeldBack:
    code = answer.outcome.code or ""
    return HeldBack(sha=answer.sha, code=code, reason=answer.reason, run_id=answer.request_id, since=now)


def _refusal(failure: Failure, *, retriable: bool) -> ApplicationError:
    return ApplicationError(
        f"{failure.code}: {failure.message}",
        failure.model_dump(mode="json"),
        type=failure.code,
        non_retryable=not retriable,
    )


def _newest_within(answers: tuple[PlanAnswer, ...], limit: int) -> tuple[PlanAnswer, ...]:
    """Return the newest answers, oldest first, whose JSON together stays within `limit` bytes."""
    kept: list[PlanAnswer] = []
    for answer in reversed(answers):
        limit -= len(answer.model_dump_json())
        if limit < 0:
            break
        kept.append(answer)
    return tuple(reversed(kept))
