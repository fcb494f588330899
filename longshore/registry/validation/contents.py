"""What the registry itself says: steps 1, 2, 3 and 6 of PRD §5.1, over paths and bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TypeVar

from pydantic import ValidationError

from longshore.registry.documents.reading import ReadDocument, read_document
from longshore.registry.repositories.entries import Tree
from longshore.registry.repositories.references import path_fault
from longshore.registry.validation.layout import is_manifest, is_worker_config, layout_issues, wanted
from longshore.schemas.base import Document
from longshore.schemas.deployments import DeploymentConfig, DeploymentManifest, ModelCardRef
from longshore.schemas.documents import DocumentKind
from longshore.schemas.issues import Issue
from longshore.schemas.workers import WorkerConfig

Part = TypeVar("Part", bound=Document)


@dataclass(frozen=True)
class ManifestFile:
    file: str
    document: ReadDocument
    manifest: DeploymentManifest | None
    card_ref: ModelCardRef | None
    """Also where the rest of the manifest is invalid: its card is checked all the same."""
    config: DeploymentConfig | None
    """Likewise: whether some worker could run it is checked all the same."""

    @property
    def for_production(self) -> bool:
        """Tell whether it may reach production, by its folder or by its selector."""
        selector = self.config.worker_selector if self.config else {}
        return self.file.startswith("models/production/") or selector.get("pool") == "production"

    @property
    def is_idle(self) -> bool:
        """Tell whether nothing of it is to run."""
        disabled = isinstance(self.document.raw, dict) and self.document.raw.get("enabled") is False
        return disabled or (self.config is not None and self.config.replicas == 0)


@dataclass(frozen=True)
class WorkerFile:
    file: str
    document: ReadDocument
    config: WorkerConfig | None

    def may_have(self, name: str, value: str) -> bool:
        """Tell whether it has that label; where the label itself is at fault, it may well be meant to."""
        if self.labels.get(name) == value:
            return True
        if not isinstance(self.document.raw, dict) or "labels" not in self.document.raw:
            return self.config is None
        return any(finding.place in {("labels",), ("labels", name)} for finding in self.document.findings)

    @property
    def labels(self) -> dict[str, str]:
        """Return the labels; where the configuration is invalid, what of them can be read."""
        if self.config is not None:
            return self.config.labels.as_dict()
        labels = self.document.raw.get("labels") if isinstance(self.document.raw, dict) else None
        return (
            {name: value for name, value in labels.items() if isinstance(value, str)}
            if isinstance(labels, dict)
            else {}
        )


@dataclass(frozen=True)
class RegistryContents:
    manifests: tuple[ManifestFile, ...]
    workers: tuple[WorkerFile, ...]
    issues: tuple[Issue, ...]
    all_workers_read: bool = True
    """False where the content of some worker configuration could not be had."""


def read_contents(tree: Tree, files: Mapping[str, bytes]) -> RegistryContents:
    """Read a registry. `tree` is all that lies in it, `files` at least the content of what of it is `wanted`."""
    paths = sorted(wanted(tree))
    manifests = tuple(read_manifest(path, files[path]) for path in filter(is_manifest, paths))
    workers = tuple(read_worker(path, files[path]) for path in filter(is_worker_config, paths))
    issues = [
        *layout_issues(tree),
        *(finding.in_file(entry.file) for entry in manifests for finding in entry.document.findings),
        *(finding.in_file(entry.file) for entry in workers for finding in entry.document.findings),
        *_identity_issues([(entry.file, entry.document) for entry in manifests], "id"),
        *_identity_issues([(entry.file, entry.document) for entry in workers], "worker_id"),
    ]
    all_workers_read = len(workers) == sum(map(is_worker_config, tree))
    return RegistryContents(manifests, workers, tuple(issues), all_workers_read)


def read_manifest(file: str, data: bytes) -> ManifestFile:
    """Steps 2 and 3: the manifest's schema, in which a ref is a tag or a commit id."""
    document = _with_path(read_document(DocumentKind.MANIFEST, data))
    manifest = document.model if isinstance(document.model, DeploymentManifest) else None
    card_ref, config = (
        (manifest.model_card_ref, manifest.deployment_config)
        if manifest is not None
        else (_part(ModelCardRef, document, "model_card_ref"), _part(DeploymentConfig, document, "deployment_config"))
    )
    return ManifestFile(file, document, manifest, card_ref, config)


def _with_path(document: ReadDocument) -> ReadDocument:
    """Add what is wrong with the path of the card, where the schema has no objection to it."""
    place = ("model_card_ref", "path")
    path = document.sound_text_at(*place)
    fault = path_fault(path) if path is not None else None
    if fault is None:
        return document
    finding = document.finding("PATH_FORBIDDEN", fault, *place)
    return replace(document, model=None, findings=(*document.findings, finding))


def _part(model: type[Part], document: ReadDocument, key: str) -> Part | None:
    """Return one block of a manifest that is invalid as a whole, where nothing is wrong with that block."""
    if any(finding.place[:1] == (key,) for finding in document.findings):
        return None
    raw = document.raw.get(key) if isinstance(document.raw, dict) else None
    try:
        return model.model_validate(raw)
    except ValidationError:  # its findings are already there
        return None


def read_worker(file: str, data: bytes) -> WorkerFile:
    """Step 6: the worker configuration's schema."""
    document = read_document(DocumentKind.WORKER_CONFIG, data)
    return WorkerFile(file, document, document.model if isinstance(document.model, WorkerConfig) else None)


def _identity_issues(documents: Collection[tuple[str, ReadDocument]], key: str) -> Iterator[Issue]:
    first_of: dict[str, str] = {}
    for file, document in documents:
        name = document.sound_text_at(key)
        if name is None:
            continue
        stem = PurePosixPath(file).stem
        if name in first_of:
            yield document.finding("DUPLICATE_ID", f"{name} is also the {key} in {first_of[name]}", key).in_file(file)
        elif name != stem:
            yield document.finding(
                "DUPLICATE_ID", f"the {key} {name} differs from the file's name {stem}", key
            ).in_file(file)
        first_of.setdefault(name, file)
