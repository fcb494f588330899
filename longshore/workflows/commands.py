"""One command on one device: issued until a device has taken it, and what its end means for the ledger."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from longshore.activities.devices import DeviceActivities
from longshore.schemas.commands import (
    Action,
    CommandIntervals,
    CommandResult,
    LoadCommand,
    ReloadCommand,
    UnloadCommand,
    UnloadReason,
)
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.failures import Failure
from longshore.schemas.fleet import SlotSettled
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import PlannedCommand
from longshore.schemas.rollouts import RolloutTarget, SlotResult
from longshore.workflows import conventions
from longshore.workflows.outcomes import command_failure, nobody_picked_it_up

# A device that refuses with one of these has been given a newer command; this one's end says nothing of the slot.
OVERTAKEN = frozenset({"STALE_GENERATION", "SUPERSEDED"})

AnyCommand = LoadCommand | ReloadCommand | UnloadCommand


async def carry_out(
    target: RolloutTarget, planned: PlannedCommand, spec: DeploymentSpec | Failure | None, summary: str
) -> tuple[SlotResult, SlotSettled | None]:
    """Return how the command ended, and what the ledger is to be told (nothing when a newer one overtook it).

    `spec` is the failure that kept the command from beginning, where there is one, and None for an UNLOAD.
    Raises asyncio.CancelledError when the rollout has dropped it, at once and without waiting for the device.
    """
    began = workflow.now()
    ended: CommandResult | Failure
    if isinstance(spec, Failure):
        ended = spec
    else:
        try:
            ended = await _issue_until_taken(_command(target, planned, spec), target.intervals, summary)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise asyncio.CancelledError from error
            ended = command_failure(error, planned.action)
    seconds = (workflow.now() - began).total_seconds()
    result = SlotResult(
        worker_id=planned.worker_id,
        action=planned.action,
        failure=ended if isinstance(ended, Failure) else None,
        seconds=seconds,
        step_seconds=ended.step_seconds if isinstance(ended, CommandResult) else {},
    )
    return result, _settled(target, planned, ended)


def _command(target: RolloutTarget, planned: PlannedCommand, spec: DeploymentSpec | None) -> AnyCommand:
    common = {
        "deployment_id": target.plan.deployment_id,
        "worker_id": planned.worker_id,
        "generation": target.plan.generation,
        "cause": target.sha,
        "issued_at": workflow.now(),
    }
    if planned.action is Action.UNLOAD:
        return UnloadCommand.model_validate({**common, "reason": planned.unload_reason or UnloadReason.REMOVED})
    if planned.action is Action.LOAD:
        return LoadCommand.model_validate({**common, "spec": spec})
    before = {"previous_version": planned.previous_version, "previous_digest": planned.previous_digest}
    return ReloadCommand.model_validate({**common, "spec": spec, **before})


async def _issue_until_taken(command: AnyCommand, intervals: CommandIntervals, summary: str) -> CommandResult:
    """Issue the command, and again with twice the patience whenever no device picked it up.

    A task can be lost between server and device (temporalio/temporal #11402), and a device may be away: in both
    cases the same command once more is harmless, by its generation.
    """
    patience = intervals.schedule_to_start
    while True:
        try:
            return await _issue(command, intervals, patience, summary)
        except ActivityError as error:
            if not nobody_picked_it_up(error):
                raise
            patience = min(2 * patience, conventions.LONGEST_SCHEDULE_TO_START)


async def _issue(
    command: AnyCommand, intervals: CommandIntervals, schedule_to_start: timedelta, summary: str
) -> CommandResult:
    close = intervals.unload_close if isinstance(command, UnloadCommand) else intervals.load_close
    options = workflow.ActivityConfig(
        task_queue=conventions.device_queue(command.worker_id),
        schedule_to_start_timeout=schedule_to_start,
        schedule_to_close_timeout=schedule_to_start + close,
        heartbeat_timeout=intervals.heartbeat_timeout,
        retry_policy=conventions.DELIVERY,
        cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
        summary=summary,
    )
    match command:
        case LoadCommand():
            return await workflow.execute_activity_method(DeviceActivities.load_model, command, **options)
        case ReloadCommand():
            return await workflow.execute_activity_method(DeviceActivities.reload_model, command, **options)
        case UnloadCommand():
            return await workflow.execute_activity_method(DeviceActivities.unload_model, command, **options)


def _settled(target: RolloutTarget, planned: PlannedCommand, ended: CommandResult | Failure) -> SlotSettled | None:
    if isinstance(ended, CommandResult):
        facts = {"state": ended.state, "version": ended.version, "digest": ended.digest}
    elif ended.code in OVERTAKEN:
        return None
    elif planned.action is Action.RELOAD:
        # The old version serves on (DESIGN §5): a failed RELOAD leaves the slot READY, with the reason beside it.
        before = {"version": planned.previous_version, "digest": planned.previous_digest}
        facts = {"state": ModelState.READY, **before, "code": ended.code}
    else:
        facts = {"state": ModelState.FAILED, "code": ended.code}
    return SlotSettled.model_validate(
        {
            "deployment_id": target.plan.deployment_id,
            "worker_id": planned.worker_id,
            "generation": target.plan.generation,
            **facts,
        }
    )
