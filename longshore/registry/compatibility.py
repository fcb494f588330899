"""Who could run it: step 5 of PRD §5.1."""

from __future__ import annotations

from collections.abc import Collection

from longshore.registry.cards import CardFile, severity_for
from longshore.registry.contents import ManifestFile, WorkerFile
from longshore.schemas.compatibility import matrix
from longshore.schemas.deployments import DeploymentManifest, selects_labels
from longshore.schemas.issues import Issue

# So many workers are named in one message.
_NAMED = 10


def compatibility_issue(entry: ManifestFile, card: CardFile | None, workers: Collection[WorkerFile]) -> Issue | None:
    """Return why no worker can run a deployment, by labels and schema version, or None.

    A worker whose configuration is invalid may well be the one: it counts by the labels that can be read.
    """
    manifest = entry.manifest
    if manifest is None:
        return None
    matching = [worker for worker in workers if selects_labels(manifest, worker.labels)]
    if not matching:
        place = "worker_selector" if manifest.deployment_config.worker_selector else "region"
        message = f"no worker has {_wanted(manifest)}; there {_present(workers)}"
        return _issue(entry, "SELECTOR_MATCHES_NOTHING", message, place)
    version = card.document.text_at("schemaVersion") if card else None
    if card is None or version is None or any(_runs(worker, version) for worker in matching):
        return None
    supported = "; ".join(
        f"{worker.config.worker_id} supports {', '.join(worker.config.supported_schema_versions)}"
        for worker in matching[:_NAMED]
        if worker.config is not None
    )
    message = f"no matching worker runs schemaVersion {version} of {card.file}: {supported}"
    return _issue(entry, "SCHEMA_INCOMPATIBLE", message, "worker_selector")


def _runs(worker: WorkerFile, version: str) -> bool:
    return worker.config is None or matrix().runs(worker.config.supported_schema_versions, version)


def _wanted(manifest: DeploymentManifest) -> str:
    config = manifest.deployment_config
    return ", ".join(f"{name}={value}" for name, value in {"region": config.region, **config.worker_selector}.items())


def _present(workers: Collection[WorkerFile]) -> str:
    if not workers:
        return "are no workers"
    named = [
        f"{worker.document.text_at('worker_id') or worker.file} "
        f"({', '.join(f'{name}={value}' for name, value in sorted(worker.labels.items()))})"
        for worker in list(workers)[:_NAMED]
    ]
    return f"{'is' if len(workers) == 1 else 'are'} {', '.join(named)}"


def _issue(entry: ManifestFile, code: str, message: str, place: str) -> Issue:
    finding = entry.document.finding(code, message, "deployment_config", place)
    return finding.in_file(entry.file).model_copy(update={"severity": severity_for(entry)})
