"""The state and error files of PRD §4.4 and §4.5: their texts, and when they are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from longshore.registry.documents.yaml import dump, parse
from longshore.registry.records.errors import MAX_BYTES, error_files
from longshore.registry.records.state import FleetState, last_applied, render_state, state_files
from longshore.registry.repositories.repository import CommitInfo
from longshore.schemas.commands import Action
from longshore.schemas.commits import CommitOutcome, CommitResult, Telling
from longshore.schemas.devices import (
    DeviceCapacity,
    DeviceReport,
    DeviceStatus,
    DeviceView,
    Health,
    ModelReport,
    RetryState,
)
from longshore.schemas.failures import FAILURES, Failure
from longshore.schemas.issues import Audience, Issue, Severity
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.reconciliations import LastApplied
from longshore.schemas.rollouts import RolloutAnswer, RolloutOutcome, SlotResult
from longshore.schemas.telling import intentions

NOW = datetime(2025, 10, 28, 10, 45, tzinfo=UTC)
GIB = 1024**3
APPLIED = LastApplied(sha="c" * 40, generation=42)
SECRET = "hunter2-and-more"
COMMIT = CommitInfo("c" * 40, "Olga Ops <olga@acme.com>", "Deploy fraud", NOW)


def device(worker_id: str, *models: ModelReport, status: DeviceStatus = DeviceStatus.HEALTHY) -> DeviceView:
    capacity = DeviceCapacity(
        max_models=5,
        max_memory=16 * GIB,
        used_memory=8 * GIB,
        max_cpu=8.0,
        used_cpu=4.0,
        max_gpu=0,
        used_gpu=0,
        loaded_models=len(models),
    )
    report = DeviceReport(
        worker_id=worker_id, boot_id="b", sequence=1, status=status, timestamp=NOW, capacity=capacity, models=models
    )
    return DeviceView(
        worker_id=worker_id, health=Health.HEALTHY, last_evidence=NOW - timedelta(seconds=5), report=report
    )


READY = ModelReport(
    deployment_id="sentiment-prod-useast",
    state=ModelState.READY,
    generation=1,
    version="1.2.3",
    loaded_at=NOW - timedelta(minutes=10),
    last_inference=NOW - timedelta(seconds=10),
    request_count=15234,
)
LOADING = ModelReport(
    deployment_id="recommender-prod-useast",
    state=ModelState.LOADING,
    generation=2,
    incoming_version="3.1.0",
    since=NOW - timedelta(minutes=3),
    progress=0.65,
)
OUT_OF_MEMORY = Failure(
    code="RUNNER_OOM",
    message="Out of memory during model loading",
    step="start_runner",
    details="Traceback …\nMemoryError",
)
FAILED = ModelReport(
    deployment_id="fraud-prod-euwest",
    state=ModelState.FAILED,
    generation=3,
    version="2.0.1",
    since=NOW - timedelta(minutes=5),
    error=OUT_OF_MEMORY,
    retry=RetryState(attempts=3, last_attempt=NOW, next_attempt=None),
)


def test_the_state_file_reads_like_the_prds():
    """PRD §4.4: the header, the workers, and for each model the fields of its state."""
    unheard = DeviceView(worker_id="worker-z", health=Health.UNKNOWN, last_evidence=None, report=None)
    views = [
        unheard,
        device("worker-us-east-1b", READY, LOADING),
        device("worker-eu-west-1a", FAILED, status=DeviceStatus.DEGRADED),
    ]
    assert render_state(FleetState(views, APPLIED), NOW).decode() == GOLDEN_STATE


def test_a_failed_reload_shows_beside_what_still_serves():
    """The old version is ready, and why the new one did not come is said."""
    text = render_state(
        FleetState([device("worker-a", READY.model_copy(update={"error": OUT_OF_MEMORY}))]), NOW
    ).decode()
    assert "status: ready" in text
    assert "last_reload_error: 'RUNNER_OOM: Out of memory during model loading'" in text


@pytest.mark.parametrize("message", ["a: b", "two\nlines: 'x'\n# three", "request_count: 3", "- 1", "ü\t\\", ""])
def test_whatever_a_device_says_the_state_reads_back(message):
    """The entries of the workers are written one by one, and are one document."""
    said = FAILED.model_copy(update={"error": OUT_OF_MEMORY.model_copy(update={"message": message})})
    document = parse(render_state(FleetState([device("worker-a", said), device("worker-b", READY)], APPLIED), NOW), {})
    assert document.faults == []
    assert [worker["worker_id"] for worker in document.value["workers"]] == ["worker-a", "worker-b"]
    assert document.value["workers"][0]["models"][0]["error"] == message
    assert parse(render_state(FleetState([]), NOW), {}).value == {"workers": []}


@pytest.mark.parametrize("model", [FAILED, READY])
def test_a_secret_in_a_devices_report_does_not_reach_the_state(model):
    """What is pushed is there for everyone who may read the registry, and for good."""
    leaky = OUT_OF_MEMORY.model_copy(update={"message": f"GET https://olga:{SECRET}@store/x: password={SECRET}"})
    text = render_state(FleetState([device("worker-a", model.model_copy(update={"error": leaky}))]), NOW)
    assert b"store/x" in text
    assert b"hunter2" not in text


def test_only_a_material_change_is_written():
    """Beats, requests and progress are no news; a state, a version, a worker is."""
    before = render_state(FleetState([device("worker-a", READY, LOADING)]), NOW)
    later = NOW + timedelta(seconds=30)
    busier = READY.model_copy(update={"request_count": 99999, "last_inference": later})
    further = LOADING.model_copy(update={"progress": 0.9})
    beaten = device("worker-a", busier, further).model_copy(update={"last_evidence": later})
    assert state_files(FleetState([beaten]), later, before, ["transactions/actual-state.yaml"]) == {}
    for news in (
        [device("worker-a", READY, LOADING.model_copy(update={"state": ModelState.READY}))],
        [device("worker-a", READY.model_copy(update={"version": "1.2.4"}), LOADING)],
        [beaten, device("worker-b")],
        [beaten.model_copy(update={"health": Health.SUSPECT})],
    ):
        files = state_files(FleetState(news), later, before, ["transactions/actual-state.yaml"])
        assert list(files) == ["transactions/actual-state.yaml", "transactions/history/2025-10-28T10-45-30-state.yaml"]
        assert len(set(files.values())) == 1


def test_a_fleet_without_devices_is_no_news_until_there_were_some():
    """A registry begins without a state that says nothing."""
    assert state_files(FleetState([]), NOW, None, []) == {}
    assert state_files(FleetState([]), NOW, render_state(FleetState([device("worker-a")]), NOW), [])


def test_what_an_operator_did_to_the_file_is_undone():
    """A state file that is no longer YAML is written anew."""
    assert state_files(FleetState([device("worker-a")]), NOW, b"\x00[", [])


def test_two_snapshots_of_one_second_have_two_names():
    """The second does not overwrite the first."""
    taken = [
        "transactions/history/2025-10-28T10-45-00-state.yaml",
        "transactions/history/2025-10-28T10-45-00-2-state.yaml",
    ]
    files = state_files(FleetState([device("worker-a")]), NOW, None, taken)
    assert "transactions/history/2025-10-28T10-45-00-3-state.yaml" in files


@pytest.mark.parametrize("sha", ["c" * 40, "1" * 40, "1e" + "2" * 38, "0" * 64])
def test_the_applied_commit_and_its_generation_read_back(sha):
    """A lost ledger is made anew from them, whatever digits an id has."""
    applied = LastApplied(sha=sha, generation=42)
    assert last_applied(render_state(FleetState([device("worker-a")], applied), NOW)) == applied


@pytest.mark.parametrize(
    "text",
    [
        *("", "\x00[", "[]", "commit: main", "commit: [a]", f"commit: {'C' * 40}", "commit:", "generation: 7"),
        f"commit: {'c' * 40}\ncommit: {'d' * 40}",
    ],
)
def test_a_state_that_names_no_commit_says_so(text):
    """A file of an older release, or one that somebody has mended by hand."""
    assert last_applied(text.encode()) == LastApplied(sha=None)


@pytest.mark.parametrize("generation", ["", "-3", "true", "seven", "1.5"])
def test_a_generation_that_is_none_counts_as_zero(generation):
    """The commit is still good to begin with."""
    text = f"commit: {'c' * 40}\ngeneration: {generation}\n"
    assert last_applied(text.encode()) == LastApplied(sha="c" * 40)


def test_a_commit_that_moves_nothing_is_written_and_a_generation_is_not():
    """The ledger could be rebuilt from the file at any time: it never names a commit before the applied one."""
    fleet = FleetState([device("worker-a")], APPLIED)
    before = render_state(fleet, NOW)
    later = APPLIED.model_copy(update={"generation": 43})
    assert state_files(FleetState(fleet.devices, later), NOW, before, []) == {}
    assert state_files(FleetState(fleet.devices, LastApplied(sha="d" * 40, generation=42)), NOW, before, [])


def test_a_ledger_that_has_lost_its_commit_does_not_take_it_out_of_the_file():
    """It is asked for its devices before it has read there what was applied."""
    before = render_state(FleetState([device("worker-a")], APPLIED), NOW)
    files = state_files(FleetState([device("worker-b")]), NOW, before, [])
    assert last_applied(files["transactions/actual-state.yaml"]) == APPLIED
    assert state_files(FleetState([device("worker-a")]), NOW, before, []) == {}


def rejected() -> CommitResult:
    issues = (
        Issue(
            code="REF_UNPINNED", file="models/staging/a.yaml", line=5, place="model_card_ref.ref", message="'main' is …"
        ),
        Issue(
            code="CHECKSUM_MISSING", severity=Severity.WARNING, file="x@v1.0.0:model-card.yaml", message="no checksum"
        ),
    )
    return CommitResult(sha=COMMIT.sha, outcome=CommitOutcome.REJECTED, summary="1 error, 1 warning", issues=issues)


def test_a_rejection_names_the_commit_and_every_issue():
    """PRD §5.1: ops see who pushed what, what is wrong with it, and what to do."""
    (file,) = error_files(rejected(), COMMIT, None, {}, NOW)
    assert file.path == "errors/2025-10-28T10-45-00-cccccccc-validation-error.yaml"
    assert file.content.decode() == GOLDEN_REJECTION


@pytest.mark.parametrize(
    ("outcome", "verb"),
    [
        (CommitOutcome.HISTORY_REWRITTEN, "accept-history"),
        (CommitOutcome.MASS_UNLOAD_BLOCKED, "accept-unload"),
    ],
)
def test_a_commit_that_is_held_back_says_what_to_type(outcome, verb):
    """PRD §4.5's fields, and the exact command; the same commit told again is recognised."""
    code = outcome.upper()
    issue = Issue(code=code, file="", message="this commit does not fit")
    result = CommitResult(sha=COMMIT.sha, outcome=outcome, summary="this commit does not fit", issues=(issue,))
    (file,) = error_files(result, COMMIT, None, {}, NOW)
    assert file.path == f"errors/2025-10-28T10-45-00-cccccccc-{outcome.replace('_', '-')}.yaml"
    document = YAML(typ="safe").load(file.content)
    assert document["error_type"] == outcome
    assert document["severity"] == "high"
    assert document["error"] == {"code": code, "message": "this commit does not fit"}
    assert document["actions_taken"] == ["Held the commit back: nothing that runs was changed"]
    assert document["recommended_actions"][-1].endswith(f": longshore {verb} {COMMIT.sha}")
    (later,) = error_files(result, COMMIT, None, {}, NOW + timedelta(hours=1))
    assert later.is_among([file.path])


def failed_result(*workers: str, outcome: RolloutOutcome = RolloutOutcome.FAILED) -> CommitResult:
    results = tuple(SlotResult(worker_id=worker, action=Action.LOAD, failure=OUT_OF_MEMORY) for worker in workers)
    answer = RolloutAnswer(
        deployment_id="fraud-prod-euwest",
        generation=3,
        sha=COMMIT.sha,
        outcome=outcome,
        version="2.0.1",
        results=results,
        message="1 of 2 replicas has no place",
    )
    return CommitResult(sha=COMMIT.sha, outcome=CommitOutcome.PARTLY_APPLIED, summary="", answers=(answer,))


def test_a_load_failure_reads_like_the_prds():
    """PRD §4.5: the deployment, the worker, the error, what was done and what to do."""
    view = device("worker-eu-west-1a", FAILED, status=DeviceStatus.DEGRADED)
    (file,) = error_files(failed_result("worker-eu-west-1a"), COMMIT, None, {"worker-eu-west-1a": view}, NOW)
    assert file.path.startswith("errors/2025-10-28T10-45-00-")
    assert file.path.endswith("-load-failure.yaml")
    assert file.content.decode() == GOLDEN_LOAD_FAILURE


def test_failures_of_one_second_have_names_of_their_own_that_time_does_not_change():
    """Two workers that fail together leave two files; the same failures, told again later, are recognised."""
    first, second = error_files(failed_result("worker-a", "worker-b"), COMMIT, None, {}, NOW)
    assert first.path != second.path
    again, _ = error_files(failed_result("worker-a", "worker-b"), COMMIT, None, {}, NOW + timedelta(hours=1))
    assert again.path != first.path
    assert again.is_among([first.path])
    assert not again.is_among([second.path])


def test_what_is_nobodys_fault_leaves_no_file():
    """A superseded command is in order; a replica without a place is told."""
    superseded = SlotResult(
        worker_id="worker-a", action=Action.LOAD, failure=Failure(code="SUPERSEDED", message="newer")
    )
    result = failed_result(outcome=RolloutOutcome.INCOMPLETE)
    answer = result.answers[0].model_copy(update={"results": (superseded,)})
    (file,) = error_files(result.model_copy(update={"answers": (answer,)}), COMMIT, None, {}, NOW)
    assert file.kind == "placement-failure"
    assert b"1 of 2 replicas has no place" in file.content


def test_what_was_given_up_lacks_no_place():
    """Its failure has a file; one that advises more room would mislead."""
    result = failed_result(outcome=RolloutOutcome.INCOMPLETE)
    answer = result.answers[0].model_copy(update={"results": (), "given_up": True})
    assert error_files(result.model_copy(update={"answers": (answer,)}), COMMIT, None, {}, NOW) == ()


@pytest.mark.parametrize(
    ("held", "code"),
    [
        ("", "CAPACITY_INSUFFICIENT"),
        ("paused by olga", "ABORTED"),
        ("quarantined: it failed on worker-a", "QUARANTINED"),
    ],
)
def test_what_lacks_replicas_is_told_what_helps(held, code):
    """More room helps nobody whom an operator holds back."""
    result = failed_result(outcome=RolloutOutcome.INCOMPLETE)
    answer = result.answers[0].model_copy(update={"held": held})
    (file,) = error_files(result.model_copy(update={"answers": (answer,)}), COMMIT, None, {}, NOW)
    document = YAML(typ="safe").load(file.content)
    assert document["recommended_actions"] == [FAILURES[code].remedy]
    assert document["actions_taken"] == [f"Left it as it is: {held}" if held else "Placed as many replicas as fit"]


def test_a_huge_traceback_keeps_its_end():
    """The cause stands at the end of a traceback; the file stays small."""
    huge = OUT_OF_MEMORY.model_copy(update={"details": "Traceback\n" + "x\n" * 100_000 + "MemoryError"})
    result = failed_result("worker-a")
    answer = result.answers[0]
    slot = answer.results[0].model_copy(update={"failure": huge})
    result = result.model_copy(update={"answers": (answer.model_copy(update={"results": (slot,)}),)})
    (file,) = error_files(result, COMMIT, None, {}, NOW)
    assert len(file.content) < 64 * 1024
    assert b"MemoryError" in file.content


def slot_failure(**changes: str) -> CommitResult:
    result = failed_result("worker-a")
    answer = result.answers[0]
    failure = OUT_OF_MEMORY.model_copy(update=changes)
    slot = answer.results[0].model_copy(update={"failure": failure})
    return result.model_copy(update={"answers": (answer.model_copy(update={"results": (slot,)}),)})


def test_a_secret_in_a_failure_does_not_reach_git():
    """FAULTS 53: in the message, in the stack, in the commit's subject: what is pushed is there for everyone."""
    stack = f"Traceback\n  open('https://olga:{SECRET}@store/x')\nKeyError: AWS_SECRET_ACCESS_KEY={SECRET}\x1b[0m"
    commit = CommitInfo("c" * 40, "Olga Ops <olga@acme.com>", f"use token={SECRET}", NOW)
    (file,) = error_files(slot_failure(message=f"password={SECRET}", details=stack), commit, None, {}, NOW)
    assert b"hunter2" not in file.content
    read = parse(file.content, {})
    assert read.faults == []
    assert read.value["error"]["stack_trace"].startswith("Traceback\n  open('https://store/x')")


def test_a_stack_of_fifty_megabytes_makes_a_small_file():
    """FAULTS 53: 64 KiB, valid, with PRD §4.5's fields, and saying what was left out."""
    (file,) = error_files(
        slot_failure(details="Traceback\n" + "ü: 'x'\n" * 6_000_000 + "MemoryError"), COMMIT, None, {}, NOW
    )
    assert len(file.content) <= MAX_BYTES
    value = parse(file.content, {}).value
    assert {"timestamp", "error_type", "severity", "deployment", "worker", "error"} <= set(value)
    assert {"actions_taken", "recommended_actions"} <= set(value)
    assert "characters left out" in value["error"]["stack_trace"]
    assert value["error"]["stack_trace"].endswith("MemoryError")


def test_a_rejection_with_a_thousand_findings_names_as_many_as_fit():
    """The first ones stand there, and how many do not."""
    issues = tuple(
        Issue(code="MANIFEST_INVALID", file=f"models/staging/{number}.yaml", message="ü" * 300)
        for number in range(1000)
    )
    (file,) = error_files(rejected().model_copy(update={"issues": issues}), COMMIT, None, {}, NOW)
    assert MAX_BYTES // 4 < len(file.content) <= MAX_BYTES
    value = parse(file.content, {}).value
    assert value["issues"][0]["file"] == "models/staging/0.yaml"
    assert value["left_out"].startswith(f"{1000 - len(value['issues'])} issues")


def test_the_file_says_who_will_be_told_and_claims_no_more():
    """It is written before anybody is told: an intention, and only where a channel is set."""
    telling = Telling(status_host="github", channels={Audience.OPS: 2})
    result = failed_result("worker-a")
    steps = tuple(intentions(result, telling))
    assert steps == (
        "Notifying the ops team once this is written (channels: 2)",
        "Setting the commit's status on github once this is written",
    )
    (file,) = error_files(result, COMMIT, None, {}, NOW, next_steps=steps)
    assert set(steps) <= set(parse(file.content, {}).value["actions_taken"])
    assert list(intentions(result, Telling())) == []


values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(codec="utf-8", exclude_categories=["C"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(value=st.dictionaries(st.sampled_from(["a", "b"]), values), text=st.text("ab \n:#'\"-\t"))
def test_what_is_written_reads_back(value, text):
    """Whatever a message holds, the file is YAML that says the same, multi-line texts included."""
    document = {**value, "text": text}
    read = parse(dump(document, header="one\ntwo"), {})
    assert read.faults == []
    assert read.value == document


GOLDEN_STATE = """\
# This file is managed by the broker - DO NOT EDIT MANUALLY
# Last updated: 2025-10-28T10:45:00Z
commit: cccccccccccccccccccccccccccccccccccccccc
generation: 42
workers:
  - worker_id: worker-eu-west-1a
    status: degraded
    last_heartbeat: '2025-10-28T10:44:55Z'
    capacity:
      used_memory: 8Gi
      used_cpu: 4.0
      loaded_models: 1
    models:
      - deployment_id: fraud-prod-euwest
        status: failed
        model_version: 2.0.1
        error: Out of memory during model loading
        error_code: RUNNER_OOM
        failed_at: '2025-10-28T10:40:00Z'
        retry_count: 2
  - worker_id: worker-us-east-1b
    status: healthy
    last_heartbeat: '2025-10-28T10:44:55Z'
    capacity:
      used_memory: 8Gi
      used_cpu: 4.0
      loaded_models: 2
    models:
      - deployment_id: recommender-prod-useast
        status: loading
        model_version: 3.1.0
        loading_started: '2025-10-28T10:42:00Z'
        progress: 0.65
      - deployment_id: sentiment-prod-useast
        status: ready
        model_version: 1.2.3
        loaded_at: '2025-10-28T10:35:00Z'
        last_inference: '2025-10-28T10:44:50Z'
        request_count: 15234
  - worker_id: worker-z
    status: unknown
"""

GOLDEN_REJECTION = """\
timestamp: '2025-10-28T10:45:00Z'
error_type: validation_error
severity: high
commit:
  id: cccccccccccccccccccccccccccccccccccccccc
  author: Olga Ops <olga@acme.com>
  subject: Deploy fraud
error:
  message: 1 error, 1 warning
issues:
  - severity: error
    code: REF_UNPINNED
    file: models/staging/a.yaml
    line: 5
    place: model_card_ref.ref
    message: "'main' is …"
  - severity: warning
    code: CHECKSUM_MISSING
    file: x@v1.0.0:model-card.yaml
    message: no checksum
actions_taken:
  - 'Rejected the commit: nothing that runs was changed'
recommended_actions:
  - 'REF_UNPINNED: Pin a tag vX.Y.Z or a commit id; branches are not accepted.'
"""

GOLDEN_LOAD_FAILURE = """\
timestamp: '2025-10-28T10:45:00Z'
error_type: model_load_failure
severity: high
commit:
  id: cccccccccccccccccccccccccccccccccccccccc
  author: Olga Ops <olga@acme.com>
  subject: Deploy fraud
deployment:
  id: fraud-prod-euwest
worker:
  id: worker-eu-west-1a
  status: degraded
error:
  code: RUNNER_OOM
  message: Out of memory during model loading
  step: start_runner
  stack_trace: |-
    Traceback …
    MemoryError
actions_taken:
  - Retried load 2 times
  - Marked the model as failed
recommended_actions:
  - Raise resources.memory on the card, or use a larger device.
"""
