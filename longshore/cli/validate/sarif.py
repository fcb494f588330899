"""A report as SARIF 2.1.0, within what GitHub's code scanning reads of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple
from urllib.parse import quote

from longshore.cli.validate.excerpts import excerpt
from longshore.cli.validate.report import Report
from longshore.registry.validation.sources import Reference
from longshore.schemas.failures import FAILURES
from longshore.schemas.issues import Issue

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


class _Spot(NamedTuple):
    """Where a finding is shown: always in the repository that was checked, or a host has nowhere to show it."""

    file: str
    line: int
    place: str


def as_sarif(report: Report) -> dict[str, Any]:
    """Return one run: a rule for each code that occurs, a result for each finding."""
    codes = sorted({issue.code for issue in report.issues})
    spots = [_spot(report, issue) for issue in report.issues]
    # Hosts tell results apart by code and line; where that does not suffice, by our own fingerprint.
    crowded = Counter((issue.code, spot.file, spot.line) for issue, spot in zip(report.issues, spots, strict=True))
    results = []
    for issue, spot, fingerprint in zip(report.issues, spots, _fingerprints(report), strict=True):
        alone = crowded[issue.code, spot.file, spot.line] == 1
        fingerprints = {"longshore/v1": fingerprint} | ({} if alone else {"primaryLocationLineHash": fingerprint})
        others = report.sources.references.get(issue.file, ())[1:]
        results.append(
            {
                "ruleId": issue.code,
                "ruleIndex": codes.index(issue.code),
                "level": issue.severity.value,
                "message": {"text": _message(report, issue)},
                "locations": [_location(report, spot)],
                **({"relatedLocations": [_related(report, *other) for other in enumerate(others)]} if others else {}),
                "partialFingerprints": fingerprints,
                "properties": {"place": issue.place, "told": list(issue.told)},
            }
        )
    driver = {"name": "longshore validate", **_version(), "rules": [_rule(code) for code in codes]}
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _spot(report: Report, issue: Issue) -> _Spot:
    """Return the finding's own place; for a card, which lies elsewhere, the manifest's line that refers to it."""
    references = report.sources.references.get(issue.file)
    if references:
        return _of(references[0])
    return _Spot(issue.file, issue.line or 1, issue.place)


def _of(reference: Reference) -> _Spot:
    return _Spot(reference.file, reference.line or 1, "model_card_ref.ref")


def _message(report: Report, issue: Issue) -> str:
    if issue.file not in report.sources.references:
        return issue.message
    where = ", ".join(filter(None, [issue.file, f"line {issue.line}" if issue.line else "", issue.place]))
    return f"{where}: {issue.message}"


def _location(report: Report, spot: _Spot) -> dict[str, Any]:
    region = {"startLine": spot.line}
    data = report.sources.files.get(spot.file)
    found = excerpt(data, spot.line, spot.place) if data is not None else None
    if found is not None:
        region |= {"startColumn": found.start + 1, "endColumn": found.end + 1}
    return {"physicalLocation": {"artifactLocation": {"uri": quote(report.prefix + spot.file)}, "region": region}}


def _related(report: Report, number: int, reference: Reference) -> dict[str, Any]:
    message = {"text": f"{reference.file} refers to the same card"}
    return {"id": number, "message": message, **_location(report, _of(reference))}


def _fingerprints(report: Report) -> list[str]:
    """Return what stays the same while lines move and messages are reworded: code, file, place, and which of equals."""
    seen: Counter[tuple[str, str, str]] = Counter()
    fingerprints = []
    for issue in report.issues:
        key = (issue.code, issue.file, issue.place)
        seen[key] += 1
        digest = hashlib.sha256("\0".join(key).encode("utf-8", "replace")).hexdigest()
        fingerprints.append(f"{digest[:16]}:{seen[key]}")
    return fingerprints


def _rule(code: str) -> dict[str, Any]:
    kind = FAILURES[code]
    return {
        "id": code,
        "shortDescription": {"text": code.replace("_", " ").capitalize()},
        "fullDescription": {"text": kind.remedy},
        "help": {"text": kind.remedy, "markdown": kind.remedy},
        "properties": {"tags": [kind.category.value]},
    }


def _version() -> dict[str, str]:
    try:
        return {"version": version("longshore")}
    except PackageNotFoundError:  # a checkout that is not installed
        return {}
