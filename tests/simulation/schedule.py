"""What a seed stands for: a fleet, what is pushed, and what goes wrong when."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from random import Random

from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.registries import RegistrySnapshot
from longshore.schemas.workers import WorkerConfig
from tests.planning.fleets import Wanted, registry, worker

# Seconds of virtual time in which pushes and faults happen; the rest is for coming to rest.
HORIZON = 700.0

_CODES = ("VALIDATION_FAILED", "MODEL_LOAD_FAILED", "RUNNER_CRASHED", "STORAGE_UNAVAILABLE", "RUNNER_OOM")


@dataclass(frozen=True)
class Push:
    at: float
    snapshot: RegistrySnapshot


@dataclass(frozen=True)
class Fault:
    at: float
    kind: str
    target: str = ""
    seconds: float = 0.0
    """How long it lasts."""
    model: str = ""

    def __str__(self) -> str:
        lasting = f"for {self.seconds:.0f} s" if self.seconds else ""
        return " ".join(part for part in (self.kind, self.model, self.target, lasting) if part)


@dataclass(frozen=True)
class Bad:
    """A version that does not come up."""

    code: str
    workers: frozenset[str]
    until: float
    """Seconds after which it does all the same."""


@dataclass(frozen=True)
class Schedule:
    seed: int
    workers: dict[str, WorkerConfig]
    """Every device that is ever configured, by id."""
    pushes: tuple[Push, ...]
    faults: tuple[Fault, ...]
    bad: dict[str, Bad]
    """By digest."""
    slow_git: bool
    """Whether the state that is written there is minutes behind."""


# What may go wrong with a device, and how often: most things are ordinary.
_DEVICE_FAULTS = {
    "crash": 5,
    "cut": 5,
    "freeze": 3,
    "die": 3,
    "blink": 2,
    "wipe": 1,
    "restart": 2,
    "leave": 1,
    "drain": 2,
    "cordon": 1,
    "drain itself": 1,
}
_OTHER_FAULTS = {
    "end rollout": 3,
    "end fleet": 3,
    "lose letters": 2,
    "pause": 1,
    "abort": 1,
    "cut pool": 1,
    "reconcile": 1,
    "broker away": 1,
    "lose the database": 1,
}


def schedule_of(seed: int) -> Schedule:
    chance = Random(seed)
    workers = {one.worker_id: one for one in _workers(chance)}
    wanted = _wanted(chance)
    pushes: list[Push] = []
    bad: dict[str, Bad] = {}
    configured = dict(workers)
    moments = [0.0, *sorted(chance.uniform(0, HORIZON * 0.8) for _ in range(chance.randint(1, 4)))]
    for number, at in enumerate(moments):
        if number:
            wanted = _changed(wanted, chance)
            if chance.random() < 0.06:
                configured = _reconfigured(workers, configured, chance)
        sha = hashlib.sha256(f"{seed}:{number}".encode()).hexdigest()[:40]
        snapshot = _snapshot(configured, wanted, sha)
        pushes.append(Push(at, snapshot))
        if number:
            before = {spec.digest for push in pushes[:-1] for spec in push.snapshot.specs.values()}
            for spec in snapshot.specs.values():
                if spec.digest not in before and chance.random() < 0.2:
                    bad[spec.digest] = _bad(workers, at, chance)
    faults = _faults(workers, wanted, chance)
    return Schedule(seed, workers, tuple(pushes), faults, bad, slow_git=chance.random() < 0.3)


def _workers(chance: Random) -> list[WorkerConfig]:
    return [
        worker(
            f"worker-{letter}",
            memory=chance.choice(["4Gi", "8Gi", "8Gi", "12Gi"]),
            cpu=chance.choice([2.0, 4.0, 8.0]),
            models=chance.randint(2, 4),
            zone=chance.choice("xy"),
        )
        for letter in "abcdef"[: chance.randint(2, 6)]
    ]


def _wanted(chance: Random) -> dict[str, Wanted]:
    return {name: _new(name, chance) for name in ["ads", "cats", "fraud", "ocr", "text"][: chance.randint(1, 5)]}


def _new(name: str, chance: Random) -> Wanted:
    return Wanted(
        name,
        replicas=chance.choice([1, 1, 2, 2, 3]),
        priority=chance.choice([10, 50, 50, 90]),
        memory=chance.choice(["1Gi", "2Gi", "3Gi", "4Gi"]),
        cpu=chance.choice([0.3, 0.7, 1.5]),
        selector=chance.choice([{}, {}, {}, {"zone": "x"}]),
    )


def _changed(wanted: dict[str, Wanted], chance: Random) -> dict[str, Wanted]:
    after = dict(wanted)
    for name in chance.sample(sorted(wanted), k=min(len(wanted), chance.randint(1, 2))):
        one = after[name]
        major, minor, _ = one.version.split(".")
        match chance.choice(["version"] * 4 + ["replicas"] * 2 + ["enabled", "priority", "selector", "memory", "gone"]):
            case "version":
                after[name] = replace(one, version=f"{major}.{int(minor) + 1}.0")
            case "replicas":
                after[name] = replace(one, replicas=chance.randint(0, 3))
            case "enabled":
                after[name] = replace(one, enabled=not one.enabled)
            case "priority":
                after[name] = replace(one, priority=chance.choice([10, 50, 90]))
            case "selector":
                after[name] = replace(one, selector=chance.choice([{}, {"zone": "x"}, {"zone": "y"}]))
            case "memory":
                after[name] = replace(one, memory=chance.choice(["1Gi", "3Gi", "5Gi"]), version=f"{major}.{minor}.1")
            case "gone":
                del after[name]
    if chance.random() < 0.2:
        name = chance.choice(["late", "more"])
        after.setdefault(name, _new(name, chance))
    return after or wanted


def _reconfigured(
    workers: dict[str, WorkerConfig], configured: dict[str, WorkerConfig], chance: Random
) -> dict[str, WorkerConfig]:
    """Return the devices with one taken out of git, or brought back."""
    absent = sorted(workers.keys() - configured.keys())
    if absent:
        return configured | {absent[0]: workers[absent[0]]}
    gone = chance.choice(sorted(configured))
    return {name: one for name, one in configured.items() if name != gone} if len(configured) > 1 else configured


def _snapshot(workers: dict[str, WorkerConfig], wanted: dict[str, Wanted], sha: str) -> RegistrySnapshot:
    snapshot = registry(workers.values(), *wanted.values(), sha=sha)
    return snapshot.model_copy(update={"specs": {name: _hashed(spec) for name, spec in snapshot.specs.items()}})


def _hashed(spec: DeploymentSpec) -> DeploymentSpec:
    """Return the spec with a digest whose first eight digits tell it from all others, as in the reports."""
    digest = hashlib.sha256(f"{spec.deployment_id}/{spec.digest}".encode()).hexdigest()
    return spec.model_copy(update={"digest": digest})


def _bad(workers: dict[str, WorkerConfig], at: float, chance: Random) -> Bad:
    everywhere = chance.random() < 0.5
    some = frozenset(workers) if everywhere else frozenset(chance.sample(sorted(workers), k=1))
    passing = chance.random() < 0.4
    return Bad(chance.choice(_CODES), some, at + chance.uniform(10, 300) if passing else float("inf"))


def _faults(workers: dict[str, WorkerConfig], wanted: dict[str, Wanted], chance: Random) -> tuple[Fault, ...]:
    found = []
    for _ in range(chance.randint(2, 7)):
        at = chance.uniform(0, HORIZON)
        lasting = chance.choice([chance.uniform(2, 40), chance.uniform(40, 150), chance.uniform(150, 400)])
        kinds = _DEVICE_FAULTS if chance.random() < 0.65 else _OTHER_FAULTS
        kind = chance.choices(list(kinds), weights=list(kinds.values()))[0]
        target = chance.choice(sorted(workers if kinds is _DEVICE_FAULTS else wanted))
        model = chance.choice(sorted(wanted)) if kind in ("die", "blink") else ""
        found.append(Fault(round(at, 2), kind, target, round(lasting, 2), model))
    return tuple(sorted(found, key=lambda fault: fault.at))
