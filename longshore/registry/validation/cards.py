"""What the referenced cards say: step 4 of PRD §5.1, over what was fetched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from longshore.registry.documents.reading import Finding, ReadDocument, read_document
from longshore.registry.repositories.git_process import shown
from longshore.registry.repositories.references import path_fault, repository_url_fault
from longshore.registry.validation.contents import ManifestFile
from longshore.schemas.cards import ModelCard
from longshore.schemas.deployments import ModelCardRef
from longshore.schemas.documents import DocumentKind
from longshore.schemas.failures import Failure
from longshore.schemas.issues import Audience, Issue, Severity
from longshore.schemas.policies import RepositoryPolicy


@dataclass(frozen=True)
class FetchedCard:
    """A card's bytes at the commit to which its ref was resolved."""

    commit: str
    data: bytes


@dataclass(frozen=True)
class CardFile:
    file: str
    """`<repository>@<ref>:<path>`."""
    commit: str
    document: ReadDocument
    card: ModelCard | None
    issues: tuple[Issue, ...]


CodeRef = tuple[str, str]
"""A repository and a ref in it."""

# Where in a manifest, or in the code of a card, the reason of a failed fetch is to be looked for.
_CULPRIT = {
    **dict.fromkeys(("REF_NOT_FOUND", "REF_AMBIGUOUS", "REF_NOT_TAG", "REF_NOT_COMMIT", "TAG_MOVED"), "ref"),
    **dict.fromkeys(("CARD_NOT_FOUND", "PATH_FORBIDDEN", "PATH_NOT_REGULAR", "FILE_TOO_LARGE"), "path"),
}


def card_name(ref: ModelCardRef) -> str:
    """Return what findings call a card: `<repository>@<ref>:<path>`."""
    return f"{shown(ref.repository)}@{ref.ref}:{ref.path}"


def read_card(ref: ModelCardRef, fetched: FetchedCard) -> CardFile:
    """Check one card by its schema, and its version and code ref against the tag that it was found under."""
    document = read_document(DocumentKind.MODEL_CARD, fetched.data)
    file = card_name(ref)
    findings = (*document.findings, *_tag_findings(document, ref.ref), *_path_findings(document))
    card = document.model if isinstance(document.model, ModelCard) else None
    return CardFile(
        file, fetched.commit, document, card, tuple(finding.in_file(file, *Audience) for finding in findings)
    )


def _tag_findings(document: ReadDocument, ref: str) -> Iterator[Finding]:
    version = document.sound_text_at("metadata", "version")
    if version is None:
        return
    if ref.startswith("v") and ref != f"v{version}":
        message = f"metadata.version is {version}, but the card was found under the tag {ref}"
        yield document.finding("CARD_TAG_MISMATCH", message, "metadata", "version")
    code_ref = document.text_at("code", "ref") or ""
    if code_ref.startswith("v") and code_ref != f"v{version}":
        message = f"code.ref is the tag {code_ref}, but metadata.version is {version}"
        yield document.finding("CARD_TAG_MISMATCH", message, "code", "ref")


def _path_findings(document: ReadDocument) -> Iterator[Finding]:
    path = document.sound_text_at("code", "path")
    if path is not None and (fault := path_fault(path, folder=True)):
        yield document.finding("PATH_FORBIDDEN", f"code.path: {fault}", "code", "path")


def fetch_issue(entry: ManifestFile, failure: Failure) -> Issue:
    """Say that the card of a manifest could not be fetched; no error where nothing of it is to run.

    A git host that is down must not keep an operator from disabling a model (PRD §7.4).
    """
    finding = entry.document.finding(
        failure.code, failure.message, "model_card_ref", _CULPRIT.get(failure.code, "repository")
    )
    told = tuple(Audience) if failure.code == "TAG_MOVED" else ()  # it was the ML team that moved it
    return finding.in_file(entry.file, *told).model_copy(update={"severity": severity_for(entry)})


def repository_issue(entry: ManifestFile, policy: RepositoryPolicy) -> Issue | None:
    """Judge the repository of a manifest whose card is not looked up, because something else is wrong there."""
    place = ("model_card_ref", "repository")
    url = entry.document.sound_text_at(*place)
    if entry.card_ref is not None or url is None:
        return None
    fault = repository_url_fault(url, policy)
    return entry.document.finding("REPO_URL_FORBIDDEN", fault, *place).in_file(entry.file) if fault else None


def code_issue(entry: CardFile, failure: Failure) -> Issue:
    """Say that the code of a card cannot be found."""
    place = _CULPRIT.get(failure.code, "repository")
    return entry.document.finding(failure.code, failure.message, "code", place).in_file(entry.file, *Audience)


def severity_for(entry: ManifestFile) -> Severity:
    """Return how bad it is that a deployment could not run: only a warning where it is not wanted to."""
    return Severity.WARNING if entry.is_idle else Severity.ERROR


def code_refs(cards: Mapping[ModelCardRef, CardFile]) -> set[CodeRef]:
    """Return what remains to be resolved once the cards have been read."""
    return {(file.card.code.repository, file.card.code.ref) for file in cards.values() if file.card is not None}


def checksum_issue(entry: ManifestFile, card: CardFile) -> Issue | None:
    """Require a checksum where production could load the artifact (DESIGN §7); warn elsewhere."""
    if card.card is None or card.card.artifacts.checksum is not None:
        return None
    severity = severity_for(entry) if entry.for_production else Severity.WARNING
    message = f"{entry.file} runs an artifact without a checksum"
    issue = card.document.finding("CHECKSUM_MISSING", message, "artifacts").in_file(card.file, *Audience)
    return issue.model_copy(update={"severity": severity})
