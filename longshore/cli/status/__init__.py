"""`longshore status`: workers, deployments and the last commits, as a table or as JSON."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import Field

from longshore.cli.settings import run_with_settings
from longshore.schemas.connections import TemporalSettings
from longshore.schemas.patterns import NAME


class StatusSettings(TemporalSettings):
    registry_name: Annotated[
        str | None, Field(pattern=NAME, description="The registry, where several are served by one Temporal server.")
    ] = None


@run_with_settings(StatusSettings)
async def main(
    settings: StatusSettings,
    *,
    json: Annotated[bool, typer.Option("--json", help="Print the same facts as one JSON document.")] = False,
) -> None:
    """Show workers, deployments and the last commits."""
    from longshore.activities.connection import connect  # noqa: PLC0415 (temporalio, which --help has no use for)
    from longshore.cli.status.gathering import gather  # noqa: PLC0415 (likewise)
    from longshore.cli.status.rendering import show  # noqa: PLC0415

    client = await connect(settings)
    status = await gather(client, settings.registry_name)
    if json:
        print(status.model_dump_json(indent=2))
    else:
        show(status)
