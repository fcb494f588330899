"""The deployment manifest: what Ops wants to run, where and how often (PRD §3.2), and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from longshore.schemas import limits
from longshore.schemas.base import Document, Integer, Message, Omittable
from longshore.schemas.cards import ModelCard
from longshore.schemas.patterns import DATE_TIME, EMAIL, GIT_REF, NAME, REGION, URI
from longshore.schemas.workers import WorkerConfig


class ModelCardRef(Document):
    repository: Annotated[str, Field(pattern=URI, max_length=limits.URI)]
    path: Annotated[str, Field(max_length=limits.PATH)]
    ref: Annotated[str, Field(pattern=GIT_REF)]


class DeploymentConfig(Document):
    region: Annotated[str, Field(pattern=REGION, max_length=limits.ID)]
    replicas: Annotated[Integer, Field(ge=0, le=limits.REPLICAS)]
    priority: Annotated[Integer, Field(ge=1, le=100)]
    worker_selector: Annotated[
        dict[Annotated[str, Field(max_length=limits.TEXT)], Annotated[str, Field(max_length=limits.TEXT)]],
        Field(max_length=limits.LABELS),
    ] = {}
    endpoint: Omittable[Annotated[str, Field(pattern=URI, max_length=limits.URI)]] = None


class DeploymentMetadata(Document):
    owner: Omittable[Annotated[str, Field(pattern=EMAIL, max_length=limits.EMAIL)]] = None
    deployed_at: Omittable[Annotated[str, Field(pattern=DATE_TIME, max_length=limits.TEXT)]] = None
    deployed_by: Omittable[Annotated[str, Field(pattern=EMAIL, max_length=limits.EMAIL)]] = None


class DeploymentManifest(Document):
    id: Annotated[str, Field(pattern=NAME, max_length=limits.ID)]
    model_card_ref: ModelCardRef
    enabled: bool
    deployment_config: DeploymentConfig
    metadata: DeploymentMetadata = DeploymentMetadata()

    @property
    def wanted_replicas(self) -> int:
        """How many replicas should run: none where the deployment is disabled (PRD §5.2 DISABLE)."""
        return self.deployment_config.replicas if self.enabled else 0


def selects_labels(config: DeploymentConfig, labels: Mapping[str, str]) -> bool:
    """Tell whether a worker with `labels` may run it: it has every label of the selector (PRD §5.3 phase 1).

    `region` counts as one more label: a model wanted in one region never lands in another.
    """
    wanted = [("region", config.region), *config.worker_selector.items()]
    return all(labels.get(name) == value for name, value in wanted)


def selects(manifest: DeploymentManifest, worker: WorkerConfig) -> bool:
    """Tell whether `worker` may run `manifest`, by its labels alone."""
    return selects_labels(manifest.deployment_config, worker.labels.as_dict())


class DeploymentSpec(Message):
    """Everything a device needs to run one deployment: manifest and card, with every ref resolved to a commit.

    `digest` (sha256, hex) identifies what runs: two specs with one digest need no RELOAD between them. It covers
    the card, the resolved code commit and the endpoint, and leaves out replicas, priority and metadata.
    """

    deployment_id: str
    priority: int
    endpoint: str | None
    card: ModelCard
    card_repository: str
    card_ref: str
    card_commit: str
    code_commit: str
    digest: str

    @property
    def version(self) -> str:
        return self.card.metadata.version
