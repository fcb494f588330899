"""`longshore validate`: what the broker would say of a registry, and what a model's team can know of its repository."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from longshore.cli import exits
from longshore.registry.contents import wanted
from longshore.registry.git import Git
from longshore.registry.loading import examine
from longshore.registry.local import UnusablePath, read_local
from longshore.registry.model_repository import CARD, model_issues, wanted_of_model
from longshore.schemas.issues import Issue, Severity


@dataclass(frozen=True)
class Report:
    """What was found, and about what."""

    what: str
    """`registry` or `model`."""
    commit: str | None
    issues: tuple[Issue, ...]
    summary: str
    """What the thing holds, for a person."""

    @property
    def errors(self) -> int:
        return sum(issue.severity is Severity.ERROR for issue in self.issues)

    @property
    def warnings(self) -> int:
        return len(self.issues) - self.errors


def main(
    path: Annotated[Path, typer.Argument(help="Folder of the registry or of a model repository.")],
    rev: Annotated[str | None, typer.Option(help="Revision to check instead of the files as they lie there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,  # noqa: FBT002 (a flag)
) -> None:
    """Check a registry as the broker would, without a server; or a model repository (one with a model-card.yaml).

    Ends with 0 where nothing is wrong (warnings are no errors), with 1 on errors, with 2 if PATH cannot be checked.
    """
    try:
        report = asyncio.run(validate(path, rev))
    except UnusablePath as unusable:
        typer.echo(f"error: {unusable}", err=True)
        raise typer.Exit(exits.USAGE) from unusable
    typer.echo(json.dumps(as_document(report), indent=2, ensure_ascii=False) if as_json else as_text(report))
    raise typer.Exit(exits.FAILED if report.errors else exits.OK)


async def validate(path: Path, rev: str | None = None) -> Report:
    """Check what lies at `path`. Cards are fetched afresh from the repositories that the manifests name.

    Raises UnusablePath.
    """
    local = await read_local(path, rev, lambda paths: wanted_of_model(paths) or wanted(paths), os.environ)
    if CARD in local.paths:
        return Report("model", local.commit, model_issues(local.paths, local.files, rev), "card and code fit together")
    with tempfile.TemporaryDirectory(prefix="longshore-") as cache:
        verdict = await examine(
            Git(Path(cache)), local.commit or "", local.paths, local.files, datetime.now(UTC).date()
        )
    held = "nothing"
    if verdict.snapshot is not None:
        deployments, workers = len(verdict.snapshot.manifests), len(verdict.snapshot.workers)
        held = f"{_count(deployments, 'deployment')}, {_count(workers, 'worker')}"
    return Report("registry", local.commit, verdict.issues, held)


def as_text(report: Report) -> str:
    """Return the findings by file, each with its line, its place and its remedy, and a verdict as the last line."""
    lines: list[str] = []
    for file, issues in itertools.groupby(report.issues, key=lambda issue: issue.file):
        lines.append(file)
        for issue in issues:
            where = ", ".join(filter(None, [f"line {issue.line}" if issue.line else "", issue.place]))
            lines.append(f"  {issue.severity} {issue.code}{f' ({where})' if where else ''}")
            lines += [f"    {issue.message}", f"    → {issue.remedy}"]
        lines.append("")
    counts = [
        _count(number, noun) for number, noun in ((report.errors, "error"), (report.warnings, "warning")) if number
    ]
    verdict = "invalid" if report.errors else f"valid: {report.summary}"
    found = f" ({', '.join(counts)})" if counts else ""
    return "\n".join([*lines, f"The {report.what} is {verdict}{found}."])


def as_document(report: Report) -> dict[str, Any]:
    """Return the same facts for programs."""
    return {
        "what": report.what,
        "commit": report.commit,
        "valid": not report.errors,
        "errors": report.errors,
        "warnings": report.warnings,
        "issues": [_issue_document(issue) for issue in report.issues],
    }


def _issue_document(issue: Issue) -> dict[str, Any]:
    return {**issue.model_dump(mode="json"), "remedy": issue.remedy}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
