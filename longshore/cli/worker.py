"""`longshore worker cordon|drain|uncordon ID`: an operator takes a device out of use, and back."""

from __future__ import annotations

from typing import Annotated

import typer

from longshore.cli import exits
from longshore.cli.main import VERBS
from longshore.cli.orders import Reason, order
from longshore.cli.settings import run_with_settings
from longshore.cli.status import StatusSettings

app = typer.Typer(add_completion=False, no_args_is_help=True, help=VERBS["worker"])

Worker = Annotated[str, typer.Argument(metavar="WORKER", help="Id of the worker.")]


@app.command()
@run_with_settings(StatusSettings)
async def cordon(settings: StatusSettings, worker: Worker, reason: Reason = "") -> None:
    """Give a device nothing new; what it runs stays, and follows its own versions."""
    await order(settings, "cordon", worker, reason)


@app.command()
@run_with_settings(StatusSettings)
async def drain(
    settings: StatusSettings,
    worker: Worker,
    reason: Reason = "",
    *,
    wait: Annotated[bool, typer.Option(help="Follow until the device is empty.")] = True,
) -> None:
    """Move all that a device runs to others; each model goes when its replacement is READY.

    Ctrl-C ends the following, not the drain.
    """
    await order(settings, "drain", worker, reason)
    if not wait:
        return
    from longshore.activities.connection import connect  # noqa: PLC0415 (temporalio, which --help has no use for)
    from longshore.cli.draining import follow  # noqa: PLC0415 (likewise)
    from longshore.cli.status.gathering import only_registry  # noqa: PLC0415

    client = await connect(settings)
    empty = await follow(client, settings.registry_name or await only_registry(client), worker.strip())
    raise typer.Exit(exits.OK if empty else exits.FAILED)


@app.command()
@run_with_settings(StatusSettings)
async def uncordon(settings: StatusSettings, worker: Worker, reason: Reason = "") -> None:
    """Give a cordoned or drained device work again."""
    await order(settings, "uncordon", worker, reason)
