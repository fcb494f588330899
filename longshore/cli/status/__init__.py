"""`longshore status`: workers, deployments and the last commits, as a table or as JSON."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import BaseModel, Field

from longshore.cli.settings import run_with_settings
from longshore.schemas.patterns import NAME


class StatusSettings(BaseModel):
    temporal: Annotated[
        str | None,
        Field(description="Temporal server as HOST:PORT; without it the Temporal profile's, else localhost:7233."),
    ] = None
    namespace: Annotated[
        str | None, Field(description="Temporal namespace; without it the Temporal profile's, else `default`.")
    ] = None
    temporal_profile: Annotated[
        str | None, Field(description="Profile of Temporal's own configuration file, for TLS and API keys.")
    ] = None
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
    from longshore.cli.status.gathering import connect, gather  # noqa: PLC0415 (temporalio, which --help has no use for)
    from longshore.cli.status.rendering import show  # noqa: PLC0415

    client = await connect(settings.temporal, settings.namespace, settings.temporal_profile)
    status = await gather(client, settings.registry_name)
    if json:
        print(status.model_dump_json(indent=2))
    else:
        show(status)
