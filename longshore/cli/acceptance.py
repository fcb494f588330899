"""What `longshore accept-history` and `longshore accept-unload` have in common: an operator's word to the fleet."""

from __future__ import annotations

import getpass
import os
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from longshore.cli.status import StatusSettings

if TYPE_CHECKING:
    from temporalio.client import Client

    from longshore.schemas.held import Acceptance, Accepted

Commit = Annotated[str, typer.Argument(metavar="COMMIT", help="Id of the commit that waits, or its first digits.")]


async def accept(settings: StatusSettings, code: str, commit: str) -> None:
    """Accept what holds `commit` back and say so. Raises LongshoreError as `ask` does."""
    from longshore.activities.connection import connect  # noqa: PLC0415 (temporalio, which --help has no use for)
    from longshore.schemas.held import Acceptance  # noqa: PLC0415 (likewise)

    client = await connect(settings)
    acceptance = Acceptance(sha=commit.strip().lower(), code=code, by=operator())
    accepted = await ask(client, settings.registry_name, acceptance)
    print(f"{accepted}\nIt is carried out now; `longshore status` shows how far it is.")


async def ask(client: Client, registry: str | None, acceptance: Acceptance) -> Accepted:
    """Tell the fleet. Raises COMMIT_NOT_HELD, REF_AMBIGUOUS, REGISTRY_UNKNOWN, BROKER_UNREACHABLE."""
    from temporalio.client import (  # noqa: PLC0415 (temporalio, which --help has no use for)
        WorkflowUpdateFailedError,
        WorkflowUpdateRPCTimeoutOrCancelledError,
    )
    from temporalio.exceptions import ApplicationError  # noqa: PLC0415
    from temporalio.service import RPCError, RPCStatusCode  # noqa: PLC0415

    from longshore.cli.status.gathering import ANSWER_TIMEOUT, only_registry  # noqa: PLC0415
    from longshore.schemas.failures import FAILURES, LongshoreError  # noqa: PLC0415
    from longshore.schemas.held import Accepted  # noqa: PLC0415
    from longshore.workflows.conventions import fleet_workflow_id  # noqa: PLC0415

    registry = registry or await only_registry(client)
    fleet = client.get_workflow_handle(fleet_workflow_id(registry))
    try:
        accepted: Accepted = await fleet.execute_update(
            "accept", acceptance, result_type=Accepted, rpc_timeout=ANSWER_TIMEOUT
        )
    except WorkflowUpdateFailedError as error:
        cause = error.cause
        if isinstance(cause, ApplicationError) and cause.type in FAILURES:
            raise LongshoreError(cause.type, cause.message.removeprefix(f"{cause.type}: ")) from error
        raise
    except WorkflowUpdateRPCTimeoutOrCancelledError as error:
        message = f"No broker answered within {ANSWER_TIMEOUT.seconds} s; try again, twice accepted is once accepted"
        raise LongshoreError("BROKER_UNREACHABLE", message) from error
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        message = f"Nobody serves a registry named {registry!r} on this server"
        raise LongshoreError("REGISTRY_UNKNOWN", message) from error
    return accepted


def operator() -> str:
    """Return `user@host`, for the audit trail."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
