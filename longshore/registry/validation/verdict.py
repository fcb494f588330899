"""The verdict over one commit: the six steps of PRD §5.1 put together, every finding at once. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from longshore.registry.documents.reading import Finding
from longshore.registry.validation.cards import (
    CardFile,
    CodeRef,
    FetchedCard,
    checksum_issue,
    code_issue,
    fetch_issue,
    read_card,
)
from longshore.registry.validation.compatibility import Candidates, compatibility_issues
from longshore.registry.validation.contents import ManifestFile, RegistryContents
from longshore.schemas.cards import ModelCard
from longshore.schemas.deployments import DeploymentManifest, DeploymentSpec, ModelCardRef
from longshore.schemas.failures import Failure
from longshore.schemas.issues import Audience, Issue, Severity
from longshore.schemas.registries import RegistrySnapshot


@dataclass(frozen=True)
class Verdict:
    snapshot: RegistrySnapshot | None
    """None where an issue is an error."""
    issues: tuple[Issue, ...]
    """All findings, by file and line."""
    unconfirmed: frozenset[str] = frozenset()
    """Manifests with a tag whose host did not answer."""


def read_cards(fetched: Mapping[ModelCardRef, FetchedCard | Failure]) -> dict[ModelCardRef, CardFile]:
    """Read every card that was fetched."""
    return {ref: read_card(ref, card) for ref, card in fetched.items() if isinstance(card, FetchedCard)}


def judge(
    sha: str,
    contents: RegistryContents,
    fetched: Mapping[ModelCardRef, FetchedCard | Failure],
    code_commits: Mapping[CodeRef, str | Failure],
    *,
    interfaces: Mapping[ModelCardRef, tuple[Finding, ...]],
    today: date | None,
) -> Verdict:
    """Judge a registry by what it holds and by what its references led to.

    `fetched` has an entry for every `card_ref` of the manifests, `code_commits` one for each of `code_refs`,
    `interfaces` what is wrong with the JSON Schemas in a card. `today` decides about deprecated schema versions; None
    where the commit was accepted before.
    """
    cards = read_cards(fetched)
    issues = {
        *contents.issues,
        *_card_issues(contents, cards, code_commits, interfaces),
        *_manifest_issues(contents, fetched, cards, today),
    }
    issues |= {note for entry in contents.manifests if (note := _not_checked(entry, fetched, cards)) is not None}
    ordered = tuple(sorted(issues, key=_order))
    if any(issue.severity is Severity.ERROR for issue in ordered):
        return Verdict(None, ordered)
    return Verdict(_snapshot(sha, contents, cards, code_commits), ordered)


def _order(issue: Issue) -> tuple[object, ...]:
    """By file and line, and what was not checked after what was."""
    note = issue.severity is Severity.NOTE
    return (issue.file, note, issue.line or 0, issue.place, issue.code, issue.message)


def _card_issues(
    contents: RegistryContents,
    cards: Mapping[ModelCardRef, CardFile],
    code_commits: Mapping[CodeRef, str | Failure],
    interfaces: Mapping[ModelCardRef, tuple[Finding, ...]],
) -> Iterator[Issue]:
    """Step 4. What is wrong with a card that nobody wants to run keeps nobody from switching it off (PRD §7.4)."""
    wanted = {entry.card_ref for entry in contents.manifests if not entry.is_idle}
    for ref, card_file in cards.items():
        found = [*card_file.issues]
        found += [finding.in_file(card_file.file, *Audience) for finding in interfaces.get(ref, ())]
        if card_file.card is not None:
            commit = code_commits[card_file.card.code.repository, card_file.card.code.ref]
            found += [code_issue(card_file, commit)] if isinstance(commit, Failure) else []
        for issue in found:
            yield issue if ref in wanted else issue.model_copy(update={"severity": Severity.WARNING})


def _manifest_issues(
    contents: RegistryContents,
    fetched: Mapping[ModelCardRef, FetchedCard | Failure],
    cards: Mapping[ModelCardRef, CardFile],
    today: date | None,
) -> Iterator[Issue]:
    candidates = Candidates(contents.workers, all_read=contents.all_workers_read)
    for entry in contents.manifests:
        its_card = cards.get(entry.card_ref) if entry.card_ref else None
        if entry.card_ref is not None and isinstance(failure := fetched[entry.card_ref], Failure):
            issue = fetch_issue(entry, failure)
            # What is wrong with that very line has been said: the fetch only stumbled over it.
            if not any(finding.line == issue.line for finding in entry.document.findings):
                yield issue
        if its_card is not None:
            yield from filter(None, [checksum_issue(entry, its_card)])
        yield from compatibility_issues(entry, its_card, candidates, today)


def _not_checked(
    entry: ManifestFile,
    fetched: Mapping[ModelCardRef, FetchedCard | Failure],
    cards: Mapping[ModelCardRef, CardFile],
) -> Issue | None:
    """Say which steps could not be taken with a manifest, and because of which error."""
    if entry.is_idle:
        return None
    failure = fetched.get(entry.card_ref) if entry.card_ref else None
    card = cards.get(entry.card_ref) if entry.card_ref else None
    cause: Finding | Issue | None
    if card is None:
        left_out = "its model card (step 4)"
        left_out += " and whether a worker can run it (step 5)" if entry.config is None else ", its version and size"
        cause = fetch_issue(entry, failure) if isinstance(failure, Failure) else _first(entry, "model_card_ref")
    elif entry.config is None:
        left_out, cause = "whether a worker can run it (step 5)", _first(entry, "deployment_config")
    elif card.card is None:
        left_out, cause = "whether it fits on a worker (step 5)", next(iter(card.issues), None)
    else:
        return None
    if cause is None:
        return None
    where = f" in line {cause.line}" if cause.line is not None else ""
    where += f" of {cause.file}" if isinstance(cause, Issue) and cause.file != entry.file else ""
    note = Finding("CHECK_SKIPPED", f"not checked: {left_out}; {cause.code}{where} comes first")
    return note.in_file(entry.file).model_copy(update={"severity": Severity.NOTE})


def _first(entry: ManifestFile, block: str) -> Finding | None:
    """Return the finding that keeps `block` of a manifest from being read: its own first one, else the file's."""
    findings = entry.document.findings
    own = [finding for finding in findings if finding.place[:1] == (block,)]
    return next(iter([*own, *findings]), None)


def _snapshot(
    sha: str,
    contents: RegistryContents,
    cards: Mapping[ModelCardRef, CardFile],
    code_commits: Mapping[CodeRef, str | Failure],
) -> RegistrySnapshot:
    manifests = {entry.manifest.id: entry.manifest for entry in contents.manifests if entry.manifest is not None}
    specs = {}
    for manifest in manifests.values():
        card_file = cards.get(manifest.model_card_ref)
        if card_file is None or card_file.card is None:
            continue
        code_commit = code_commits[card_file.card.code.repository, card_file.card.code.ref]
        if isinstance(code_commit, str):
            specs[manifest.id] = resolve_spec(manifest, card_file.card, card_file.commit, code_commit)
    workers = {entry.config.worker_id: entry.config for entry in contents.workers if entry.config is not None}
    return RegistrySnapshot(sha=sha, manifests=manifests, workers=workers, specs=specs)


def resolve_spec(manifest: DeploymentManifest, card: ModelCard, card_commit: str, code_commit: str) -> DeploymentSpec:
    """Return what a device needs to run `manifest`, with the digest of what would run."""
    endpoint = manifest.deployment_config.endpoint
    return DeploymentSpec(
        deployment_id=manifest.id,
        priority=manifest.deployment_config.priority,
        endpoint=endpoint,
        card=card,
        card_repository=manifest.model_card_ref.repository,
        card_ref=manifest.model_card_ref.ref,
        card_commit=card_commit,
        code_commit=code_commit,
        digest=content_digest(card, code_commit, endpoint),
    )


def content_digest(card: ModelCard, code_commit: str, endpoint: str | None) -> str:
    """Return the sha256 (hex) of what runs: the card, the commit of its code, the endpoint.

    Canonical JSON, so that neither the order of keys nor the layout of a file makes a RELOAD.
    """
    content = {"card": card.model_dump(mode="json"), "code_commit": code_commit, "endpoint": endpoint}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
