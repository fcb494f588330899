"""The broker and real git: what it looks at, what it loads, and what it writes back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from repositories import ModelRepository, Registry, git

from longshore.broker.recorder import RegistryRecorder, has_been_reported
from longshore.broker.registry_service import RegistryService
from longshore.broker.settings import BrokerSettings
from longshore.registry.repositories.git import Git
from longshore.schemas.commands import Action, UnloadReason
from longshore.schemas.commits import CommitOutcome, CommitResult, RecordRequest
from longshore.schemas.devices import DeviceCapacity, DeviceReport, DeviceStatus, DeviceView, Health, ModelReport
from longshore.schemas.failures import Failure, LongshoreError
from longshore.schemas.fleet import FleetView
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import Cause, CauseKind, DeploymentPlan, Plan, PlannedCommand
from longshore.schemas.reconciliations import ReconciliationRecord, ReconciliationResult
from longshore.schemas.rollouts import RolloutAnswer, RolloutOutcome, SlotResult, SpecRequest
from longshore.telemetry.metrics import BrokerMetrics

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def view(state: ModelState = ModelState.READY, generation: int = 1) -> DeviceView:
    capacity = DeviceCapacity(
        max_models=1, max_memory=1, used_memory=0, max_cpu=1, used_cpu=0, max_gpu=0, used_gpu=0, loaded_models=1
    )
    model = ModelReport(deployment_id="ten", state=state, generation=generation, version="1.0.0", digest="d")
    report = DeviceReport(
        worker_id="worker-a",
        boot_id="boot",
        sequence=1,
        status=DeviceStatus.HEALTHY,
        timestamp=NOW,
        capacity=capacity,
        models=(model,),
    )
    return DeviceView(worker_id="worker-a", health=Health.HEALTHY, last_evidence=NOW, report=report)


def result(sha: str, failure: Failure | None = None, action: Action = Action.LOAD) -> CommitResult:
    slot = SlotResult(worker_id="worker-a", action=action, failure=failure)
    outcome = RolloutOutcome.FAILED if failure else RolloutOutcome.DONE
    answer = RolloutAnswer(
        deployment_id="ten", generation=1, sha=sha, outcome=outcome, version="1.0.0", results=(slot,)
    )
    commit_outcome = CommitOutcome.PARTLY_APPLIED if failure else CommitOutcome.APPLIED
    return CommitResult(sha=sha, outcome=commit_outcome, summary="told", answers=(answer,))


class Entities:
    """One device that knows what it knows."""

    def __init__(self) -> None:
        self.plan: Plan | None = None

    async def fleet(self) -> FleetView:
        devices = {"worker-a": {"worker_id": "worker-a"}}
        return FleetView.model_validate(
            {
                "registry": "registry",
                "applied_sha": None,
                "generation": 1,
                "devices": devices,
                "slots": (),
                "plan": self.plan,
            }
        )

    async def device(self, _: str) -> DeviceView:
        return view()


class Setting:
    """A registry with one deployment, and the broker's view of it."""

    def __init__(self, root: Path) -> None:
        self.registry = Registry(root)
        (root / "artifacts").mkdir()
        self.model = ModelRepository(root, root / "artifacts", "http://127.0.0.1:1")
        self.model.release("1.0.0")
        self.registry.worker("worker-a")
        self.registry.deployment("ten", self.model, "1.0.0")
        self.sha = self.registry.push("Deploy")
        settings = BrokerSettings(
            registry=self.registry.url,
            state_dir=root / "broker",
            repository_schemes=("file",),
            record_interval=timedelta(milliseconds=1),
        )
        cache = Git(root / "cache", settings)
        self.metrics = BrokerMetrics()
        self.service = RegistryService(cache, self.registry.url, "main", metrics=self.metrics)
        self.entities = Entities()
        self.recorder = RegistryRecorder(cache, self.entities, self.service, settings, now=lambda: NOW)

    def written(self) -> list[str]:
        names = git(self.registry.bare, "ls-tree", "-r", "--name-only", "main", "transactions", "errors")
        return [name for name in names.splitlines() if not name.endswith(".gitkeep")]


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


async def test_a_commit_becomes_a_snapshot(setting: Setting) -> None:
    """The head is found and validated, and its spec is what the plan asks for."""
    assert await setting.service.look() == setting.sha
    assert (await setting.service.validate(setting.sha)).accepted
    spec = (await setting.service.snapshot(setting.sha)).specs["ten"]
    request = SpecRequest(registry="registry", sha=setting.sha, deployment_id="ten", digest=spec.digest)
    assert await setting.service.spec(request) == spec


async def test_validations_are_counted(setting: Setting) -> None:
    """PRD §9.1: how many commits passed, and how long it took; reading an accepted commit again is none."""
    await setting.service.look()
    await setting.service.validate(setting.sha)
    await setting.service.snapshot(setting.sha)
    count = setting.metrics.registry.get_sample_value
    assert count("broker_registry_validations_total", {"outcome": "accepted"}) == 1
    assert count("broker_registry_validation_duration_seconds_count") == 1


async def test_a_spec_that_reads_otherwise_is_refused(setting: Setting) -> None:
    """TAG_MOVED: what a device would run is not what was planned."""
    request = SpecRequest(registry="registry", sha=setting.sha, deployment_id="ten", digest="another")
    with pytest.raises(LongshoreError) as refused:
        await setting.service.spec(request)
    assert refused.value.code == "TAG_MOVED"


async def test_our_own_commits_start_nothing(setting: Setting) -> None:
    """After the state is written, the newest commit is still the operator's."""
    await setting.recorder.record(RecordRequest(registry="registry", result=result(setting.sha)))
    assert "transactions/actual-state.yaml" in setting.written()
    assert await setting.service.look() == setting.sha


async def test_recording_again_writes_nothing_new(setting: Setting) -> None:
    """The activity may be repeated: one state, one file of history, the tags, one error."""
    failed = result(setting.sha, Failure(code="RUNNER_OOM", message="killed"))
    for _ in range(2):
        await setting.recorder.record(RecordRequest(registry="registry", result=failed))
    kinds = sorted(name.split("/")[0] for name in setting.written())
    assert kinds == ["errors", "transactions", "transactions", "transactions"]


async def test_a_rejection_leaves_the_state_alone(setting: Setting) -> None:
    """Only an error file: nothing that runs has changed."""
    rejected = CommitResult(sha=setting.sha, outcome=CommitOutcome.REJECTED, summary="rejected")
    await setting.recorder.record(RecordRequest(registry="registry", result=rejected))
    assert [name.split("/")[0] for name in setting.written()] == ["errors"]


def eviction(sha: str) -> Plan:
    unload = PlannedCommand(
        action=Action.UNLOAD, worker_id="worker-a", reason="evicted", unload_reason=UnloadReason.EVICTED
    )
    victim = DeploymentPlan(
        deployment_id="ten", generation=1, version="1.0.0", digest="d", replicas=1, changes=(), commands=(unload,)
    )
    return Plan(sha=sha, generation=1, deployments=(victim,))


async def test_a_commit_tells_what_it_has_evicted(setting: Setting) -> None:
    """As the ledger's plan has it; of a plan that another commit has replaced only what was answered."""
    setting.entities.plan = eviction(setting.sha)
    await setting.recorder.record(RecordRequest(registry="registry", result=result(setting.sha)))
    assert [name for name in setting.written() if name.endswith("-eviction.yaml")]


async def test_a_reconciliation_is_written_once(setting: Setting) -> None:
    """What had failed, who did what about it, and the state; a repeated activity adds nothing, and nothing starts."""
    lost = DeploymentPlan(
        deployment_id="ten", generation=8, version="1.0.0", digest="d", replicas=1, changes=(), commands=(), lost=("w",)
    )
    cause = Cause(kind=CauseKind.WORKER_FAILED, words="w has failed", workers=("w",))
    told = result(setting.sha, Failure(code="RUNNER_OOM", message="killed"))
    request = ReconciliationRecord(
        registry="ops",
        plan=Plan(sha=setting.sha, generation=8, deployments=(lost,), cause=cause),
        result=ReconciliationResult(
            sha=setting.sha, outcome=told.outcome, summary="told", cause=cause, generation=8, answers=told.answers
        ),
    )
    for _ in range(2):
        await setting.recorder.record_reconciliation(request)
    errors = [name for name in setting.written() if name.startswith("errors/")]
    assert sorted(name.rsplit("-", 2)[1] for name in errors) == ["load", "worker"]
    texts = [git(setting.registry.bare, "show", f"main:{name}") for name in errors]
    assert all("reconcile:ops:8" in text for text in texts)
    assert git(setting.registry.bare, "rev-list", "--count", f"{setting.sha}..main").strip() == "1"
    assert await setting.service.look() == setting.sha


@pytest.mark.parametrize(
    ("action", "device", "known"),
    [
        (Action.LOAD, view(), True),
        (Action.LOAD, view(ModelState.LOADING), False),
        (Action.LOAD, view(generation=0), False),
        (Action.LOAD, view(ModelState.LOADING, generation=2), True),
        (Action.LOAD, None, False),
        (Action.RELOAD, view(ModelState.RELOADING), False),
        (Action.UNLOAD, view(ModelState.IDLE), True),
        (Action.UNLOAD, view(ModelState.UNLOADING), False),
        (Action.UNLOAD, None, True),
    ],
)
def test_the_report_is_awaited(action: Action, device: DeviceView | None, known: bool) -> None:  # noqa: FBT001 (a table)
    """A state that is written before the device has reported would show the model as loading for ever."""
    devices = {} if device is None else {"worker-a": device}
    assert has_been_reported(result("a" * 40, action=action).answers, devices) is known


@pytest.mark.parametrize(
    ("device", "known"),
    [
        (view(ModelState.RELOADING), False),
        (view(), True),
        (view(generation=0), True),
        (view(ModelState.FAILED), True),
        (None, True),
    ],
)
def test_the_report_of_a_failure_is_awaited(device: DeviceView | None, known: bool) -> None:  # noqa: FBT001 (a table)
    """After a RELOAD that failed git says that the old version serves, not that the new one is on its way."""
    devices = {} if device is None else {"worker-a": device}
    failed = result("a" * 40, Failure(code="CHECKSUM_MISMATCH", message="bad"), Action.RELOAD)
    assert has_been_reported(failed.answers, devices) is known
