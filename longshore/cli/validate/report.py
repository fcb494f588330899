"""What was found, about what, and where it stands: the facts that every format of `longshore validate` shows."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from longshore.registry.documents.reading import read_document
from longshore.registry.documents.schema_checks import check_interfaces
from longshore.registry.records.pins import PINS_FILE, parse_pins
from longshore.registry.repositories.entries import Kind, Tree
from longshore.registry.repositories.git import Git
from longshore.registry.repositories.git_cache import FetchLimits
from longshore.registry.repositories.local import LocalFiles, read_local
from longshore.registry.validation.layout import wanted
from longshore.registry.validation.loading import examine
from longshore.registry.validation.model_repository import CARD, model_issues, release_tag, wanted_of_model
from longshore.registry.validation.sources import Sources, read_sources
from longshore.schemas.documents import DocumentKind
from longshore.schemas.issues import Audience, Issue, Severity
from longshore.schemas.policies import RepositoryPolicy
from longshore.schemas.registries import RegistrySnapshot
from longshore.schemas.wording import counted


@dataclass(frozen=True)
class Report:
    what: str
    """`registry` or `model`."""
    commit: str | None
    prefix: str
    """Where the folder lies in its repository: `ops/`, or empty."""
    issues: tuple[Issue, ...]
    sources: Sources
    summary: str
    """What the thing holds, for a person."""
    snapshot: RegistrySnapshot | None = None
    """What should run, where it is a registry without errors."""

    def count(self, severity: Severity) -> int:
        return sum(issue.severity is severity for issue in self.issues)

    @property
    def valid(self) -> bool:
        return not self.count(Severity.ERROR)


async def check(path: Path, rev: str | None, policy: RepositoryPolicy) -> Report:
    """Check what lies at `path`. Cards are fetched afresh from the repositories that the manifests name.

    Raises UnusablePath.
    """
    local = await read_local(path, rev, lambda tree: wanted_of_model(tree) or wanted_of_registry(tree), os.environ)
    if CARD in local.tree:
        return await _check_model(local, rev)
    with tempfile.TemporaryDirectory(prefix="longshore-") as cache:
        return await check_registry(repositories(Path(cache), policy), local)


def wanted_of_registry(tree: Tree) -> list[str]:
    """Return the paths that `check_registry` reads: what is judged, and what the broker remembers."""
    return [*wanted(tree), *([PINS_FILE] if PINS_FILE in tree and tree[PINS_FILE].kind is Kind.FILE else [])]


async def check_registry(git: Git, local: LocalFiles) -> Report:
    """Judge a registry as the broker does, cards fetched by `git`."""
    today = datetime.now(UTC).date()
    pins = parse_pins(local.files.get(PINS_FILE))
    verdict = await examine(git, local.commit or "", local.tree, local.files, today, pins=pins)
    held = "nothing"
    if verdict.snapshot is not None:
        deployments, workers = len(verdict.snapshot.manifests), len(verdict.snapshot.workers)
        held = f"{counted(deployments, 'deployment')}, {counted(workers, 'worker')}"
    sources = await read_sources(git, local.files, verdict.issues)
    return Report("registry", local.commit, local.prefix, verdict.issues, sources, held, verdict.snapshot)


def repositories(cache: Path, policy: RepositoryPolicy, limits: FetchLimits | None = None) -> Git:
    """Return the repositories that cards may come from, kept under `cache`."""
    return Git(cache, policy, limits=limits)


async def _check_model(local: LocalFiles, rev: str | None) -> Report:
    found = [*model_issues(local.tree, local.files, rev)]
    if CARD in local.files:
        card = read_document(DocumentKind.MODEL_CARD, local.files[CARD])
        schemas = (await check_interfaces({CARD: card}))[CARD]
        found += [finding.in_file(CARD, Audience.ML) for finding in schemas]
    issues = tuple(sorted(found, key=lambda issue: issue.line or 0))
    summary = f"card and code fit together, for the tag {release_tag(local.files)}"
    return Report("model", local.commit, local.prefix, issues, Sources(local.files), summary)


def as_document(report: Report) -> dict[str, Any]:
    """Return the facts for programs."""
    return {
        "what": report.what,
        "commit": report.commit,
        "valid": report.valid,
        "errors": report.count(Severity.ERROR),
        "warnings": report.count(Severity.WARNING),
        "notes": report.count(Severity.NOTE),
        "issues": [{**issue.model_dump(mode="json"), "remedy": issue.remedy} for issue in report.issues],
    }
