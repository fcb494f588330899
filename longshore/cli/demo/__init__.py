"""`longshore demo`: everything real, on this machine, told as it happens.

`performance` runs it: `stage` sets up and clears away, `story` is what happens, with `preview` and `loss` as two of its
acts, `rollout` follows one push, `lookout` what the fleet does unasked, `screen` and `report` show it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer


def main(
    *,
    once: Annotated[bool, typer.Option("--once", help="End after the last act instead of staying up.")] = False,
    json: Annotated[
        Path | None, typer.Option(help="Write timings and counts to FILE.", metavar="FILE", envvar="LONGSHORE_JSON")
    ] = None,
    state_dir: Annotated[
        Path, typer.Option(help="Folder for everything that the demo makes.", envvar="LONGSHORE_STATE_DIR")
    ] = Path("demo-state"),
) -> None:
    """Show everything at work on this machine, with real models: deploy, read a plan, update, lose a device, …"""
    from longshore.cli import exits  # noqa: PLC0415 (`--help` needs none of this)
    from longshore.cli.demo.performance import perform  # noqa: PLC0415
    from longshore.cli.demo.report import Report  # noqa: PLC0415

    report = Report()
    interrupted = False
    try:
        asyncio.run(perform(state_dir.absolute(), report, stay=not once))
    except (KeyboardInterrupt, asyncio.CancelledError):
        interrupted = True
    finally:
        if json is not None:
            report.write(json)
    if not report.ok:
        raise typer.Exit(exits.INTERRUPTED if interrupted else exits.FAILED)
