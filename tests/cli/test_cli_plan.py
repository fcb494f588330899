"""`longshore plan` and `longshore explain` on a real clone, for a recorded state: words, JSON, exit codes, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from repositories import ModelRepository, Registry, git

from longshore.activities.planner import Planner, upon
from longshore.broker.registry_service import RegistryService
from longshore.cli import exits
from longshore.cli.main import run
from longshore.cli.recorded import RecordedState
from longshore.registry.repositories.git import Git
from longshore.schemas.devices import (
    DeviceCapacity,
    DeviceFacts,
    DeviceRecord,
    DeviceReport,
    DeviceStatus,
    DeviceView,
    Health,
    ModelReport,
)
from longshore.schemas.fleet import FleetInput, FleetSettings, FleetView, PlanLimits, PlanRequest
from longshore.schemas.held import HeldBack
from longshore.schemas.ledger import reserve
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.orders import Cordon
from longshore.schemas.plans import Plan
from longshore.schemas.policies import RepositoryPolicy
from longshore.workflows.ledger.machine import Ledger

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
GI = 1024**3
DEVICES = ("worker-a", "worker-b", "worker-c")

GOLDEN = """\
plan of {sha}, generation 2

ranker (priority 90)
  NEW_DEPLOYMENT: 1.1.0, 1 replica
  LOAD   worker-a  rank 1 of 2 that fit: 100% of memory and 100% of CPU free, 0 models (fetches 13 B, about 40 s)
  not    worker-b  rank 2 of 2 that fit: 75% of memory and 90% of CPU free, 1 model
  not    worker-c  the device is cordoned (olga, disk swap)

device    memory            CPU           models
worker-a  0Gi → 1Gi of 4Gi  0 → 0.4 of 4  0 → 1 of 8
2 devices as before

1 deployment changes, 1 command on 1 device (ledger {stamp}, applied {applied})
"""


@pytest.fixture(autouse=True)
def _local_repositories(monkeypatch):
    """The model repositories of these tests are folders, which the policy forbids unless it is told otherwise."""
    monkeypatch.setenv("LONGSHORE_REPOSITORY_SCHEMES", "file,https,ssh")


class Fleet:
    """A registry with three workers and one deployment that runs on worker-b, and what was recorded of it."""

    def __init__(self, root):
        self.file = root / "state.json"
        self.registry = Registry(root)
        self.model = ModelRepository(root, root / "artifacts", "http://127.0.0.1:1")
        resources = {"resources": {"cpu": 0.4, "memory": "1024Mi"}}
        self.model.release("1.0.0", card=resources)
        self.model.release("1.1.0", card=resources, factor=2)
        for name in DEVICES:
            self.registry.worker(name)
        self.deploy("sentiment", "1.0.0")
        self.applied = self.registry.push("begin")
        self.state = RecordedState(
            view=FleetView(
                registry="registry",
                applied_sha=self.applied,
                generation=0,
                devices={name: DeviceRecord(worker_id=name, health=Health.HEALTHY) for name in DEVICES},
                slots=(),
                plan=None,
                cordons={
                    name: Cordon(worker_id=name, kind="cordon", by="olga", reason="disk swap")
                    for name in ("worker-a", "worker-c")
                },
            ),
            devices={"worker-c": heard("worker-c")},
            at=NOON,
        )

    @property
    def clone(self):
        return self.registry.clone

    def deploy(self, name, version, **config):
        self.registry.deployment(name, self.model, version, **config)

    def has(self, **facts):
        self.state = self.state.model_copy(update={"view": self.state.view.model_copy(update=facts)})

    def run(self, *args):
        self.file.write_text(self.state.model_dump_json())
        return run([*args, "--state", str(self.file)])

    def plan(self, *args):
        return self.run("plan", str(self.clone), *args)


def heard(worker_id):
    """Return what is known of a device which has loaded the model `ranker` before."""
    capacity = DeviceCapacity(
        max_models=8,
        max_memory=4 * GI,
        used_memory=0,
        max_cpu=4.0,
        used_cpu=0.0,
        max_gpu=0,
        used_gpu=0,
        loaded_models=0,
    )
    model = ModelReport(deployment_id="ranker", state=ModelState.READY, generation=1, load_seconds=40.0)
    facts = {"boot_id": "b", "sequence": 1, "status": DeviceStatus.HEALTHY, "timestamp": NOON}
    report = DeviceReport(worker_id=worker_id, capacity=capacity, models=(model,), **facts)
    return DeviceView(worker_id=worker_id, health=Health.HEALTHY, last_evidence=NOON, report=report)


@pytest.fixture
def fleet(tmp_path, capsys):
    """One in which the deployment runs: planned by the command itself, and carried out."""
    fleet = Fleet(tmp_path)
    assert fleet.plan("--json") == exits.CHANGES
    plan = Plan.model_validate(json.loads(capsys.readouterr().out)["plan"])
    slots = [slot.model_copy(update={"state": ModelState.READY}) for slot in reserve((), plan)]
    assert [slot.worker_id for slot in slots] == ["worker-b"]
    cordons = {name: one for name, one in fleet.state.view.cordons.items() if name == "worker-c"}
    fleet.has(slots=tuple(slots), cordons=cordons, generation=1)
    return fleet


def test_the_applied_commit_of_a_fleet_in_order_changes_nothing(fleet, capsys):
    """The fleet would do nothing by itself; the broker's own commits on top of it are no news."""
    (fleet.clone / "transactions/actual-state.yaml").write_text("workers: []\n")
    fleet.registry.push("state")
    for args in ((), ("--rev", fleet.applied), ("--rev", "HEAD")):
        assert fleet.plan(*args) == exits.OK
        assert capsys.readouterr().out == f"plan of {fleet.applied[:7]}, generation 1: nothing to do\n"


def test_a_plan_says_what_changes_where_why_there_and_why_not_elsewhere(fleet, capsys):
    """With what it costs and what the devices hold afterwards, in the words of the golden text."""
    fleet.deploy("ranker", "1.1.0", priority=90)
    sha = fleet.registry.push("ranker")
    assert fleet.plan("--rev", sha) == exits.CHANGES
    told = capsys.readouterr().out
    stamp = told.rsplit("ledger ", 1)[1].split(",")[0]
    expected = GOLDEN.format(sha=sha[:7], stamp=stamp, applied=fleet.applied[:7])
    assert told == expected


def test_what_lies_there_is_planned_before_it_is_committed(fleet, capsys):
    """Without --rev, as `longshore validate` reads it."""
    fleet.deploy("sentiment", "1.1.0")
    assert fleet.plan() == exits.CHANGES
    told = capsys.readouterr().out
    assert told.startswith("plan of the files as they lie there, generation 2\n")
    assert "RELOAD worker-b  1.0.0 → 1.1.0" in told


async def test_the_printed_plan_is_the_one_that_the_fleet_would_carry_out(fleet, tmp_path):
    """The same commit, planned by the fleet's own code from the ledger itself and from the registry's own git."""
    fleet.deploy("sentiment", "1.1.0", replicas=2)
    fleet.deploy("ranker", "1.0.0", priority=90, replicas=3)
    sha = fleet.registry.push("both")
    settings = FleetSettings(limits=PlanLimits(max_unavailable=2), mass_unload_limit=10)
    failures = {"worker-a": (NOON - timedelta(days=2),), "worker-b": (NOON - timedelta(hours=1),)}
    start = FleetInput(registry="registry", settings=settings)
    known = dict(fleet.state.view) | {"failures": failures}
    ledger = Ledger(start.model_copy(update=known))
    request = PlanRequest(request_id="", registry="registry", sha=sha, workers=DEVICES)
    asked = ledger.ask(request, NOON)
    git_cache = Git(tmp_path / "cache", RepositoryPolicy(repository_schemes=("file",)))
    executed = await Planner(RegistryService(git_cache, fleet.registry.url, "main"), Nobody()).plan(asked)
    fleet.has(**dict(ledger.view()))
    assert upon(fleet.state.view, request, NOON) == asked
    assert asked.failures.keys() == {"worker-b"}  # what failed longer ago counts in neither
    done = beside(fleet, "--rev", sha, "--json")
    document = json.loads(done.stdout)
    assert document["plan"] == executed.model_dump(mode="json")
    commanded = {(d.deployment_id, c.worker_id, c.action) for d in executed.deployments for c in d.commands}
    by_device = {(c["deployment_id"], device, c["action"]) for device, cs in document["devices"].items() for c in cs}
    assert by_device == commanded
    assert (done.returncode, document["stamp"]) == (exits.CHANGES, executed.stamp)


class Nobody:
    """Plans of these fleets wonder about no device."""

    async def reports(self, workers) -> dict[str, DeviceReport]:
        raise AssertionError(workers)

    async def facts(self, workers) -> dict[str, DeviceFacts]:
        raise AssertionError(workers)


def beside(fleet, *args):
    """Run the command in a process of its own: this test's event loop runs already."""
    fleet.file.write_text(fleet.state.model_dump_json())
    command = [sys.executable, "-m", "longshore", "plan", str(fleet.clone), "--state", str(fleet.file), *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_what_would_be_held_back_is_told_with_the_plan(fleet, capsys):
    """The guard of the fleet: a manifest that was deleted looks like a slip."""
    (fleet.clone / "models/production/sentiment.yaml").unlink()
    sha = fleet.registry.push("oops")
    assert fleet.plan("--rev", sha) == exits.CHANGES
    told = capsys.readouterr().out
    assert "UNLOAD worker-b  the manifest is no longer in git" in told
    assert "! MASS_UNLOAD_BLOCKED: would unload 1 of 1 replica (100 %, the limit is 50 %): sentiment (1)" in told
    assert f"longshore accept-unload {sha}" in told
    assert fleet.plan("--rev", sha, "--json") == exits.CHANGES
    assert json.loads(capsys.readouterr().out)["refused_by_guard"].startswith("would unload 1 of 1")


def test_what_an_operator_has_accepted_is_not_held_back(fleet, capsys):
    """As the fleet remembers it."""
    (fleet.clone / "models/production/sentiment.yaml").unlink()
    sha = fleet.registry.push("meant")
    accepted = {"sha": sha, "code": "MASS_UNLOAD_BLOCKED", "by": "olga", "at": NOON}
    held = {**accepted, "reason": "", "run_id": "1", "since": NOON, "accepted": accepted}
    fleet.has(held_back=(HeldBack.model_validate({k: v for k, v in held.items() if k not in {"by", "at"}}),))
    assert fleet.plan("--rev", sha) == exits.CHANGES
    assert "MASS_UNLOAD_BLOCKED" not in capsys.readouterr().out


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_commit_without_a_place_is_a_change_and_says_so(fleet, capsys, replicas):
    """A CI job that looks at the exit code alone does not take it for nothing."""
    fleet.deploy("sentiment", "1.0.0", replicas=replicas + 1)
    assert fleet.plan() == exits.CHANGES
    told = capsys.readouterr().out
    without = f"{replicas - 1} replica without a place" in told
    assert without == (replicas == 2)
    assert ("worker-c: the device is cordoned (olga, disk swap)" in told) == (replicas == 2)


def test_a_commit_that_would_not_be_looked_at_is_refused(fleet, capsys):
    """Older than what is applied, off its line, or of a clone without it; files by what they would follow."""
    first, older = fleet.applied, git(fleet.clone, "rev-parse", "HEAD")
    fleet.deploy("ranker", "1.0.0")
    fleet.has(applied_sha=fleet.registry.push("newer"))
    assert fleet.plan("--rev", first) == exits.FAILED
    assert capsys.readouterr().err.startswith(f"error COMMIT_STALE: {older[:10]} is older than")
    git(fleet.clone, "checkout", "-q", older)
    fleet.deploy("sentiment", "1.1.0")
    assert fleet.plan() == exits.FAILED
    assert "error COMMIT_STALE: what lies there follows" in capsys.readouterr().err
    git(fleet.clone, "checkout", "-q", "main")
    rewritten = fleet.registry.rewrite("other")
    assert fleet.plan("--rev", rewritten) == exits.FAILED
    assert capsys.readouterr().err.startswith(f"error HISTORY_REWRITTEN: {rewritten[:10]} does not descend from")
    fleet.has(applied_sha="d" * 40)
    assert fleet.plan() == exits.FAILED
    assert "does not have dddddddddd, which is applied: fetch it" in capsys.readouterr().err


def test_an_invalid_registry_is_told_as_by_validate(fleet, capsys):
    """Nothing is planned of it; the findings go to stderr, 1 is the exit code."""
    fleet.deploy("sentiment", "9.9.9")
    assert fleet.plan() == exits.FAILED
    told = capsys.readouterr()
    assert (told.out, "REF_NOT_FOUND" in told.err) == ("", True)


@pytest.mark.parametrize(
    "args",
    [
        ["plan"],
        ["plan", "{clone}", "--nonsense"],
        ["plan", "{clone}", "--state", "{missing}"],
        ["plan", "{clone}", "--state", "{clone}/workers/worker-a.yaml"],
        ["plan", "{missing}", "--state", "{state}"],
        ["plan", "{model}", "--state", "{state}"],
        ["plan", "{clone}", "--state", "{state}", "--rev", "nowhere"],
        ["plan", "{clone}", "--state", "{state}", "--save-state", "{missing}/state.json"],
        ["plan", "{clone}", "--state", "{state}", "--registry-name", "a b"],
        ["plan", "{clone}", "--temporal", "127.0.0.1:1"],
    ],
)
def test_no_error_looks_like_changes(fleet, capsys, args):
    """2 says that there are changes, so whatever goes wrong ends with 1, wrong usage among it."""
    fleet.file.write_text(fleet.state.model_dump_json())
    places = {"clone": fleet.clone, "missing": "/nonexistent", "state": fleet.file, "model": fleet.model.directory}
    assert run([arg.format(**places) for arg in args]) == exits.FAILED
    told = capsys.readouterr()
    assert (told.out, told.err != "") == ("", True)


def test_a_recorded_state_gives_the_same_plan_again(fleet, capsys, tmp_path):
    """What --save-state writes, --state reads."""
    fleet.deploy("ranker", "1.1.0")
    assert fleet.plan("--json", "--save-state", str(tmp_path / "copy.json")) == exits.CHANGES
    first = capsys.readouterr().out
    assert run(["plan", str(fleet.clone), "--json", "--state", str(tmp_path / "copy.json")]) == exits.CHANGES
    assert capsys.readouterr().out == first


def test_explain_says_of_every_device_why(fleet, capsys):
    """By the commit that is applied, whatever lies in the clone."""
    fleet.deploy("sentiment", "1.1.0", replicas=3)
    assert fleet.run("explain", "sentiment", str(fleet.clone)) == exits.OK
    fits = "rank 1 of 1 that fit: 100% of memory and 100% of CPU free, 0 models"
    assert capsys.readouterr().out.splitlines() == [
        "sentiment 1.0.0: 1 of 1 replica READY",
        f"  runs    worker-b  READY 1.0.0 since generation 1: {fits}",
        f"  could   worker-a  {fits}",
        "  cannot  worker-c  the device is cordoned (olga, disk swap)",
    ]


def test_explain_tells_the_last_failure_and_what_waits(fleet, capsys):
    """As JSON too."""
    failed = {"state": ModelState.FAILED, "code": "RUNNER_OOM", "failures": 1, "failed_at": NOON - timedelta(hours=1)}
    fleet.has(slots=tuple(slot.model_copy(update=failed) for slot in fleet.state.view.slots))
    assert fleet.run("explain", "sentiment", str(fleet.clone)) == exits.OK
    told = capsys.readouterr().out
    assert "  cannot  worker-b  1.0.0 failed with RUNNER_OOM: trying again does not mend that\n" in told
    assert told.endswith("last failure: 1.0.0 on worker-b: RUNNER_OOM, 2026-01-01 11:00:00 UTC\n")
    assert fleet.run("explain", "sentiment", str(fleet.clone), "--json") == exits.OK
    document = json.loads(capsys.readouterr().out)
    assert {one["worker_id"]: one["kind"] for one in document["verdicts"]} == {
        "worker-a": "could",
        "worker-b": "cannot",
        "worker-c": "cannot",
    }


def test_explain_of_a_misspelt_deployment_is_refused(fleet, capsys):
    """With its code, and where the names stand."""
    assert fleet.run("explain", "sentimnet", str(fleet.clone)) == exits.FAILED
    assert capsys.readouterr().err.startswith("error DEPLOYMENT_UNKNOWN: ")
