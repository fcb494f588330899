"""`longshore rollout pause|resume|abort DEPLOYMENT`: an operator stops one deployment, and lets it go on."""

from __future__ import annotations

import typer

from longshore.cli.main import VERBS
from longshore.cli.orders import Deployment, Reason, order
from longshore.cli.settings import run_with_settings
from longshore.cli.status import StatusSettings

app = typer.Typer(add_completion=False, no_args_is_help=True, help=VERBS["rollout"])


@app.command()
@run_with_settings(StatusSettings)
async def pause(settings: StatusSettings, deployment: Deployment, reason: Reason = "") -> None:
    """Give no more commands for a deployment, but for disabling it; what has begun is finished."""
    await order(settings, "pause", deployment, reason)


@app.command()
@run_with_settings(StatusSettings)
async def resume(settings: StatusSettings, deployment: Deployment, reason: Reason = "") -> None:
    """Let a deployment go on that was paused or aborted."""
    await order(settings, "resume", deployment, reason)


@app.command()
@run_with_settings(StatusSettings)
async def abort(settings: StatusSettings, deployment: Deployment, reason: Reason = "") -> None:
    """Drop what a rollout has not begun, and bring its version nowhere until it is resumed or replaced in git."""
    await order(settings, "abort", deployment, reason)
