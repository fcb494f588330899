"""Whether one device is there, judged by the age of the last evidence of it (PRD §5.5, DESIGN §3 Presence)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    FailureError,
    TimeoutError,  # noqa: A004 (Temporal's)
    TimeoutType,
    is_cancelled_exception,
)

from longshore.schemas.devices import (
    DeviceInput,
    DeviceRecord,
    DeviceReport,
    DeviceStatus,
    DeviceView,
    Health,
    ModelReport,
    PresenceIntervals,
    PresenceRequest,
    Told,
)
from longshore.schemas.evidence import Judged, judge
from longshore.workflows import conventions, stories
from longshore.workflows.fleet import FleetWorkflow

# Characters of an unreadable reply's fault that are logged.
_QUOTED = 500

GOODBYES = frozenset({DeviceStatus.LEAVING, DeviceStatus.RESTARTING})


@workflow.defn(failure_exception_types=conventions.DEFECTS)
class DeviceWorkflow:
    @workflow.init
    def __init__(self, start: DeviceInput) -> None:
        self._worker_id = start.worker_id
        self._registry = start.registry
        self._intervals = self._wanted_intervals = start.intervals
        self._told = start.record
        self._health = start.health
        self._report = start.report
        self._last_evidence = start.last_evidence
        self._flags = start.record.flags if start.record else ()
        self._seen_digest = start.report.digest if start.report else None
        self._asking: workflow.ActivityHandle[RawValue] | None = None
        self._brain = workflow.patched(conventions.BRAIN)

    @workflow.run
    async def run(self, start: DeviceInput) -> None:  # noqa: ARG002 (taken by __init__: a query may come before this)
        if workflow.info().continued_run_id is None:
            workflow.upsert_search_attributes([conventions.WORKER.value_set(self._worker_id)])
        while not workflow.info().is_continue_as_new_suggested():
            await self._tell_fleet()
            if self._health in {Health.UNKNOWN, Health.FAILED}:
                await self._await_return()
            elif self._health is Health.SUSPECT:
                await self._ping()
            else:
                await self._let_hold()
        workflow.continue_as_new(
            DeviceInput(
                worker_id=self._worker_id,
                registry=self._registry,
                intervals=self._wanted_intervals,
                health=self._health,
                record=self._told,
                report=self._report,
                last_evidence=self._last_evidence,
            )
        )

    @workflow.signal(description="Judge by these intervals from now on")
    def configure(self, intervals: PresenceIntervals) -> None:
        self._wanted_intervals = intervals
        if self._brain and intervals != self._intervals:
            self._intervals = intervals
            if self._asking is not None:
                # The presence that is held goes by the old ones: the device ends it at its next heartbeat.
                self._asking.cancel()

    @workflow.query(description="Health, last evidence and the last full report")
    def device(self) -> DeviceView:
        return DeviceView(
            worker_id=self._worker_id, health=self._health, last_evidence=self._last_evidence, report=self._report
        )

    @workflow.query(description="What the fleet is told of this device")
    def record(self) -> DeviceRecord:
        return self._record()

    async def _let_hold(self) -> None:
        """Let the device keep one presence until it has something to say; meanwhile its heartbeats are the evidence.

        A device that has said goodbye is known to be away: it is not pinged, and failed when it stays away.
        """
        away = self._report is not None and self._report.status in GOODBYES
        # A recovering device's next report makes it healthy, and a fleet that could not be told is told again: soon.
        soon = self._health is Health.RECOVERING or self._told != self._record()
        heard = await self._ask(
            hold=True,
            schedule_to_start=self._intervals.failed_after if away else self._intervals.suspect_after,
            start_to_close=self._intervals.heartbeat if soon else conventions.PRESENCE_TIMEOUT,
        )
        if heard:
            return
        if away and self._age() >= self._intervals.failed_after:
            self._judge(Health.FAILED)
            return
        if self._age() >= self._intervals.suspect_after:
            self._judge(Health.SUSPECT)
            await self._tell_fleet()
        await self._ping()

    async def _ping(self) -> None:
        """Ask directly. Silence makes a device failed once the last evidence is old enough, whatever timed out."""
        heard = await self._ask(
            hold=False, schedule_to_start=self._intervals.ping_timeout, start_to_close=self._intervals.ping_timeout
        )
        if not heard and self._age() >= self._intervals.failed_after:
            self._judge(Health.FAILED)

    async def _await_return(self) -> None:
        """Leave one question in the queue of a device that is not there: it answers when it comes back."""
        await self._ask(
            hold=False,
            schedule_to_start=self._intervals.absent_wait,
            start_to_close=self._intervals.suspect_after,
        )

    async def _ask(self, *, hold: bool, schedule_to_start: timedelta, start_to_close: timedelta) -> bool:
        """Ask for one report; return whether it came."""
        self._tell_story()
        intervals = self._intervals
        try:
            # As it came: a reply that cannot be read would otherwise fail the whole run, from outside of this block.
            self._asking = workflow.start_activity(
                "report_presence",
                PresenceRequest(worker_id=self._worker_id, seen_digest=self._seen_digest, hold=hold),
                result_type=RawValue,
                task_queue=conventions.device_queue(self._worker_id),
                schedule_to_start_timeout=schedule_to_start,
                start_to_close_timeout=start_to_close,
                heartbeat_timeout=intervals.suspect_after,
                retry_policy=RetryPolicy(maximum_attempts=1),  # what silence means is decided here
                # What `configure` withdraws is answered all the same: the device says its last word on it.
                cancellation_type=(
                    workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
                    if self._brain
                    else workflow.ActivityCancellationType.TRY_CANCEL
                ),
                summary=f"{self._health}: {'report when something changes' if hold else 'report now'}",
            )
            reply = await self._asking
        except ActivityError as error:
            if self._brain and is_cancelled_exception(
                error
            ):  # nobody had picked it up when `configure` withdrew it: ask anew
                return True
            self._consider(error, intervals)
            if not isinstance(error.cause, TimeoutError):
                await workflow.sleep(self._intervals.ping_timeout)  # refused at once: do not ask in a busy loop
            return False
        finally:
            self._asking = None
        if not self._believe(lambda: workflow.payload_converter().from_payload(reply.payload, DeviceReport)):
            await workflow.sleep(self._intervals.ping_timeout)  # as when it refuses
            return False
        self._last_evidence = workflow.now()
        self._tell_heard()
        self._judge(Health.RECOVERING if self._health is Health.FAILED else Health.HEALTHY)
        return True

    def _believe(self, read: Callable[[], DeviceReport], heard: datetime | None = None) -> bool:
        """Take a report over, so far as it can be read and is to be believed; return whether it is evidence.

        `heard`: when it came, where that is not now.
        """
        digest, fault = None, ""
        try:
            report = read()
            digest = report.digest
            # An old run believes what it always believed.
            now = heard or workflow.now()
            judged = judge(self._report, report, self._worker_id, now) if self._brain else Judged(report)
        except Exception as error:  # noqa: BLE001 (whatever a device sends, only this device may suffer from it)
            judged = Judged(None, ("DEVICE_REPLY_INVALID",))
            fault = str(error)[:_QUOTED]
        if set(judged.flags) - set(self._flags):
            context = {"worker_id": self._worker_id, "codes": judged.flags, "error": fault}
            workflow.logger.warning("device_report_odd", extra={"context": context})
        self._flags = judged.flags
        if judged.report is None:
            return False
        self._report, self._seen_digest = judged.report, digest
        return True

    def _consider(self, error: ActivityError, intervals: PresenceIntervals) -> None:
        """Take the last heartbeat of an ended presence as evidence, of the age that its time-out implies."""
        cause = error.cause
        if not isinstance(cause, TimeoutError) or not cause.last_heartbeat_details:
            return
        silence = intervals.suspect_after if cause.type is TimeoutType.HEARTBEAT else intervals.heartbeat
        seen = workflow.now() - silence
        if self._last_evidence is None or seen > self._last_evidence:
            details = cause.last_heartbeat_details[0]
            if self._believe(lambda: DeviceReport.model_validate(details), seen):
                self._last_evidence = seen

    def _tell_heard(self) -> None:
        """Say what a report says; what is told between two of them, only Temporal hears."""
        if self._report is not None:
            capacity = self._report.capacity.model_dump()
            context = {"worker_id": self._worker_id, "models_loaded": len(self._report.models), "capacity": capacity}
            workflow.logger.debug("worker_heartbeat_received", extra={"context": context})

    def _judge(self, health: Health) -> None:
        if health is not self._health:
            models = [model.deployment_id for model in self._report.models] if self._report else []
            context = {"worker_id": self._worker_id, "last_heartbeat": self._last_evidence, "loaded_models": models}
            if health is Health.SUSPECT:
                workflow.logger.warning("worker_marked_suspect", extra={"context": context})
            elif health is Health.FAILED:
                workflow.logger.error("worker_marked_failed", extra={"context": context})
        self._health = health

    def _age(self) -> timedelta:
        return workflow.now() - (self._last_evidence or datetime.min.replace(tzinfo=workflow.now().tzinfo))

    async def _tell_fleet(self) -> None:
        """Send the fleet the compact record where it has changed; a fleet that is not there is told the next time."""
        record = self._record()
        if record == (self._told or DeviceRecord(worker_id=self._worker_id)):
            return
        fleet = workflow.get_external_workflow_handle_for(
            FleetWorkflow.run, conventions.fleet_workflow_id(self._registry)
        )
        try:
            await fleet.signal(FleetWorkflow.device_changed, record)
        except FailureError as error:
            context = {"worker_id": self._worker_id, "registry": self._registry, "error": str(error)}
            workflow.logger.warning("fleet_not_told", extra={"context": context})
        else:
            self._told = record

    def _record(self) -> DeviceRecord:
        report = self._report
        if report is None:
            return DeviceRecord(worker_id=self._worker_id, health=self._health, flags=self._flags)
        record = DeviceRecord(
            worker_id=self._worker_id,
            health=self._health,
            status=report.status,
            boot_id=report.boot_id,
            slots={model.deployment_id: _slot_text(model, with_code=self._brain) for model in report.models},
        )
        if not self._brain:  # an old run tells the fleet what it always told, whenever it always told it
            return record
        more = {"draining": report.draining, "generation": report.highest_generation, "flags": self._flags}
        return record.model_copy(update=more)

    def _tell_story(self) -> None:
        story = stories.device_story(self._worker_id, self._health, self._last_evidence, self._report, self._flags)
        workflow.set_current_details(story)


def _slot_text(model: ModelReport, *, with_code: bool) -> str:
    code = model.error.code if with_code and model.error else None
    return str(Told(model.state, model.generation, (model.digest or "")[:8], code))
