"""A report for people: findings by file, each with its line, its reason, its remedy and who is told."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from rich.cells import cell_len
from rich.text import Text

from longshore.cli.validate.excerpts import harmless, printable
from longshore.cli.validate.report import Report
from longshore.registry.validation.sources import Sources
from longshore.schemas.issues import Issue, Severity
from longshore.schemas.wording import counted

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.NOTE: "bold cyan"}


def as_text(report: Report) -> Text:
    """Return all findings and, as the last line, the verdict."""
    return findings(report.issues, report.sources).append(verdict(report))


def findings(issues: Iterable[Issue], sources: Sources) -> Text:
    """Return `issues`, which come in the order of their files, each file with an empty line after it."""
    text = Text()
    for file, found in itertools.groupby(issues, key=lambda issue: issue.file):
        text.append(f"{harmless(file)}\n", "bold")
        for issue in found:
            _tell(issue, sources, text)
        text.append("\n")
    return text


def verdict(report: Report) -> str:
    """Return one line: whether it is valid, what it holds, how much was found."""
    counts = ", ".join(counted(number, severity) for severity in Severity if (number := report.count(severity)))
    said = f"valid: {report.summary}" if report.valid else "invalid"
    return f"The {report.what} is {said}{f' ({counts})' if counts else ''}."


def _tell(issue: Issue, sources: Sources, text: Text) -> None:
    where = ", ".join(filter(None, [f"line {issue.line}" if issue.line else "", harmless(issue.place)]))
    text.append(f"  {issue.severity}", _STYLES[issue.severity])
    text.append(f" {issue.code}{f' ({where})' if where else ''}, for {' and '.join(issue.told)}\n")
    _quote(issue, sources, text)
    for line in issue.message.splitlines():
        text.append(f"    {harmless(line)}\n")
    text.append(f"    → {issue.remedy}\n", "dim")


def _quote(issue: Issue, sources: Sources, text: Text) -> None:
    data = sources.files.get(issue.file)
    found = printable(data, issue.line, issue.place) if data is not None and issue.line else None
    if found is None:
        return
    margin = f"{found.line:>7} | "
    before, meant = found.text[: found.start], found.text[found.start : found.end]
    text.append(margin, "dim").append(f"{found.text.rstrip()}\n")
    text.append(f"{'| ':>{len(margin)}}", "dim").append(" " * cell_len(before))
    text.append("^" * max(1, cell_len(meant)), _STYLES[issue.severity]).append("\n")
