"""The state in git follows the fleet, whatever the git host and single workflows do meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from repositories import Registry, git
from structlog.testing import capture_logs
from temporalio.exceptions import TemporalError

from longshore.broker.recorder import LONGEST_WATCH, RegistryRecorder
from longshore.broker.registry_service import RegistryService
from longshore.broker.settings import BrokerSettings
from longshore.registry.records.state import last_applied
from longshore.registry.repositories.git import Git
from longshore.schemas.commits import CommitOutcome, CommitResult, RecordRequest
from longshore.schemas.devices import DeviceRecord, DeviceView, Health
from longshore.schemas.fleet import FleetView
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import Cause, CauseKind, DeploymentPlan, Plan
from longshore.schemas.reconciliations import LastApplied, ReconciliationRecord, ReconciliationResult, RecordWatch
from longshore.schemas.slots import Demand, Slot

STATE = "transactions/actual-state.yaml"


class Fleet:
    """Two devices, as their workflows and the ledger know them."""

    def __init__(self) -> None:
        self.health = {"worker-a": Health.HEALTHY, "worker-b": Health.HEALTHY}
        self.changes = 7
        self.applied: str | None = None
        self.plan: Plan | None = None
        self.slots: tuple[Slot, ...] = ()
        self.silent: set[str] = set()
        """Whose workflow does not answer; `fleet` is the ledger's."""

    def turn(self, worker_id: str, health: Health) -> None:
        self.health[worker_id] = health
        self.changes += 1

    async def version(self) -> int:
        self._answer("fleet")
        return self.changes

    async def fleet(self) -> FleetView:
        self._answer("fleet")
        records = {name: DeviceRecord(worker_id=name, health=health) for name, health in self.health.items()}
        return FleetView(
            registry="ops",
            applied_sha=self.applied,
            generation=self.changes,
            devices=records,
            slots=self.slots,
            plan=self.plan,
        )

    async def device(self, worker_id: str) -> DeviceView:
        self._answer(worker_id)
        return DeviceView(worker_id=worker_id, health=self.health[worker_id], last_evidence=None, report=None)

    def _answer(self, name: str) -> None:
        if name in self.silent:
            raise TemporalError(f"{name} does not answer")


class Setting:
    """A registry, its recorder, and a clock that only passes between two looks."""

    def __init__(self, root: Path) -> None:
        self.registry = Registry(root)
        self.sha = self.registry.push("Begin")
        self.fleet = Fleet()
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self.pauses: list[float] = []
        self.steps: list[Callable[[], object]] = []
        settings = BrokerSettings(
            registry=self.registry.url, state_dir=root / "broker", record_interval=timedelta(milliseconds=1)
        )
        cache = Git(root / "cache", settings)
        self.service = RegistryService(cache, self.registry.url, "main")
        self.recorder = RegistryRecorder(
            cache, self.fleet, self.service, settings, now=lambda: self.now, sleep=self.between_looks
        )

    async def between_looks(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += timedelta(seconds=1) if self.steps else LONGEST_WATCH
        if self.steps:
            self.steps.pop(0)()

    async def keep(self, *steps: Callable[[], object], seen: int = 0) -> int:
        """Keep the state through `steps`, one after each look, and one look more."""
        self.steps = list(steps)
        return await self.recorder.keep(RecordWatch(registry="ops", seen_version=seen))

    async def alarm(self, generation: int) -> None:
        """Record that worker-a has failed, and that there is nothing to do."""
        cause = Cause(kind=CauseKind.WORKER_FAILED, words="worker-a has failed", workers=("worker-a",))
        result = ReconciliationResult(
            sha=self.sha, outcome=CommitOutcome.APPLIED, summary="applied", cause=cause, generation=generation
        )
        plan = Plan(sha=self.sha, generation=generation, cause=cause)
        await self.recorder.record_reconciliation(ReconciliationRecord(registry="ops", plan=plan, result=result))

    def errors(self) -> list[str]:
        names = git(self.registry.bare, "ls-tree", "--name-only", "main", "errors/").split()
        return [name for name in names if name.endswith("-worker-failure.yaml")]

    def commits(self) -> int:
        return int(git(self.registry.bare, "rev-list", "--count", f"{self.sha}..main"))

    def state(self) -> str:
        return git(self.registry.bare, "show", f"main:{STATE}")


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


async def test_the_state_follows_the_fleet(setting: Setting) -> None:
    """Each change becomes a commit, what is no change none; the watch ends with the version that is written."""
    written = await setting.keep(
        lambda: setting.fleet.turn("worker-a", Health.SUSPECT),
        lambda: None,
        lambda: setting.fleet.turn("worker-a", Health.SUSPECT),
        lambda: setting.fleet.turn("worker-a", Health.FAILED),
    )
    assert written == setting.fleet.changes == 10
    assert setting.commits() == 3
    assert "status: failed" in setting.state()
    assert len(git(setting.registry.bare, "ls-tree", "--name-only", "main", "transactions/history/").split()) == 3


async def test_a_watch_that_begins_again_writes_nothing_twice(setting: Setting) -> None:
    """A broker that takes over goes on from the version that was written, or finds that the state is there."""
    version = await setting.keep()
    assert await setting.keep(seen=version) == version
    assert await setting.keep(seen=0) == version
    assert setting.commits() == 1


async def test_the_applied_commit_stands_in_the_state_and_starts_nothing(setting: Setting) -> None:
    """It can be read back, and the newest commit of the branch that the broker looks at is still the operator's."""
    setting.fleet.applied = setting.sha
    await setting.keep()
    assert last_applied(setting.state().encode()) == LastApplied(sha=setting.sha, generation=7)
    assert await setting.service.look() == setting.sha


async def test_a_git_host_that_is_away_gets_the_newest_state_when_it_is_back(setting: Setting) -> None:
    """FAULTS 50: told once, asked less and less often, and of all that happened meanwhile only the last is written."""
    bare, away = setting.registry.bare, setting.registry.bare.with_suffix(".away")
    with capture_logs() as logs:
        written = await setting.keep(
            lambda: (bare.rename(away), setting.fleet.turn("worker-a", Health.SUSPECT)),
            lambda: setting.fleet.turn("worker-a", Health.FAILED),
            lambda: setting.fleet.turn("worker-a", Health.RECOVERING),
            lambda: away.rename(bare),
            lambda: None,
        )
    assert written == 10
    assert setting.commits() == 2
    assert "status: recovering" in setting.state()
    told = [entry for entry in logs if entry["event"] in {"state_not_written", "state_written_again"}]
    assert [entry.get("code") for entry in told] == ["STATE_PUSH_DEFERRED", None]
    assert setting.pauses == [0.001, 0.002, 0.004, 0.008, 0.001, 0.001]


async def test_a_fleet_that_does_not_answer_is_asked_again(setting: Setting) -> None:
    """A Temporal server that is being restarted ends no watch."""
    setting.fleet.silent.add("fleet")
    with capture_logs() as logs:
        assert await setting.keep(lambda: None, setting.fleet.silent.clear) == 7
    assert setting.commits() == 1
    assert [entry["event"] for entry in logs].count("state_not_written") == 1


async def test_a_device_whose_workflow_does_not_answer_stays_in_the_state(setting: Setting) -> None:
    """Somebody has terminated it: what runs there still runs, and the state neither loses it nor gets it back."""
    await setting.keep(lambda: (setting.fleet.silent.add("worker-b"), setting.fleet.turn("worker-b", Health.HEALTHY)))
    assert setting.commits() == 1
    assert "worker-b" in setting.state()


async def test_a_device_that_fails_before_a_push_has_one_error_file(setting: Setting) -> None:
    """The push counts it out, the alarm follows; when it fails again later, that is another one."""
    lost = DeploymentPlan(
        deployment_id="m",
        generation=7,
        version="1.0.0",
        digest="d",
        replicas=1,
        changes=(),
        commands=(),
        lost=("worker-a",),
    )
    slot = Slot(
        deployment_id="m",
        worker_id="worker-a",
        generation=6,
        version="1.0.0",
        digest="d",
        priority=1,
        demand=Demand(),
        state=ModelState.READY,
        replaced=True,
    )
    setting.fleet.plan = Plan(sha=setting.sha, generation=7, deployments=(lost,))
    setting.fleet.slots = (slot,)
    setting.fleet.turn("worker-a", Health.FAILED)
    pushed = CommitResult(sha=setting.sha, outcome=CommitOutcome.APPLIED, summary="applied")
    await setting.recorder.record(RecordRequest(registry="ops", result=pushed))
    await setting.alarm(8)
    assert len(setting.errors()) == 1
    setting.fleet.slots = ()  # it was back, and holds nothing of it any more
    await setting.alarm(9)
    assert len(setting.errors()) == 2
