"""`longshore reconcile`: look now whether all is as the applied commit wants it, and mend what is not."""

from __future__ import annotations

from longshore.cli.orders import Reason, order
from longshore.cli.settings import run_with_settings
from longshore.cli.status import StatusSettings


@run_with_settings(StatusSettings)
async def main(settings: StatusSettings, reason: Reason = "") -> None:
    """Look now whether all is as the applied commit wants it, and mend what is not.

    Prints the id of the workflow that mends it.
    """
    await order(settings, "reconcile", reason=reason)
