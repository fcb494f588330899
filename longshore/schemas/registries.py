"""What one accepted registry commit says should run."""

from __future__ import annotations

from longshore.schemas.base import Message
from longshore.schemas.deployments import DeploymentManifest, DeploymentSpec
from longshore.schemas.workers import WorkerConfig


class RegistrySnapshot(Message):
    """The desired state at commit `sha`: it passed all six steps of PRD §5.1."""

    sha: str
    manifests: dict[str, DeploymentManifest] = {}
    """By deployment id."""
    workers: dict[str, WorkerConfig] = {}
    """By worker id."""
    specs: dict[str, DeploymentSpec] = {}
    """By deployment id; every manifest that wants replicas has one."""
