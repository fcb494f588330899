"""`longshore accept-unload COMMIT`: lets a commit through that is held back as MASS_UNLOAD_BLOCKED."""

from __future__ import annotations

from longshore.cli.acceptance import Commit, accept
from longshore.cli.settings import run_with_settings
from longshore.cli.status import StatusSettings


@run_with_settings(StatusSettings)
async def main(settings: StatusSettings, commit: Commit) -> None:
    """Carry out a commit although it takes away much of what serves.

    That commit alone: what descends from it is measured anew.
    """
    await accept(settings, "MASS_UNLOAD_BLOCKED", commit)
