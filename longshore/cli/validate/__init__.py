"""`longshore validate`: what the broker would say of a registry, and what a model's team can know of its repository."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from longshore.cli import exits
from longshore.cli.settings import run_with_settings
from longshore.schemas.policies import RepositoryPolicy


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"


@run_with_settings(RepositoryPolicy)
async def main(
    policy: RepositoryPolicy,
    path: Annotated[Path, typer.Argument(help="Folder of the registry or of a model repository.")],
    *,
    rev: Annotated[str | None, typer.Option(help="Revision to check instead of the files as they lie there.")] = None,
    form: Annotated[Format, typer.Option("--format", help="How to print what was found.")] = Format.TEXT,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
) -> None:
    """Check a registry as the broker would, without a server; or a model repository (one with a model-card.yaml).

    Ends with 0 where nothing is wrong (warnings are no errors), with 1 on errors, with 2 if PATH cannot be checked.
    """
    from rich.console import Console  # noqa: PLC0415 (`--help` needs none of these)

    from longshore.cli.validate.report import as_document, check  # noqa: PLC0415
    from longshore.cli.validate.sarif import as_sarif  # noqa: PLC0415
    from longshore.cli.validate.text import as_text  # noqa: PLC0415
    from longshore.registry.repositories.local import UnusablePath  # noqa: PLC0415

    try:
        report = await check(path, rev, policy)
    except UnusablePath as unusable:
        typer.echo(f"error: {unusable}", err=True)
        raise typer.Exit(exits.USAGE) from unusable
    if as_json or form is Format.JSON:
        print(json.dumps(as_document(report), indent=2, ensure_ascii=False))
    elif form is Format.SARIF:
        print(json.dumps(as_sarif(report), indent=2, ensure_ascii=False))
    else:
        # Colour is rich's business: only on a terminal, and not against NO_COLOR.
        Console(highlight=False, soft_wrap=True).print(as_text(report))
    raise typer.Exit(exits.OK if report.valid else exits.FAILED)
