"""The verdict over one commit: the six steps of PRD §5.1 put together, every finding at once. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from longshore.registry.cards import CardFile, CodeRef, FetchedCard, checksum_issue, code_issue, fetch_issue, read_card
from longshore.registry.compatibility import compatibility_issue
from longshore.registry.contents import RegistryContents
from longshore.schemas.cards import ModelCard
from longshore.schemas.deployments import DeploymentManifest, DeploymentSpec, ModelCardRef
from longshore.schemas.failures import Failure
from longshore.schemas.issues import Issue, Severity
from longshore.schemas.registries import RegistrySnapshot


@dataclass(frozen=True)
class Verdict:
    snapshot: RegistrySnapshot | None
    """None where an issue is an error."""
    issues: tuple[Issue, ...]
    """Errors and warnings, by file and line."""


def read_cards(fetched: Mapping[ModelCardRef, FetchedCard | Failure]) -> dict[ModelCardRef, CardFile]:
    """Read every card that was fetched."""
    return {ref: read_card(ref, card) for ref, card in fetched.items() if isinstance(card, FetchedCard)}


def judge(
    sha: str,
    contents: RegistryContents,
    fetched: Mapping[ModelCardRef, FetchedCard | Failure],
    code_commits: Mapping[CodeRef, str | Failure],
) -> Verdict:
    """Judge a registry by what it holds and by what its references led to.

    `fetched` has an entry for every `card_ref` of the manifests, `code_commits` one for each of `code_refs`.
    """
    cards = read_cards(fetched)
    issues = {*contents.issues, *_reference_issues(contents, fetched, cards, code_commits)}
    ordered = tuple(
        sorted(issues, key=lambda issue: (issue.file, issue.line or 0, issue.place, issue.code, issue.message))
    )
    if any(issue.severity is Severity.ERROR for issue in ordered):
        return Verdict(None, ordered)
    return Verdict(_snapshot(sha, contents, cards, code_commits), ordered)


def _reference_issues(
    contents: RegistryContents,
    fetched: Mapping[ModelCardRef, FetchedCard | Failure],
    cards: Mapping[ModelCardRef, CardFile],
    code_commits: Mapping[CodeRef, str | Failure],
) -> Iterator[Issue]:
    for card_file in cards.values():
        yield from card_file.issues
        if card_file.card is not None:
            commit = code_commits[card_file.card.code.repository, card_file.card.code.ref]
            if isinstance(commit, Failure):
                yield code_issue(card_file, commit)
    for entry in contents.manifests:
        its_card = cards.get(entry.card_ref) if entry.card_ref else None
        if entry.card_ref is not None and isinstance(failure := fetched[entry.card_ref], Failure):
            yield fetch_issue(entry, failure)
        if its_card is not None:
            yield from filter(None, [checksum_issue(entry, its_card)])
        yield from filter(None, [compatibility_issue(entry, its_card, contents.workers)])


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
