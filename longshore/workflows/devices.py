"""Whether one device is there, judged by the age of the last evidence of it (PRD §5.5, DESIGN §3 Presence)."""

from __future__ import annotations

from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, FailureError, TimeoutError, TimeoutType  # noqa: A004 (Temporal's)

from longshore.activities.devices import DeviceActivities
from longshore.schemas.devices import (
    DeviceInput,
    DeviceRecord,
    DeviceReport,
    DeviceStatus,
    DeviceView,
    Health,
    PresenceRequest,
)
from longshore.workflows import conventions, stories
from longshore.workflows.fleet import FleetWorkflow

GOODBYES = frozenset({DeviceStatus.LEAVING, DeviceStatus.RESTARTING})


@workflow.defn(failure_exception_types=conventions.DEFECTS)
class DeviceWorkflow:
    @workflow.init
    def __init__(self, start: DeviceInput) -> None:
        self._worker_id = start.worker_id
        self._registry = start.registry
        self._intervals = start.intervals
        self._told = start.record
        self._health = start.health
        self._report = start.report
        self._last_evidence = start.last_evidence

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
                intervals=self._intervals,
                health=self._health,
                record=self._told,
                report=self._report,
                last_evidence=self._last_evidence,
            )
        )

    @workflow.query(description="Health, last evidence and the last full report")
    def device(self) -> DeviceView:
        return DeviceView(
            worker_id=self._worker_id, health=self._health, last_evidence=self._last_evidence, report=self._report
        )

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
        try:
            report = await workflow.execute_activity_method(
                DeviceActivities.report_presence,
                PresenceRequest(
                    worker_id=self._worker_id, seen_digest=self._report.digest if self._report else None, hold=hold
                ),
                task_queue=conventions.device_queue(self._worker_id),
                schedule_to_start_timeout=schedule_to_start,
                start_to_close_timeout=start_to_close,
                heartbeat_timeout=self._intervals.suspect_after,
                retry_policy=RetryPolicy(maximum_attempts=1),  # what silence means is decided here
                summary=f"{self._health}: {'report when something changes' if hold else 'report now'}",
            )
        except ActivityError as error:
            self._consider(error)
            if not isinstance(error.cause, TimeoutError):
                await workflow.sleep(self._intervals.ping_timeout)  # refused at once: do not ask in a busy loop
            return False
        self._report = report
        self._last_evidence = workflow.now()
        self._judge(Health.RECOVERING if self._health is Health.FAILED else Health.HEALTHY)
        return True

    def _consider(self, error: ActivityError) -> None:
        """Take the last heartbeat of an ended presence as evidence, of the age that its time-out implies."""
        cause = error.cause
        if not isinstance(cause, TimeoutError) or not cause.last_heartbeat_details:
            return
        silence = self._intervals.suspect_after if cause.type is TimeoutType.HEARTBEAT else self._intervals.heartbeat
        seen = workflow.now() - silence
        if self._last_evidence is None or seen > self._last_evidence:
            self._last_evidence = seen
            self._report = DeviceReport.model_validate(cause.last_heartbeat_details[0])

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
            return DeviceRecord(worker_id=self._worker_id, health=self._health)
        return DeviceRecord(
            worker_id=self._worker_id,
            health=self._health,
            status=report.status,
            boot_id=report.boot_id,
            slots={m.deployment_id: f"{m.state}:{m.generation}:{(m.digest or '')[:8]}" for m in report.models},
        )

    def _tell_story(self) -> None:
        story = stories.device_story(self._worker_id, self._health, self._last_evidence, self._report)
        workflow.set_current_details(story)
