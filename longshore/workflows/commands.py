"""One command on one device: issued until a device has taken it, and what its end means for the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, is_cancelled_exception

from longshore.schemas.commands import (
    BEFORE_TAKE_DOWN,
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
from longshore.workflows.outcomes import OVERTAKEN, command_failure, had_begun, nobody_picked_it_up
from longshore.workflows.steering import Barred

# Characters of an unreadable reply's fault that are told.
_QUOTED = 500

AnyCommand = LoadCommand | ReloadCommand | UnloadCommand
Ended = CommandResult | Failure | Barred
Turn = Callable[[], Awaitable[Barred | None]]
"""Returns once the command may be issued; or why it never will."""


async def carry_out(
    target: RolloutTarget, planned: PlannedCommand, wanted: DeploymentSpec | Barred | None, turn: Turn, summary: str
) -> tuple[SlotResult, SlotSettled | None]:
    """Return how the command ended, and what the ledger is to be told (nothing when a newer one overtook it).

    `wanted` is what the device is to run, None for an UNLOAD, or what kept the command from beginning.
    Raises asyncio.CancelledError when the rollout has dropped it, at once and without waiting for the device.
    """
    began = workflow.now()
    ended: Ended
    if isinstance(wanted, Barred):
        ended = wanted
    else:
        try:
            ended = await _issue_until_taken(_command(target, planned, wanted), target.intervals, turn, summary)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise asyncio.CancelledError from error
            ended = command_failure(error, planned.action)
    seconds = (workflow.now() - began).total_seconds()
    result = SlotResult(
        worker_id=planned.worker_id,
        action=planned.action,
        unload_reason=planned.unload_reason,
        failure=ended.failure if isinstance(ended, Barred) else ended if isinstance(ended, Failure) else None,
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
    return ReloadCommand.model_validate({**common, "spec": spec, **before, "recreate": planned.recreate})


async def _issue_until_taken(command: AnyCommand, intervals: CommandIntervals, turn: Turn, summary: str) -> Ended:
    """Issue the command when its turn has come, and again with twice the patience whenever no device picked it up.

    A task can be lost between server and device (temporalio/temporal #11402), and a device may be away: in both
    cases the same command once more is harmless, by its generation. Each time it needs its turn anew, until a device
    is known to have begun it.
    """
    patience = intervals.schedule_to_start
    begun = False
    while True:
        if not begun and (barred := await turn()) is not None:
            return barred
        try:
            return await _issue(command, intervals, patience, summary)
        except ActivityError as error:
            if not nobody_picked_it_up(error):
                raise
            begun = begun or had_begun(error)
            patience = min(2 * patience, conventions.LONGEST_SCHEDULE_TO_START)


async def _issue(
    command: AnyCommand, intervals: CommandIntervals, schedule_to_start: timedelta, summary: str
) -> CommandResult | Failure:
    match command:
        case LoadCommand():
            name, close, state = "load_model", intervals.load_close, ModelState.READY
        case ReloadCommand():
            name, close, state = "reload_model", intervals.load_close, ModelState.READY
        case UnloadCommand():
            name, close, state = "unload_model", intervals.unload_close, ModelState.IDLE
    # As it came: a reply that cannot be read would otherwise fail the whole run, and every device of it.
    reply = await workflow.execute_activity(
        name,
        command,
        result_type=RawValue,
        task_queue=conventions.device_queue(command.worker_id),
        schedule_to_start_timeout=schedule_to_start,
        schedule_to_close_timeout=schedule_to_start + close,
        heartbeat_timeout=intervals.heartbeat_timeout,
        retry_policy=conventions.DELIVERY,
        cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
        summary=summary,
    )
    return _read(reply, command, state)


def _read(reply: RawValue, command: AnyCommand, state: ModelState) -> CommandResult | Failure:
    """Return what a device answered where it answers this command; else DEVICE_REPLY_INVALID (FAULTS 65)."""
    try:
        result: CommandResult = workflow.payload_converter().from_payload(reply.payload, CommandResult)
    except Exception as error:  # noqa: BLE001 (whatever a device sends, only this command may suffer from it)
        return _invalid(f"its reply cannot be read: {str(error)[:_QUOTED]}")
    told = (result.deployment_id, result.worker_id, result.generation, result.state)
    asked = (command.deployment_id, command.worker_id, command.generation, state)
    if told != asked:
        return _invalid(f"it replied with {_words(told)} instead of {_words(asked)}"[:_QUOTED])
    return result


def _invalid(message: str) -> Failure:
    return Failure(code="DEVICE_REPLY_INVALID", message=message)


def _words(reply: tuple[str, str, int, ModelState]) -> str:
    deployment_id, worker_id, generation, state = reply
    return f"{deployment_id} {state} on {worker_id}, generation {generation}"


def _settled(target: RolloutTarget, planned: PlannedCommand, ended: Ended) -> SlotSettled | None:
    # The old version serves on (DESIGN §5): a failed RELOAD leaves the slot READY, with the reason beside it.
    before: dict[str, object] = {
        "state": ModelState.READY,
        "version": planned.previous_version,
        "digest": planned.previous_digest,
    }
    facts: dict[str, object]
    match ended:
        case CommandResult():
            facts = {"state": ended.state, "version": ended.version, "digest": ended.digest}
        case Barred(given_back=True):
            facts = {"begun": False, **({"state": ModelState.IDLE} if planned.action is Action.LOAD else before)}
        case Barred(failure=failure) if planned.action is Action.RELOAD:
            facts = before | {"code": failure.code}
        case Barred(failure=failure):
            facts = {"state": ModelState.FAILED, "code": failure.code}
        case Failure() if ended.code in OVERTAKEN:
            return None
        case Failure() if planned.action is Action.RELOAD and not _took_down(planned, ended):
            facts = before | {"code": ended.code}
        case Failure():
            facts = {"state": ModelState.FAILED, "code": ended.code}
    return SlotSettled.model_validate(
        {
            "deployment_id": target.plan.deployment_id,
            "worker_id": planned.worker_id,
            "generation": target.plan.generation,
            **facts,
        }
    )


def _took_down(planned: PlannedCommand, failure: Failure) -> bool:
    """Tell whether a failed RELOAD may have taken the old version away: one of a step unknown may have, too."""
    return planned.recreate and failure.step not in BEFORE_TAKE_DOWN
