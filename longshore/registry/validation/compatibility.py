"""Who could run it: step 5 of PRD §5.1, by labels, schema version and size."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property

from longshore.registry.validation.cards import CardFile, severity_for
from longshore.registry.validation.contents import ManifestFile, WorkerFile
from longshore.schemas.compatibility import matrix
from longshore.schemas.deployments import DeploymentConfig, selects_labels
from longshore.schemas.issues import Audience, Issue, Severity
from longshore.schemas.quantities import format_memory
from longshore.schemas.slots import Demand
from longshore.schemas.wording import counted
from longshore.schemas.workers import Capacity, WorkerConfig

# So many workers are named in one message: 200 such messages stay far under Temporal's 2 MB.
_NAMED = 50


@dataclass(frozen=True)
class Group:
    """The workers that one selector matches, and what hundreds of them have in common: a few sizes and versions."""

    workers: tuple[WorkerFile, ...]

    @cached_property
    def configs(self) -> tuple[WorkerConfig, ...]:
        return tuple(worker.config for worker in self.workers if worker.config is not None)

    @property
    def all_readable(self) -> bool:
        return len(self.configs) == len(self.workers)

    @cached_property
    def sizes(self) -> frozenset[tuple[int, float, int]]:
        """Bytes, cores, GPUs of an empty worker."""
        return frozenset(_size(config.capacity) for config in self.configs)

    @cached_property
    def versions(self) -> frozenset[str]:
        """Every schema version that one of them supports."""
        return frozenset(version for config in self.configs for version in config.supported_schema_versions)


class Candidates:
    """The workers of a registry, by what a deployment asks of their labels.

    A worker whose configuration is invalid may be the one that is wanted: it counts by the labels that can be read.
    Where not `all_read`, nobody can say that there is none.
    """

    def __init__(self, workers: Collection[WorkerFile], *, all_read: bool = True) -> None:
        self.all = tuple(workers)
        self.all_read = all_read
        self._labels = [(worker, worker.labels) for worker in workers]
        self._groups: dict[object, Group] = {}

    def matching(self, config: DeploymentConfig) -> Group:
        key = (config.region, frozenset(config.worker_selector.items()))
        if key not in self._groups:
            fitting = (worker for worker, labels in self._labels if _fits(config, worker, labels))
            self._groups[key] = Group(tuple(fitting))
        return self._groups[key]


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
    if not candidates.all_read:
        return
    place = "worker_selector" if config.worker_selector else "region"
    if not matching.workers:
        message = f"no worker has {_wanted(config)}; there {_present(candidates.all)}"
        yield _issue(entry, "SELECTOR_MATCHES_NOTHING", message, place)
        return
    if not entry.is_idle and config.replicas > len(matching.workers):
        message = (
            f"{config.replicas} replicas are wanted, and {counted(len(matching.workers), 'worker')} can take one each"
        )
        issue = _issue(entry, "REPLICAS_EXCEED_WORKERS", message, "replicas")
        yield issue.model_copy(update={"severity": Severity.WARNING})
    if card is not None:
        yield from _schema_issues(entry, card, matching, place, today)
        yield from _size_issues(entry, card, matching, place)


def _fits(config: DeploymentConfig, worker: WorkerFile, labels: Mapping[str, str]) -> bool:
    if worker.config is not None:
        return selects_labels(config, labels)
    wanted = {"region": config.region, **config.worker_selector}
    return all(worker.may_have(name, value) for name, value in wanted.items())


def _schema_issues(
    entry: ManifestFile, card: CardFile, matching: Group, place: str, today: date | None
) -> Iterator[Issue]:
    version = card.document.sound_text_at("schemaVersion")
    if version is None:
        return
    running = matrix().running(matching.versions, version)
    if not running and matching.all_readable:
        supported = [f"{c.worker_id} supports {', '.join(c.supported_schema_versions)}" for c in matching.configs]
        message = f"no matching worker runs schemaVersion {version} of {card.file}: {_listed(supported, '; ')}"
        yield _issue(entry, "SCHEMA_INCOMPATIBLE", message, place)
    row = matrix().deprecation(running)
    if row is None or today is None:
        return
    over = row.sunset is not None and row.sunset <= today
    code = "SCHEMA_SUNSET" if over else "SCHEMA_DEPRECATED"
    ends = "is given up at a date to come" if row.sunset is None else f"{'ended' if over else 'ends'} on {row.sunset}"
    message = f"schemaVersion {version} {ends}: {entry.file} runs on workers that know no newer version"
    issue = card.document.finding(code, message, "schemaVersion").in_file(card.file, *Audience)
    yield issue.model_copy(update={"severity": severity_for(entry) if over else Severity.WARNING})


def _size_issues(entry: ManifestFile, card: CardFile, matching: Group, place: str) -> Iterator[Issue]:
    """Yield what is missing where a replica would not fit on any matching worker, even on an empty one."""
    if card.card is None or not matching.all_readable:
        return
    need = Demand.of(card.card.resources)
    if any(memory >= need.memory and cpu >= need.cpu and gpu >= need.gpu for memory, cpu, gpu in matching.sizes):
        return
    told = _listed([f"{config.worker_id} has {_lacks(config.capacity, need)}" for config in matching.configs], "; ")
    message = f"a replica needs {need}, more than any matching worker has when it is empty: {told}"
    yield _issue(entry, "CAPACITY_INSUFFICIENT", message, place)


def _size(capacity: Capacity) -> tuple[int, float, int]:
    return capacity.memory_bytes, capacity.max_cpu, capacity.max_gpu


def _lacks(capacity: Capacity, need: Demand) -> str:
    memory, cpu, gpu = _size(capacity)
    lacking = [
        *([f"{format_memory(memory)} memory"] if need.memory > memory else []),
        *([f"{cpu:g} CPU"] if need.cpu > cpu else []),
        *([f"{gpu} GPU"] if need.gpu > gpu else []),
    ]
    return ", ".join(lacking)


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


def _issue(entry: ManifestFile, code: str, message: str, *place: str) -> Issue:
    finding = entry.document.finding(code, message, "deployment_config", *place)
    return finding.in_file(entry.file).model_copy(update={"severity": severity_for(entry)})
