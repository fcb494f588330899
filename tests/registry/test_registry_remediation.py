"""The error files of what a plan has to cope with: devices and models that failed, evictions (PRD §4.5, §5.5)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from longshore.registry.documents.yaml import parse
from longshore.registry.records.errors import MAX_BYTES, ErrorFile
from longshore.registry.records.remediation import Remediation, Surroundings, remediation_errors
from longshore.registry.repositories.repository import CommitInfo
from longshore.schemas.commands import Action, UnloadReason
from longshore.schemas.devices import DeviceCapacity, DeviceReport, DeviceStatus, DeviceView, Health, ModelReport
from longshore.schemas.failures import FAILURES, Failure
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import (
    Awaited,
    Cause,
    CauseKind,
    Change,
    ChangeType,
    Deferred,
    DeploymentPlan,
    Plan,
    PlannedCommand,
    PoolSuspicion,
)
from longshore.schemas.rollouts import RolloutAnswer, RolloutOutcome, SlotResult

NOW = datetime(2025, 10, 28, 10, 45, tzinfo=UTC)
COMMIT = CommitInfo("c" * 40, "Olga Ops <olga@acme.com>", "Deploy fraud", NOW)
WORKER_FAILED = Cause(
    kind=CauseKind.WORKER_FAILED, words="worker-a has failed: silent for 120 s", workers=("worker-a",)
)
MODEL_FAILED = Cause(kind=CauseKind.MODEL_FAILED, words="fraud has failed on worker-b", deployments=("fraud",))


def device(worker_id: str, health: Health = Health.HEALTHY, error: Failure | None = None) -> DeviceView:
    capacity = DeviceCapacity(
        max_models=1, max_memory=1, used_memory=0, max_cpu=1, used_cpu=0, max_gpu=0, used_gpu=0, loaded_models=0
    )
    models = [ModelReport(deployment_id="fraud", state=ModelState.FAILED, generation=42, error=error)] if error else []
    report = DeviceReport(
        worker_id=worker_id,
        boot_id="b",
        sequence=1,
        status=DeviceStatus.HEALTHY,
        timestamp=NOW,
        capacity=capacity,
        models=tuple(models),
    )
    return DeviceView(worker_id=worker_id, health=health, last_evidence=NOW - timedelta(minutes=2), report=report)


DEVICES = {"worker-a": device("worker-a", Health.FAILED), "worker-b": device("worker-b")}


def load(worker_id: str, *after: str) -> PlannedCommand:
    awaited = tuple(Awaited(deployment_id=name, worker_id=worker_id, generation=42) for name in after)
    return PlannedCommand(action=Action.LOAD, worker_id=worker_id, reason="least loaded", after=awaited)


def unload(worker_id: str) -> PlannedCommand:
    return PlannedCommand(
        action=Action.UNLOAD, worker_id=worker_id, reason="evicted for fraud", unload_reason=UnloadReason.EVICTED
    )


def deployment(name: str, *commands: PlannedCommand, change: Change | None = None, **fields: Any) -> DeploymentPlan:
    defaults = {"generation": 42, "version": "1.0.0", "digest": "d", "priority": 80, "replicas": 2}
    changes = (change,) if change else ()
    return DeploymentPlan(deployment_id=name, changes=changes, commands=commands, **(defaults | fields))


def changed(kind: ChangeType, reason: str = "fraud: why") -> Change:
    return Change(type=kind, deployment_id="fraud", reason=reason)


def answer(name: str, *results: SlotResult, outcome: RolloutOutcome = RolloutOutcome.DONE) -> RolloutAnswer:
    return RolloutAnswer(
        deployment_id=name, generation=42, sha=COMMIT.sha, outcome=outcome, version="1.0.0", results=results
    )


def remediation(
    *deployments: DeploymentPlan,
    cause: Cause | None = None,
    answers: tuple[RolloutAnswer, ...] = (),
    suspects: tuple[PoolSuspicion, ...] = (),
    workflow_id: str = "reconcile:ops:42",
    applied: Remediation | None = None,
) -> Remediation:
    return Remediation(
        plan=Plan(sha=COMMIT.sha, generation=42, deployments=deployments, cause=cause, suspects=suspects),
        cause=cause,
        answers=answers,
        commit=COMMIT,
        workflow_id=workflow_id,
        rollout_id=lambda name: f"rollout:{name}",
        applied=applied,
    )


def written(
    *deployments: DeploymentPlan,
    devices: Mapping[str, DeviceView] = DEVICES,
    now: datetime = NOW,
    **done: Any,
) -> tuple[ErrorFile, ...]:
    around = Surroundings(None, devices, ("Notifying the ops team",), now)
    return remediation_errors(remediation(*deployments, **done), around)


def content(file: ErrorFile) -> dict[str, Any]:
    assert len(file.content) <= MAX_BYTES
    document = parse(file.content, {})
    assert document.faults == []
    return document.value


LOST = deployment(
    "fraud",
    load("worker-b"),
    load("worker-c"),
    change=changed(ChangeType.UNRESPONSIVE_WORKER),
    lost=("worker-a",),
    unplaced=1,
)
OUT_OF_MEMORY = Failure(code="RUNNER_OOM", message="killed", details="Traceback …")


def test_a_failed_device_leaves_one_file_with_all_that_was_done_for_its_models():
    """PRD §5.5 step 5: the failure, the affected models, the redeployment, and which workflow did what."""
    results = (
        SlotResult(worker_id="worker-b", action=Action.LOAD),
        SlotResult(worker_id="worker-c", action=Action.LOAD, failure=OUT_OF_MEMORY),
    )
    put_off = Deferred(action=Action.UNLOAD, worker_id="worker-a", reason="disabled", waits_for="it is heard again")
    gone = deployment("old", version=None, replicas=0, lost=("worker-a",), deferred=(put_off,))
    answers = (answer("fraud", *results, outcome=RolloutOutcome.FAILED),)
    (file,) = written(LOST, gone, cause=WORKER_FAILED, answers=answers)
    assert file.path.startswith("errors/2025-10-28T10-45-00-")
    assert file.path.endswith("-worker-failure.yaml")
    assert file.content.decode() == GOLDEN_WORKER_FAILURE


def test_two_failed_devices_have_a_file_each_and_the_same_told_again_none():
    """Also when it is told with more answers, later."""
    both = LOST.model_copy(update={"lost": ("worker-a", "worker-b")})
    devices = {name: device(name, Health.FAILED) for name in ("worker-a", "worker-b")}
    first, second = written(both, cause=WORKER_FAILED, devices=devices)
    assert [content(file)["worker"]["id"] for file in (first, second)] == ["worker-a", "worker-b"]
    later = written(both, cause=WORKER_FAILED, answers=(answer("fraud"),), now=NOW + timedelta(minutes=3))
    assert later[0].is_among([first.path])
    assert not later[0].is_among([second.path])


def test_a_commit_that_finds_a_failed_device_tells_of_it():
    """Its plan replaces what is lost as well, and there is no reconciliation that could tell."""
    (file,) = written(LOST)
    assert "cause" not in content(file)
    assert content(file)["worker"] == {"id": "worker-a", "status": "failed"}


def test_what_is_not_known_yet_is_said_to_be_under_way():
    """Whoever reads the file knows where to look for the end."""
    (file,) = written(LOST, cause=WORKER_FAILED)
    assert "LOAD fraud 1.0.0 on worker-b: under way (rollout:fraud)" in content(file)["actions_taken"]


def test_a_model_that_is_tried_again_is_told_with_what_its_device_reports():
    """PRD §5.2 phase 6: which device, which error, what is done."""
    failed = deployment("fraud", load("worker-b"), change=changed(ChangeType.FAILED_MODEL, "1 of 2 replicas failed"))
    (file,) = written(failed, cause=MODEL_FAILED, devices={"worker-b": device("worker-b", error=OUT_OF_MEMORY)})
    told = content(file)
    assert file.kind == "model-failed"
    assert told["severity"] == "high"
    assert told["error"] == {
        "code": "RUNNER_OOM",
        "message": "1 of 2 replicas failed",
        "stack_trace": "Traceback …",
    }
    assert told["workers"] == [{"id": "worker-b", "status": "healthy", "error": "RUNNER_OOM: killed"}]
    assert told["recommended_actions"] == [f"RUNNER_OOM: {FAILURES['RUNNER_OOM'].remedy}"]


def test_a_model_that_is_given_up_is_critical_and_its_device_has_not_failed():
    """PRD §5.2: a critical error without further tries. `lost` there is the slot, not the device."""
    failed = deployment("fraud", change=changed(ChangeType.FAILED_MODEL), lost=("worker-b",), unplaced=1, given_up=1)
    (file,) = written(failed, cause=MODEL_FAILED)
    assert (file.kind, content(file)["severity"]) == ("model-failed", "critical")
    assert content(file)["recommended_actions"] == [
        "fraud: Mend what has failed, then push: each push tries 1.0.0 again."
    ]
    assert content(file)["actions_taken"][0] == "Gave it up there (reconcile:ops:42)"
    assert (failed.gives_up, LOST.gives_up) == (True, False)
    put_off = Deferred(action=Action.LOAD, worker_id="worker-b", reason="failed", waits_for="it is 10:46:00 UTC")
    assert not failed.model_copy(update={"deferred": (put_off,)}).gives_up


def test_what_was_given_up_long_ago_is_told_once():
    """Each later plan says it again, whatever it is made for: a device that is back, or one more that has failed."""
    failed = deployment("fraud", change=changed(ChangeType.FAILED_MODEL), unplaced=1)
    (file,) = written(failed, cause=MODEL_FAILED)
    assert file.kind == "model-failed"
    returned = Cause(kind=CauseKind.WORKER_RETURNED, words="worker-b is heard again", workers=("worker-b",))
    assert written(failed, cause=returned) == ()
    with_its_device = failed.model_copy(update={"lost": ("worker-a",)})
    assert [file.kind for file in written(with_its_device, cause=WORKER_FAILED)] == ["worker-failure"]
    newly = failed.model_copy(update={"lost": ("worker-b",)})
    assert [file.kind for file in written(newly, cause=returned)] == ["model-failed"]


def test_a_failed_device_that_leaves_nothing_to_be_replaced_has_its_file():
    """PRD §5.5 step 5: it held nothing; a device that is back has none."""
    (file,) = written(cause=WORKER_FAILED)
    told = content(file)
    assert (file.kind, told["worker"]["id"], told["affected_models"]) == ("worker-failure", "worker-a", [])
    assert told["actions_taken"][0] == "Replaced nothing of what it held: nothing is missing (reconcile:ops:42)"
    assert written(cause=WORKER_FAILED, devices={"worker-a": device("worker-a")}) == ()


def test_a_device_that_a_commit_counted_out_has_one_file():
    """The commit's own and that of the alarm which follows are the same one, whoever writes first: with its models."""
    (by_commit,) = written(LOST)
    commit = remediation(LOST, workflow_id="commit:ops:c")
    (alarm,) = written(cause=WORKER_FAILED, workflow_id="alarm:ops:1", applied=commit)
    assert alarm.is_among([by_commit.path])
    told = content(alarm)
    assert (told["workflow"], told["affected_models"][0]["deployment_id"]) == ("alarm:ops:1", "fraud")
    assert told["actions_taken"][:2] == [
        "Counted out what worker-a holds: nothing is commanded to it (commit:ops:c)",
        "LOAD fraud 1.0.0 on worker-b: under way (rollout:fraud)",
    ]


def test_a_push_is_a_retry_and_tells_no_old_failure_again():
    """What had failed before has its file; if it fails again, that has one, too."""
    assert written(deployment("fraud", load("worker-b"), change=changed(ChangeType.FAILED_MODEL))) == ()


def test_a_suspect_pool_says_that_nothing_was_done():
    """FAULTS 85: the shares, the remedy, and that what runs was left alone."""
    suspicion = PoolSuspicion(pool="production", unhealthy=3, alive_before=5)
    (file,) = written(cause=WORKER_FAILED, suspects=(suspicion,))
    told = content(file)
    assert (file.kind, told["severity"], told["error"]["code"]) == ("fleet-suspect", "critical", "FLEET_SUSPECT")
    assert told["error"]["message"].startswith("3 of 5 devices of the pool production")
    assert told["actions_taken"][0].startswith("Left the pool alone")
    assert told["recommended_actions"] == [FAILURES["FLEET_SUSPECT"].remedy]


def test_an_eviction_says_for_whom():
    """By a commit as well as unasked: who went, from where, and for whom with which priority."""
    newcomer = deployment("fraud", load("worker-b", "churn"), priority=90)
    victim = deployment("churn", unload("worker-b"), priority=20, unplaced=1)
    results = (SlotResult(worker_id="worker-b", action=Action.UNLOAD, unload_reason=UnloadReason.EVICTED),)
    (file,) = written(newcomer, victim, answers=(answer("churn", *results, outcome=RolloutOutcome.INCOMPLETE),))
    told = content(file)
    assert (file.kind, told["severity"], told["deployment"]) == ("eviction", "medium", {"id": "churn"})
    assert told["error"]["message"] == (
        "evicted from worker-b for fraud (priority 90); 1 of 2 replicas without a place"
    )
    assert told["actions_taken"][0] == "UNLOAD churn on worker-b: done (rollout:churn)"


def test_an_eviction_is_told_also_where_a_newer_plan_has_replaced_its_own():
    """The answer knows what was done, only not for whom."""
    results = (SlotResult(worker_id="worker-b", action=Action.UNLOAD, unload_reason=UnloadReason.EVICTED),)
    (file,) = written(answers=(answer("churn", *results),))
    assert content(file)["error"]["message"] == "evicted from worker-b"
    assert file.is_among([written(deployment("churn", unload("worker-b")))[0].path])


def test_what_needs_no_telling_leaves_no_file():
    """A drift that is mended, a drain, a scaling."""
    assert written(deployment("fraud", load("worker-b"), change=changed(ChangeType.SCALE_UP))) == ()


def test_a_device_with_a_thousand_models_makes_a_small_file():
    """FAULTS 53: the first ones, and how many there are more."""
    lost = [LOST.model_copy(update={"deployment_id": f"model-{number:04}" * 6}) for number in range(1000)]
    (file,) = written(*lost, cause=WORKER_FAILED)
    told = content(file)
    assert len(told["affected_models"]) == 100
    assert told["actions_taken"][-2] == "… and 1901 more: the workflow has them"


GOLDEN_WORKER_FAILURE = """\
timestamp: '2025-10-28T10:45:00Z'
error_type: worker_failure
severity: high
commit:
  id: cccccccccccccccccccccccccccccccccccccccc
  author: Olga Ops <olga@acme.com>
  subject: Deploy fraud
workflow: reconcile:ops:42
cause: 'worker-a has failed: silent for 120 s'
worker:
  id: worker-a
  status: failed
error:
  code: DEVICE_UNREACHABLE
  message: 'worker-a: nothing is heard of it since 2025-10-28T10:43:00Z'
affected_models:
  - deployment_id: fraud
    model_version: 1.0.0
    replicas: 2
    without_a_place: 1
  - deployment_id: old
    replicas: 0
    without_a_place: 0
actions_taken:
  - 'Counted out what worker-a holds: nothing is commanded to it (reconcile:ops:42)'
  - 'LOAD fraud 1.0.0 on worker-b: done (rollout:fraud)'
  - 'LOAD fraud 1.0.0 on worker-c: failed with RUNNER_OOM (rollout:fraud)'
  - 'Put off: UNLOAD old on worker-a (disabled) until it is heard again'
  - Notifying the ops team
recommended_actions:
  - Start the worker host, or check its way to the Temporal server.
  - 'fraud: Add capacity, lower the demand, or remove another model.'
  - 'RUNNER_OOM: Raise resources.memory on the card, or use a larger device.'
"""
