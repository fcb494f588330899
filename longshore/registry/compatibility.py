"""Who could run it: step 5 of PRD §5.1, by labels, schema version and size."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import date

from longshore.registry.cards import CardFile, severity_for
from longshore.registry.contents import ManifestFile, WorkerFile
from longshore.schemas.compatibility import matrix
from longshore.schemas.deployments import DeploymentConfig, selects_labels
from longshore.schemas.issues import Audience, Issue, Severity
from longshore.schemas.plans import Demand
from longshore.schemas.quantities import format_memory
from longshore.schemas.workers import WorkerConfig

# So many workers are named in one message: 200 such messages stay far under Temporal's 2 MB.
_NAMED = 50


class Candidates:
    """The workers of a registry, by what a deployment asks of their labels.

    A worker whose configuration is invalid may be the one that is wanted: it counts by the labels that can be read.
    """

    def __init__(self, workers: Collection[WorkerFile]) -> None:
        self.all = tuple(workers)
        self._labels = [(worker, worker.labels) for worker in workers]
        self._matching: dict[object, tuple[WorkerFile, ...]] = {}

    def matching(self, config: DeploymentConfig) -> tuple[WorkerFile, ...]:
        # A registry has hundreds of workers, and far fewer selectors than deployments.
        key = (config.region, frozenset(config.worker_selector.items()))
        if key not in self._matching:
            self._matching[key] = tuple(worker for worker, labels in self._labels if selects_labels(config, labels))
        return self._matching[key]


def compatibility_issues(
    entry: ManifestFile, card: CardFile | None, candidates: Candidates, today: date | None
) -> Iterator[Issue]:
    """Yield why no worker, or fewer workers than replicas, can run a deployment.

    `card` is None where it could not be fetched. `today` None leaves sunset dates alone: what was accepted stays so.
    """
    config = entry.config
    if config is None:
        return
    asked = config.worker_selector.get("region", config.region)
    if asked != config.region:
        message = f"the selector wants the region {asked}, and region says {config.region}: no worker is in both"
        yield _issue(entry, "REGION_MISMATCH", message, "worker_selector", "region")
        return
    matching = candidates.matching(config)
    if not matching:
        place = "worker_selector" if config.worker_selector else "region"
        message = f"no worker has {_wanted(config)}; there {_present(candidates.all)}"
        yield _issue(entry, "SELECTOR_MATCHES_NOTHING", message, place)
        return
    if not entry.is_idle and config.replicas > len(matching):
        message = f"{config.replicas} replicas are wanted, and {_count(len(matching), 'worker')} can take one each"
        issue = _issue(entry, "REPLICAS_EXCEED_WORKERS", message, "replicas")
        yield issue.model_copy(update={"severity": Severity.WARNING})
    if card is not None:
        yield from _schema_issues(entry, card, matching, today)
        yield from _size_issues(entry, card, matching)


def _schema_issues(
    entry: ManifestFile, card: CardFile, matching: tuple[WorkerFile, ...], today: date | None
) -> Iterator[Issue]:
    version = card.document.text_at("schemaVersion")
    configs = [worker.config for worker in matching if worker.config is not None]
    if version is None:
        return
    running = {v for config in configs for v in matrix().running(config.supported_schema_versions, version)}
    unreadable = len(configs) < len(matching)
    if not running and not unreadable:
        supported = [f"{c.worker_id} supports {', '.join(c.supported_schema_versions)}" for c in configs]
        message = f"no matching worker runs schemaVersion {version} of {card.file}: {_listed(supported, '; ')}"
        yield _issue(entry, "SCHEMA_INCOMPATIBLE", message, "worker_selector")
    row = matrix().deprecation(running)
    if row is None or today is None:
        return
    over = row.sunset is not None and row.sunset <= today
    code = "SCHEMA_SUNSET" if over else "SCHEMA_DEPRECATED"
    ends = "is given up at a date to come" if row.sunset is None else f"{'ended' if over else 'ends'} on {row.sunset}"
    message = f"schemaVersion {version} {ends}: {entry.file} runs on workers that know no newer version"
    issue = card.document.finding(code, message, "schemaVersion").in_file(card.file, *Audience)
    yield issue.model_copy(update={"severity": severity_for(entry) if over else Severity.WARNING})


def _size_issues(entry: ManifestFile, card: CardFile, matching: tuple[WorkerFile, ...]) -> Iterator[Issue]:
    """Yield what is missing where a replica would not fit on any matching worker, even on an empty one."""
    configs = [worker.config for worker in matching if worker.config is not None]
    if card.card is None or len(configs) < len(matching):
        return
    need = Demand.of(card.card.resources)
    lacking = [(config.worker_id, _lacks(config, need)) for config in configs]
    if all(shortfalls for _, shortfalls in lacking):
        told = _listed([f"{worker_id} has {', '.join(shortfalls)}" for worker_id, shortfalls in lacking], "; ")
        message = f"a replica needs {need}, more than any matching worker has when it is empty: {told}"
        yield _issue(entry, "CAPACITY_INSUFFICIENT", message, "worker_selector")


def _lacks(worker: WorkerConfig, need: Demand) -> list[str]:
    capacity = worker.capacity
    return [
        text
        for text, offered, needed in (
            (f"{format_memory(capacity.memory_bytes)} memory", capacity.memory_bytes, need.memory),
            (f"{capacity.max_cpu:g} CPU", capacity.max_cpu, need.cpu),
            (f"{capacity.max_gpu} GPU", capacity.max_gpu, need.gpu),
        )
        if needed > offered
    ]


def _wanted(config: DeploymentConfig) -> str:
    return ", ".join(f"{name}={value}" for name, value in {"region": config.region, **config.worker_selector}.items())


def _present(workers: Collection[WorkerFile]) -> str:
    if not workers:
        return "are no workers"
    named = [
        f"{worker.document.text_at('worker_id') or worker.file} "
        f"({', '.join(f'{name}={value}' for name, value in sorted(worker.labels.items()))})"
        for worker in workers
    ]
    return f"{'is' if len(workers) == 1 else 'are'} {_listed(named, ', ')}"


def _listed(items: list[str], separator: str) -> str:
    left_out = [f"and {len(items) - _NAMED} more"] if len(items) > _NAMED else []
    return separator.join([*items[:_NAMED], *left_out])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _issue(entry: ManifestFile, code: str, message: str, *place: str) -> Issue:
    finding = entry.document.finding(code, message, "deployment_config", *place)
    return finding.in_file(entry.file).model_copy(update={"severity": severity_for(entry)})
