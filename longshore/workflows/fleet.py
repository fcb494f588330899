"""The ledger of one registry: which commit is applied, which device holds what, and who asked for it.

Plans are made one at a time, against the ledger as it then stands, so that no plan is stale (DESIGN §3). What the
ledger makes of things is decided in `ledger/`; here it is driven by signals, updates, activities and timers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from contextlib import suppress
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError

from longshore.activities.boundary import MAX_PAYLOAD, fitting
from longshore.activities.fleet import FleetActivities
from longshore.activities.reconciliations import ReconciliationActivities
from longshore.schemas.devices import DeviceRecord
from longshore.schemas.failures import Failure, LongshoreError
from longshore.schemas.fleet import (
    FleetInput,
    FleetSettings,
    FleetView,
    PlanAnswer,
    PlanRequest,
    RequestKind,
    SlotSettled,
)
from longshore.schemas.held import Acceptance, Accepted, HeldBack, check_name, named
from longshore.schemas.orders import Order, OrderAnswer
from longshore.schemas.plans import Cause, CauseKind, Plan
from longshore.schemas.reconciliations import Reconciliation
from longshore.schemas.wording import short
from longshore.workflows import conventions, stories
from longshore.workflows.ledger import causes
from longshore.workflows.ledger.machine import Ledger
from longshore.workflows.outcomes import failure_of
from longshore.workflows.rebuilding import hear_new_devices, rebuild
from longshore.workflows.watching import Watches

# What is due by now, by a clock that has moved on a little.
_AT_ONCE = timedelta(milliseconds=100)


@workflow.defn(failure_exception_types=conventions.DEFECTS)
class FleetWorkflow:
    @workflow.init
    def __init__(self, start: FleetInput) -> None:
        self._ledger = Ledger(start)
        self._watches = Watches(self._ledger)
        self._registry = start.registry
        self._queue: deque[PlanRequest] = deque()
        self._waiting: dict[str, asyncio.Future[PlanAnswer]] = {}
        self._endless: list[asyncio.Task[None]] = []
        self._busy = False
        self._rewatch = False
        self._reconciled: str | None = None
        self._suspected = start.suspected
        self._alarms: deque[Plan] = deque()
        # An old run goes on without, until it continues as a new one: when a broker of this release has started.
        self._brain = workflow.patched(conventions.BRAIN)
        self._configured = 0
        self._outdated = False

    @workflow.run
    async def run(self, start: FleetInput) -> None:  # noqa: ARG002 (taken by __init__: handlers may run before this)
        self._watches.begin()
        self._endless.append(asyncio.create_task(self._restart()))
        if self._brain:
            if not self._ledger.state.rebuilt:
                await self._busily(rebuild(self._ledger))
            self._watches.begin_the_rest()
            self._endless += [asyncio.create_task(task) for task in (self._steer(), self._raise_alarms())]
        while not self._is_due_and_drained():
            self._tell_story()
            await self._wait_for_work()
            for endless in self._ended():
                endless.result()  # it never returns: this raises the defect that ended it
            if self._rewatch:
                self._rewatch = False
                await self._watches.begin_anew()
            # A commit goes first: its plan mends what has drifted as well.
            if self._queue:
                await self._busily(self._answer(self._queue.popleft()))
            elif cause := self._due()[0]:
                await self._busily(self._reconcile(cause))
        # The old run's watch ends at its next heartbeat; until then it can only start a commit that starts once.
        workflow.continue_as_new(self._carried_over())

    @workflow.update
    async def plan(self, request: PlanRequest) -> PlanAnswer:
        """Return what the commit changes; the same request gets the same answer, also across continue-as-new."""
        if recorded := self._ledger.recorded(request):
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
        accepted = self._ledger.accepted(acceptance, workflow.now())
        self._tell_story()
        return accepted

    @accept.validator
    def refuse_what_is_not_held_back(self, acceptance: Acceptance) -> None:
        check_name(acceptance)
        try:
            self._ledger.let_through(acceptance) or named(self._ledger.state.held, acceptance)
        except LongshoreError as error:
            raise _refusal(error.failure, retriable=False) from error

    @workflow.update
    async def order(self, order: Order) -> OrderAnswer:
        """Carry out an operator's order, and say which reconciliation does so, where one is needed."""
        try:
            answer = self._ledger.ordered(order, workflow.now())
        except LongshoreError as error:
            raise _refusal(error.failure, retriable=False) from error
        self._tell_story()
        before = self._reconciled
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: not self._ledger.state.causes and not self._busy, timeout=conventions.ORDER_PATIENCE
            )
            if order.kind == "reconcile":
                answer = answer.model_copy(update={"words": "nothing to do"})
        if self._reconciled != before:
            words = "reconciling" if order.kind == "reconcile" else answer.words
            return answer.model_copy(update={"words": words, "workflow_id": self._reconciled})
        return answer

    @order.validator
    def refuse_orders_to_an_old_run(self, order: Order) -> None:  # noqa: ARG002 (whatever it is)
        if not self._brain:
            raise ValueError("this run was begun by an older release: it is renewed when a broker of this one starts")

    @workflow.signal(
        description="An operator's order: cordon, drain, uncordon, pause, resume, abort, release, reconcile"
    )
    def give_order(self, order: Order) -> None:
        """Carry out an order whose sender waits for no answer: the Web UI's."""
        try:
            said = self._ledger.ordered(order, workflow.now()).words if self._brain else "not known to this run"
        except LongshoreError as error:
            said = str(error)
        context = {"order": order.kind, "target": order.target, "by": order.by, "answer": said}
        workflow.logger.info("order_given", extra={"context": context})
        self._tell_story()

    @workflow.signal(description="The settings of a broker that has just started")
    def configure(self, settings: FleetSettings) -> None:
        """Take over the settings of the broker that has just started; the watch begins anew with them."""
        self._rewatch = self._ledger.configure(settings) or self._rewatch
        self._configured += 1
        # By its number each is a patch of its own: those that a run had before this release are replayed as they were.
        if not self._brain and workflow.patched(f"{conventions.RENEWAL}-{self._configured}"):
            self._outdated = True

    @workflow.signal(description="A device's health or models have changed")
    def device_changed(self, record: DeviceRecord) -> None:
        self._ledger.heard(record, workflow.now())
        self._tell_story()

    @workflow.signal(description="A command on a device has ended")
    def slot_settled(self, event: SlotSettled) -> None:
        self._ledger.settled(event, workflow.now())
        self._tell_story()

    @workflow.query(description="The ledger: applied commit, devices, slots, plan")
    def fleet(self) -> FleetView:
        return self._ledger.view().model_copy(update={"suspected": self._suspected})

    @workflow.query(description="Counts every change of the ledger")
    def version(self) -> int:
        return self._ledger.state.version

    async def _busily(self, work: Awaitable[None]) -> None:
        self._busy = True
        try:
            await work
        finally:
            self._busy = False

    async def _wait_for_work(self) -> None:
        """Wait until something is to be done, or what is due has changed."""
        due = self._due()
        cause, at = due
        if cause is not None:
            return
        timeout = max(at - workflow.now(), _AT_ONCE) if at else None
        with suppress(TimeoutError):
            await workflow.wait_condition(lambda: self._has_work() or self._due() != due, timeout=timeout)

    def _has_work(self) -> bool:
        return bool(self._queue) or self._rewatch or bool(self._ended()) or self._is_due_and_drained()

    def _ended(self) -> list[asyncio.Task[None]]:
        return [endless for endless in (*self._watches.tasks, *self._endless) if endless.done()]

    def _due(self) -> tuple[Cause | None, datetime | None]:
        if not self._brain:
            return None, None
        return self._ledger.due(workflow.now())

    async def _steer(self) -> None:
        """Tell rollouts that run what orders and quarantines mean for them."""
        while True:
            await workflow.wait_condition(lambda: bool(self._ledger.state.steerings))
            for steered in self._ledger.steerings():
                rollout = workflow.get_external_workflow_handle(conventions.rollout_workflow_id(steered.deployment_id))
                with suppress(FailureError):  # one that does not run has nothing to be told
                    await rollout.signal("steer", steered.steering)

    async def _restart(self) -> None:
        while True:
            await workflow.wait_condition(lambda: any(held.due for held in self._ledger.state.held))
            await asyncio.gather(*(self._start_again(held) for held in self._ledger.state.held if held.due))

    async def _start_again(self, held: HeldBack) -> None:
        try:
            await workflow.execute_activity_method(
                FleetActivities.start_commit_again,
                held,
                start_to_close_timeout=conventions.BROKER_PATIENCE,
                schedule_to_close_timeout=conventions.BROKER_PATIENCE,
                heartbeat_timeout=conventions.BROKER_HEARTBEAT_TIMEOUT,
                retry_policy=conventions.BROKER_RETRY,
                summary=f"start {short(held.sha)} again: {held.accepted or 'what it stands on is applied'}"[:200],
            )
        except ActivityError as error:
            context = {"commit_sha": held.sha, "error": failure_of(error).message}
            workflow.logger.error("commit_not_started_again", extra={"context": context})
        self._ledger.started_again(held)

    async def _answer(self, request: PlanRequest) -> None:
        waiting = self._waiting.pop(request.request_id)
        try:
            answer = self._ledger.recorded(request) or await self._plan(request)
        except LongshoreError as error:
            waiting.set_exception(_refusal(error.failure, retriable=error.failure.kind.retriable))
        except ActivityError as error:
            failure = failure_of(error)
            waiting.set_exception(_refusal(failure, retriable=failure.kind.retriable))
        else:
            waiting.set_result(answer)
        self._tell_story()

    async def _reconcile(self, cause: Cause) -> None:
        """Plan the applied commit anew, and have it carried out where that has anything to do."""
        since = self._ledger.state.causes_since
        try:
            answer = await self._plan(self._ledger.reconciliation(cause))
        except (LongshoreError, ActivityError) as error:
            failure = error.failure if isinstance(error, LongshoreError) else failure_of(error)
            context = {"cause": cause.words, "code": failure.code, "error": failure.message}
            if failure.code != "PLAN_STALE":  # that one is planned anew at once
                workflow.logger.error("reconciliation_not_planned", extra={"context": context})
        else:
            plan = answer.plan
            told = plan if plan is None or plan.moves else causes.news(plan, cause)
            if told is not None:
                # Of a suspicion an alarm of its own tells, once.
                await self._start(told.model_copy(update={"suspects": ()}), cause, since)
            if plan is not None and plan.moves:
                self._reconciled = conventions.reconciliation_workflow_id(self._registry, plan.generation)
        self._tell_story()

    async def _start(self, plan: Plan, cause: Cause, since: datetime | None) -> None:
        asked = Reconciliation(registry=self._registry, sha=plan.sha, plan=plan, cause=cause, since=since)
        try:
            await workflow.execute_activity_method(
                ReconciliationActivities.start_reconciliation,
                fitting(asked),
                start_to_close_timeout=conventions.BROKER_ACTIVITY_TIMEOUT,
                schedule_to_close_timeout=conventions.BROKER_PATIENCE,
                heartbeat_timeout=conventions.BROKER_HEARTBEAT_TIMEOUT,
                retry_policy=conventions.BROKER_RETRY,
                summary=cause.words[:200],
            )
        except (LongshoreError, ActivityError) as error:  # what it was to do is found to have no rollout
            context = {"cause": cause.words, "error": str(error)}
            workflow.logger.error("reconciliation_not_started", extra={"context": context})

    async def _plan(self, request: PlanRequest) -> PlanAnswer:
        await hear_new_devices(self._ledger, request.workers, may_be_older=self._brain)
        asked = self._ledger.ask(request, workflow.now())
        try:
            answer = await workflow.execute_activity_method(
                FleetActivities.plan_commit,
                fitting(asked),
                start_to_close_timeout=conventions.VALIDATION_TIMEOUT,
                # The next commit waits for this one: the asker asks again, and lets others through meanwhile.
                schedule_to_close_timeout=conventions.VALIDATION_TIMEOUT,
                heartbeat_timeout=conventions.BROKER_HEARTBEAT_TIMEOUT,
                retry_policy=conventions.BROKER_RETRY,
                summary=f"plan {short(request.sha)} on top of {short(asked.applied_sha)}",
            )
            self._ledger.planned(answer, workflow.now())
        except (LongshoreError, ActivityError):
            self._ledger.given_up()
            raise
        if answer.plan is not None:
            self._suspect(answer.plan)
            if request.kind is RequestKind.COMMIT:
                workflow.upsert_search_attributes([conventions.COMMIT.value_set(answer.sha)])
        return answer

    def _suspect(self, plan: Plan) -> None:
        """Raise an alarm where a pool has fallen silent, once until it is back (FAULTS 85)."""
        pools = tuple(one.pool for one in plan.suspects)
        if news := tuple(one for one in plan.suspects if one.pool not in self._suspected):
            self._alarms.append(plan.model_copy(update={"deployments": (), "adopted": (), "suspects": news}))
        self._suspected = pools

    async def _raise_alarms(self) -> None:
        while True:
            await workflow.wait_condition(lambda: bool(self._alarms))
            plan = self._alarms.popleft()
            words = "; ".join(
                f"pool {one.pool}: {one.unhealthy} of {one.alive_before} devices are silent at once"
                for one in plan.suspects
            )
            context = {"code": "FLEET_SUSPECT", "error": words}
            workflow.logger.error("fleet_suspect", extra={"context": context})
            cause = Cause(kind=CauseKind.WORKER_FAILED, words=f"{words}; nothing is moved or evicted there")
            await self._start(plan, cause, workflow.now())

    def _is_due_and_drained(self) -> bool:
        due = self._outdated or workflow.info().is_continue_as_new_suggested()
        return due and not self._queue and not self._alarms and workflow.all_handlers_finished()

    def _carried_over(self) -> FleetInput:
        return self._ledger.carried_over(MAX_PAYLOAD).model_copy(update={"suspected": self._suspected})

    def _tell_story(self) -> None:
        state, waiting = self._ledger.state, len(self._queue) + self._ledger.planning
        story = stories.fleet_story(
            state.applied_sha,
            state.generation,
            state.devices,
            state.slots,
            waiting,
            held=state.held,
            cordons=state.cordons.values(),
            holds=state.holds,
            causes=state.causes,
        )
        workflow.set_current_details(story)


def _refusal(failure: Failure, *, retriable: bool) -> ApplicationError:
    return ApplicationError(
        f"{failure.code}: {failure.message}",
        failure.model_dump(mode="json"),
        type=failure.code,
        non_retryable=not retriable,
    )
