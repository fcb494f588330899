"""What an ended activity means: pure readings of Temporal's failures, shared by the workflows."""

from __future__ import annotations

from contextlib import suppress

from temporalio.exceptions import ActivityError, ApplicationError, TimeoutError, TimeoutType  # noqa: A004 (Temporal's)

from longshore.schemas.commands import Action
from longshore.schemas.failures import FAILURES, Failure
from longshore.schemas.rollouts import SlotResult

# A device that refuses with one of these has been given a newer command; this one's end says nothing of the slot.
OVERTAKEN = frozenset({"STALE_GENERATION", "SUPERSEDED"})

# An answer travels as a signal, and many of them in one result: a traceback's end is kept, once per code.
LONGEST_DETAILS = 4_000
LONGEST_MESSAGE = 500


def nobody_picked_it_up(error: ActivityError) -> bool:
    """Return whether the task waited in its queue for the whole of its schedule-to-start time-out."""
    return isinstance(error.cause, TimeoutError) and error.cause.type is TimeoutType.SCHEDULE_TO_START


def had_begun(error: ActivityError) -> bool:
    """Return whether an attempt before this time-out was alive: its task was picked up."""
    return isinstance(error.cause, TimeoutError) and bool(error.cause.last_heartbeat_details)


def failure_of(error: ActivityError) -> Failure:
    """Return the failure that an activity of ours raised, or what its time-out or crash amounts to."""
    cause = error.cause
    if isinstance(cause, ApplicationError) and cause.type in FAILURES:
        with suppress(ValueError, LookupError):  # a device may send anything: then its code is what there is
            told = Failure.model_validate(cause.details[0])
            return told if told.code in FAILURES else told.model_copy(update={"code": cause.type})
        return Failure(code=cause.type, message=cause.message)
    if isinstance(cause, TimeoutError):
        kind = cause.type.name.lower().replace("_", "-") if cause.type is not None else "unknown"
        return Failure(code="DEVICE_UNREACHABLE", message=f"{error.activity_type} ended in a {kind} time-out")
    return Failure(code="INTERNAL_ERROR", message=f"{error.activity_type}: {cause or error}")


def command_failure(error: ActivityError, action: Action) -> Failure:
    """Return why a device command failed; one that beat to its very end was too slow, not out of reach.

    An UNLOAD has no such excuse: what it should have taken away may still be there, and its room is not free.
    """
    cause = error.cause
    slow = isinstance(cause, TimeoutError) and cause.type in {
        TimeoutType.START_TO_CLOSE,
        TimeoutType.SCHEDULE_TO_CLOSE,
    }
    if slow and action is not Action.UNLOAD:
        return Failure(code="LOAD_TIMEOUT", message=f"the {action} did not end within its close bound")
    return failure_of(error)


def compact(results: tuple[SlotResult, ...]) -> tuple[SlotResult, ...]:
    """Return the results as they may travel: messages capped, and the details of each failure code only once."""
    detailed: dict[str, None] = {}
    compacted = []
    for result in results:
        failure = result.failure
        if failure is not None:
            details = failure.details if failure.code not in detailed else None
            detailed[failure.code] = None
            failure = failure.model_copy(
                update={
                    "message": failure.message[:LONGEST_MESSAGE],
                    "details": details[-LONGEST_DETAILS:] if details else None,
                }
            )
        compacted.append(result.model_copy(update={"failure": failure}))
    return tuple(compacted)
