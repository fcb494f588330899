"""The JSON Schemas of the three documents that people write, and one compiled validator for each (PRD §3)."""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any

import jsonschema_rs
from ruamel.yaml import YAML

from longshore.schemas.base import Document
from longshore.schemas.cards import ModelCard
from longshore.schemas.deployments import DeploymentManifest
from longshore.schemas.workers import WorkerConfig


class DocumentKind(StrEnum):
    """What a file should hold; the value is the schema's file name."""

    MODEL_CARD = "model-card"
    MANIFEST = "registry"
    WORKER_CONFIG = "worker-config"

    @property
    def model(self) -> type[Document]:
        return _MODELS[self]


_MODELS: dict[DocumentKind, type[Document]] = {
    DocumentKind.MODEL_CARD: ModelCard,
    DocumentKind.MANIFEST: DeploymentManifest,
    DocumentKind.WORKER_CONFIG: WorkerConfig,
}


def packaged_yaml(name: str) -> Any:
    """Return the content of one of our own YAML files in `schemas/documents/`."""
    text = resources.files("longshore.schemas").joinpath("documents", name).read_text(encoding="utf-8")
    return YAML(typ="safe", pure=True).load(text)


@cache
def schema(kind: DocumentKind) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of `kind`. It is shared: do not change it."""
    document: dict[str, Any] = packaged_yaml(f"{kind}.schema.yaml")
    return document


@cache
def validator(kind: DocumentKind) -> jsonschema_rs.Draft202012Validator:
    """Return the compiled validator of `kind`: Rust patterns, whose `$` is the very end of the text."""
    return jsonschema_rs.Draft202012Validator(schema(kind))
