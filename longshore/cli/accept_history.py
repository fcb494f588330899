"""`longshore accept-history COMMIT`: lets a commit through that is held back as HISTORY_REWRITTEN."""

from __future__ import annotations

from longshore.cli.acceptance import Commit, accept
from longshore.cli.settings import run_with_settings
from longshore.cli.status import StatusSettings


@run_with_settings(StatusSettings)
async def main(settings: StatusSettings, commit: Commit) -> None:
    """Carry out a commit although it does not descend from the one that runs.

    What descends from it is carried out as well. Other rewritten histories stay refused.
    """
    await accept(settings, "HISTORY_REWRITTEN", commit)
