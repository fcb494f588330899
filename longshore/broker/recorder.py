"""What happens, brought together for git: devices as they are now, failures and what was done as error files."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta

import structlog
from temporalio.exceptions import TemporalError

from longshore.broker.entities import Entities, in_windows
from longshore.broker.registry_service import RegistryService
from longshore.broker.settings import ControlSettings
from longshore.registry.records.errors import error_files, rollout_errors
from longshore.registry.records.pins import pins_of
from longshore.registry.records.remediation import Remediation, Surroundings, failed_models, remediation_errors
from longshore.registry.records.state import FleetState
from longshore.registry.records.writer import RegistryWriter
from longshore.registry.repositories.git import Git
from longshore.registry.repositories.repository import CommitInfo
from longshore.schemas.commands import Action
from longshore.schemas.commits import CommitOutcome, RecordRequest
from longshore.schemas.devices import DeviceRecord, DeviceView
from longshore.schemas.failures import FAILURES, LongshoreError
from longshore.schemas.fleet import FleetView
from longshore.schemas.ledger import key_of
from longshore.schemas.lifecycle import IN_FLIGHT, ModelState
from longshore.schemas.plans import Plan
from longshore.schemas.reconciliations import LastApplied, ReconciliationRecord, RecordWatch
from longshore.schemas.rollouts import RolloutAnswer, SlotResult
from longshore.schemas.telling import intentions, intentions_unasked
from longshore.schemas.wording import short
from longshore.workflows import conventions

log = structlog.get_logger()

Answers = tuple[RolloutAnswer, ...]

# A report follows its command within milliseconds; a device that has just gone away is not waited for.
REPORT_GRACE_SECONDS = 5.0
REPORT_PAUSE_SECONDS = 0.2

# Before the activity's close bound of a day: it returns, and with it what has been written.
LONGEST_WATCH = timedelta(hours=23)

# While the git host is away nothing is lost by asking it less often: what is written then is the newest state.
LONGEST_PAUSE = timedelta(seconds=30)

# A commit that was rejected or held back changed nothing that runs: its error file is all that is news.
_LEAVE_THE_STATE_ALONE = frozenset(
    {CommitOutcome.REJECTED, CommitOutcome.HISTORY_REWRITTEN, CommitOutcome.MASS_UNLOAD_BLOCKED}
)


class RegistryRecorder:
    """Writes `transactions/` and `errors/` as the fleet changes, and for each commit; may be repeated."""

    def __init__(
        self,
        git: Git,
        entities: Entities,
        registry: RegistryService,
        settings: ControlSettings,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._git = git
        self._url = settings.registry
        self._entities = entities
        self._registry = registry
        self._interval = settings.record_interval
        self._writer = RegistryWriter(
            git,
            settings.registry,
            settings.branch,
            name=settings.git_name,
            email=settings.git_email,
            min_interval=settings.record_interval,
        )
        self._telling = settings.telling
        self._now = now
        self._sleep = sleep
        self._known: dict[str, DeviceView] = {}

    async def keep(self, watch: RecordWatch) -> int:
        """Write the state whenever the ledger's version has moved on; return the version that is written, after a day.

        A git host that is away, or refuses us, is asked again until it takes the state as it is by then (FAULTS 50). It
        is told once, and when it is over; so is a fleet that does not answer.
        """
        written, pause = watch.seen_version, self._interval
        trouble: str | None = None
        end = self._now() + LONGEST_WATCH
        while self._now() < end:
            try:
                version = await self._entities.version()
                if version != written:
                    await self._writer.record("Longshore: state", self._state, (), now=self._now())
                    written = version
                if trouble is not None:
                    log.info("state_written_again", version=written)
                trouble, pause = None, self._interval
            except (LongshoreError, TemporalError) as error:
                if str(error) != trouble:
                    trouble = str(error)
                    log.warning(
                        "state_not_written",
                        code="STATE_PUSH_DEFERRED",
                        error=trouble,
                        remedy=FAILURES["STATE_PUSH_DEFERRED"].remedy,
                    )
                pause = min(2 * pause, LONGEST_PAUSE)
            await self._sleep(pause.total_seconds())
        return written

    async def record(self, request: RecordRequest) -> None:
        result = request.result
        untouched = result.outcome in _LEAVE_THE_STATE_ALONE
        await self._git.require(self._url, result.sha)
        commit = await self._git.commit(self._url, result.sha)
        devices = {} if untouched else await self._devices_after(result.answers)
        snapshot = None if untouched else await self._registry.snapshot(result.sha)
        now = self._now()
        next_steps = tuple(intentions(result, self._telling))
        errors = error_files(result, commit, snapshot, devices, now, next_steps=next_steps)
        if not untouched:
            fleet = await self._entities.fleet()
            done = _of_commit(_plan_of(result.sha, fleet), result.answers, commit, request.registry)
            errors += remediation_errors(done, Surroundings(snapshot, devices, next_steps, now))
        subject = f"Longshore: {result.outcome} {short(result.sha)}"
        tags = pins_of(snapshot) if snapshot is not None else {}
        await self._writer.record(subject, None if untouched else self._state, errors, now=now, tags=tags)

    async def record_reconciliation(self, request: ReconciliationRecord) -> None:
        """Write what was done unasked, and the state; the same request writes nothing twice."""
        result = request.result
        await self._git.require(self._url, result.sha)
        commit = await self._git.commit(self._url, result.sha)
        devices = await self._devices_after(result.answers)
        snapshot = await self._registry.snapshot(result.sha)
        now = self._now()
        fleet = await self._entities.fleet()
        done = Remediation(
            plan=request.plan,
            cause=result.cause,
            answers=result.answers,
            commit=commit,
            workflow_id=request.workflow_id
            or conventions.reconciliation_workflow_id(request.registry, result.generation),
            rollout_id=conventions.rollout_workflow_id,
            applied=_of_commit(_still_counted_out(result.sha, fleet), (), commit, request.registry),
        )
        next_steps = tuple(intentions_unasked(request, self._telling))
        errors = remediation_errors(done, Surroundings(snapshot, devices, next_steps, now))
        by = f"Commanded unasked, by {done.workflow_id}"
        errors += tuple(rollout_errors(result.answers, commit, snapshot, devices, (by, *next_steps), now))
        for deployment in (one for one in failed_models(done, devices) if one.gives_up):
            log.critical("model_given_up", deployment_id=deployment.deployment_id, workflow_id=done.workflow_id)
        subject = f"Longshore: {result.cause.kind} {result.outcome}, generation {result.generation}"
        await self._writer.record(subject, self._state, errors, now=now)

    async def _devices_after(self, answers: Answers) -> dict[str, DeviceView]:
        """Return what the devices report once they have told of these answers' commands, or after a while."""
        deadline = asyncio.get_running_loop().time() + REPORT_GRACE_SECONDS
        while True:
            devices = await self._devices(await self._entities.fleet())
            if has_been_reported(answers, devices) or asyncio.get_running_loop().time() > deadline:
                return devices
            await asyncio.sleep(REPORT_PAUSE_SECONDS)

    async def _state(self) -> FleetState:
        fleet = await self._entities.fleet()
        devices = await self._devices(fleet)
        return FleetState(tuple(devices.values()), LastApplied(sha=fleet.applied_sha, generation=fleet.generation))

    async def _devices(self, fleet: FleetView) -> dict[str, DeviceView]:
        """Ask every device's workflow for what it knows, a window of them at a time."""
        views = await in_windows(self._device, tuple(fleet.devices.values()))
        self._known = {view.worker_id: view for view in views}
        return self._known

    async def _device(self, record: DeviceRecord) -> DeviceView:
        """Return what was known last where the workflow does not answer: a device does not go and come by that."""
        try:
            return await self._entities.device(record.worker_id)
        except TemporalError as error:
            log.warning("device_not_known", worker_id=record.worker_id, error=str(error))
            never_asked = DeviceView(worker_id=record.worker_id, health=record.health, last_evidence=None, report=None)
            known = self._known.get(record.worker_id, never_asked)
            return known.model_copy(update={"health": record.health})


def _plan_of(sha: str, fleet: FleetView) -> Plan:
    """Return the plan of a commit as the ledger has it; an empty one where another commit is applied by now."""
    plan = fleet.plan
    return plan if plan is not None and plan.sha == sha and plan.cause is None else Plan(sha=sha, generation=0)


def _still_counted_out(sha: str, fleet: FleetView) -> Plan:
    """Return the plan of a commit with those losses only that have not been back since."""
    away = {key_of(slot) for slot in fleet.slots if slot.replaced}
    plan = _plan_of(sha, fleet)
    deployments = tuple(
        one.model_copy(update={"lost": tuple(w for w in one.lost if (one.deployment_id, w) in away)})
        for one in plan.deployments
    )
    return plan.model_copy(update={"deployments": deployments})


def _of_commit(plan: Plan, answers: Answers, commit: CommitInfo, registry: str) -> Remediation:
    return Remediation(
        plan=plan,
        cause=None,
        answers=answers,
        commit=commit,
        workflow_id=conventions.commit_workflow_id(registry, plan.sha),
        rollout_id=conventions.rollout_workflow_id,
    )


def has_been_reported(answers: Answers, devices: Mapping[str, DeviceView]) -> bool:
    """Tell whether every device has reported the end of each command of these answers, carried out or failed.

    A command's result and the report of the same change are two messages; the report may be the later one.
    """
    return all(_knows(devices.get(slot.worker_id), answer, slot) for answer in answers for slot in answer.results)


def _knows(device: DeviceView | None, answer: RolloutAnswer, slot: SlotResult) -> bool:
    reported = device.report.models if device is not None and device.report is not None else ()
    model = next((model for model in reported if model.deployment_id == answer.deployment_id), None)
    if model is None:
        # Gone, as it should be; or a device that the command has not reached.
        return slot.action is Action.UNLOAD or slot.failure is not None
    if model.generation > answer.generation:
        return True
    if slot.failure is not None:
        return model.state not in IN_FLIGHT
    if slot.action is Action.UNLOAD:
        return model.state is ModelState.IDLE
    return model.generation == answer.generation and model.state not in IN_FLIGHT
