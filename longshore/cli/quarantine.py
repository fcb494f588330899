"""`longshore quarantine list|release`: versions that have failed on so many devices that no other one gets them."""

from __future__ import annotations

import typer

from longshore.cli.main import VERBS
from longshore.cli.orders import Deployment, Reason, order
from longshore.cli.settings import run_with_settings
from longshore.cli.status import StatusSettings

app = typer.Typer(add_completion=False, no_args_is_help=True, help=VERBS["quarantine"])


@app.command("list")
@run_with_settings(StatusSettings)
async def show(settings: StatusSettings) -> None:
    """List what is quarantined, where it has failed, and how it is released."""
    from longshore.activities.connection import connect  # noqa: PLC0415 (temporalio, which --help has no use for)
    from longshore.cli.status.gathering import fleet_view, only_registry  # noqa: PLC0415 (likewise)

    client = await connect(settings)
    view = await fleet_view(client, settings.registry_name or await only_registry(client))
    holds = [hold for hold in view.holds if hold.kind == "quarantined"]
    for hold in holds:
        failed = f"failed on {', '.join(hold.workers)}" if hold.workers else hold.reason
        print(f"{hold.deployment_id} {hold.version or ''}: {failed}")
        print(f"  → longshore quarantine release {hold.deployment_id}")
    if not holds:
        print("Nothing is quarantined.")


@app.command()
@run_with_settings(StatusSettings)
async def release(settings: StatusSettings, deployment: Deployment, reason: Reason = "") -> None:
    """Let a quarantined version be tried again."""
    await order(settings, "release", deployment, reason)
