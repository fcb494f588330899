"""What `longshore accept-history` and `longshore accept-unload` have in common."""

from __future__ import annotations

from typing import Annotated

import typer

from longshore.cli.orders import operator, tell_fleet
from longshore.cli.status import StatusSettings

Commit = Annotated[str, typer.Argument(metavar="COMMIT", help="Id of the commit that waits, or its first digits.")]


async def accept(settings: StatusSettings, code: str, commit: str) -> None:
    """Accept what holds `commit` back and say so. Raises LongshoreError COMMIT_NOT_HELD, or as `tell_fleet` does."""
    from longshore.activities.connection import connect  # noqa: PLC0415 (temporalio, which --help has no use for)
    from longshore.schemas.held import Acceptance, Accepted  # noqa: PLC0415 (likewise)

    client = await connect(settings)
    acceptance = Acceptance(sha=commit.strip().lower(), code=code, by=operator())
    accepted = await tell_fleet(client, settings.registry_name, "accept", acceptance, Accepted)
    print(f"{accepted}\nIt is carried out now; `longshore status` shows how far it is.")
