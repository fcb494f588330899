"""A model repository as its own team can check it, before anyone deploys it (PRD §2.2, DESIGN §6). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from longshore.registry.documents.reading import read_document
from longshore.registry.repositories.entries import Tree
from longshore.registry.validation.cards import FetchedCard, read_card
from longshore.schemas.cards import ModelCard
from longshore.schemas.deployments import ModelCardRef
from longshore.schemas.documents import DocumentKind
from longshore.schemas.issues import Audience, Issue, Severity
from longshore.schemas.patterns import GIT_REF

CARD = "model-card.yaml"


def wanted_of_model(tree: Tree) -> list[str]:
    return [CARD] if CARD in tree and tree[CARD].fault is None else []


def model_issues(tree: Tree, files: Mapping[str, bytes], rev: str | None) -> tuple[Issue, ...]:
    """Check the card by its schema, against the tag `rev` where it is one, and the modules that it names.

    The ML team alone is told: nobody deploys it yet.
    """
    if fault := tree[CARD].fault:
        code, reason = fault
        return (Issue(code=code, file=CARD, message=f"{CARD} {reason}", told=(Audience.ML,)),)
    ref = rev if rev and re.fullmatch(GIT_REF, rev) else "0" * 40
    read = read_card(ModelCardRef(repository="file:.", path=CARD, ref=ref), FetchedCard("", files[CARD]))
    issues = [issue.model_copy(update={"file": CARD, "told": (Audience.ML,)}) for issue in read.issues]
    if read.card is not None:
        issues += [
            read.document.finding(code, message, *place).in_file(CARD, Audience.ML)
            for code, message, place in _module_faults(read.card, set(tree))
        ]
        if read.card.artifacts.checksum is None:
            message = "production refuses a card without a checksum of its artifact"
            issue = read.document.finding("CHECKSUM_MISSING", message, "artifacts").in_file(CARD, Audience.ML)
            issues.append(issue.model_copy(update={"severity": Severity.WARNING}))
    return tuple(sorted(issues, key=lambda issue: issue.line or 0))


def release_tag(files: Mapping[str, bytes]) -> str | None:
    """Return the tag under which the card, if it is valid, is to be released."""
    card = read_document(DocumentKind.MODEL_CARD, files[CARD]).model if CARD in files else None
    return f"v{card.metadata.version}" if isinstance(card, ModelCard) else None


def _module_faults(card: ModelCard, paths: set[str]) -> Iterator[tuple[str, str, tuple[str, str]]]:
    folder = card.code.path.strip("/")
    if folder not in {"", "."} and not any(path.startswith(f"{folder}/") for path in paths):
        yield "CODE_PATH_INVALID", f"there is no folder {card.code.path}", ("code", "path")
    for code, module, place in (
        ("ENTRYPOINT_INVALID", card.code.entrypoint_module, ("code", "entrypoint")),
        ("PROCESSING_INVALID", card.preprocessing.module, ("preprocessing", "module")),
        ("PROCESSING_INVALID", card.postprocessing.module, ("postprocessing", "module")),
    ):
        file = module.replace(".", "/")
        if not {f"{file}.py", f"{file}/__init__.py"} & paths and module.startswith(f"{folder.replace('/', '.')}."):
            yield code, f"there is no file {file}.py", place
