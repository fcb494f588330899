"""An order to the fleet in an operator's name: what all verbs that change something have in common."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from longshore.cli import exits
from longshore.cli.status import StatusSettings
from longshore.schemas.failures import FAILURES, LongshoreError
from longshore.schemas.orders import Order, OrderAnswer

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowUpdateHandle

    from longshore.schemas.base import Message

Answer = TypeVar("Answer", bound="Message")

Reason = Annotated[str, typer.Option(help="Why; it stands wherever the order shows.")]
Deployment = Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Id of the deployment.")]

# What an order leads to is planned at once, but after the plan of a commit that was there before it.
DECISION_TIMEOUT = timedelta(seconds=60)


async def order(settings: StatusSettings, kind: str, target: str = "", reason: str = "") -> OrderAnswer:
    """Give one order in the operator's name, print the answer, and end with 1 where it was refused in words.

    Raises LongshoreError as `tell_fleet` does.
    """
    from longshore.activities.connection import connect  # noqa: PLC0415 (temporalio, which --help has no use for)

    client = await connect(settings)
    given = Order.model_validate({"kind": kind, "target": target.strip(), "by": operator(), "reason": reason.strip()})
    answer = await tell_fleet(client, settings.registry_name, "order", given, OrderAnswer)
    if not answer.accepted:
        print(answer.words, file=sys.stderr)
        raise typer.Exit(exits.FAILED)
    print(f"{answer.words} ({answer.workflow_id})" if answer.workflow_id else answer.words)
    return answer


async def tell_fleet(
    client: Client, registry: str | None, update: str, word: Message, answer_type: type[Answer]
) -> Answer:
    """Return what the fleet answers. Twice told is once told, so whoever got no answer may ask again.

    Raises LongshoreError with the fleet's own code, REGISTRY_UNKNOWN, BROKER_UNREACHABLE.
    """
    from temporalio.client import (  # noqa: PLC0415 (temporalio, which --help has no use for)
        WorkflowUpdateFailedError,
        WorkflowUpdateRPCTimeoutOrCancelledError,
        WorkflowUpdateStage,
    )
    from temporalio.exceptions import ApplicationError  # noqa: PLC0415
    from temporalio.service import RPCError, RPCStatusCode  # noqa: PLC0415

    from longshore.cli.status import gathering  # noqa: PLC0415
    from longshore.workflows.conventions import fleet_workflow_id  # noqa: PLC0415

    registry = registry or await gathering.only_registry(client)
    fleet = client.get_workflow_handle(fleet_workflow_id(registry))
    try:
        taken: WorkflowUpdateHandle[Answer] = await fleet.start_update(
            update,
            word,
            wait_for_stage=WorkflowUpdateStage.ACCEPTED,
            result_type=answer_type,
            rpc_timeout=gathering.ANSWER_TIMEOUT,
        )
        return await _decided(taken)
    except WorkflowUpdateFailedError as error:
        cause = error.cause
        if isinstance(cause, ApplicationError) and cause.type in FAILURES:
            raise LongshoreError(cause.type, cause.message.removeprefix(f"{cause.type}: ")) from error
        # A word that no fleet takes, or a fleet that was begun by a release without this verb: its own words say which.
        print(f"error: the fleet refuses it: {getattr(cause, 'message', cause)}", file=sys.stderr)
        raise typer.Exit(exits.FAILED) from error
    except WorkflowUpdateRPCTimeoutOrCancelledError as error:
        seconds = gathering.ANSWER_TIMEOUT.seconds
        message = f"No broker answered within {seconds} s; try again, twice told is once told"
        raise LongshoreError("BROKER_UNREACHABLE", message) from error
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        message = f"Nobody serves a registry named {registry!r} on this server"
        raise LongshoreError("REGISTRY_UNKNOWN", message) from error


async def _decided(taken: WorkflowUpdateHandle[Answer]) -> Answer:
    from temporalio.client import (  # noqa: PLC0415 (temporalio, which --help has no use for)
        WorkflowUpdateRPCTimeoutOrCancelledError,
    )

    try:
        async with asyncio.timeout(DECISION_TIMEOUT.total_seconds()):
            return await taken.result()
    except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError) as error:  # the client's name for being cancelled
        message = f"It was taken, but not decided within {DECISION_TIMEOUT.seconds} s; `longshore status` will show it"
        raise LongshoreError("BROKER_UNREACHABLE", message) from error


def operator() -> str:
    """Return `user@host`, for the audit trail."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
