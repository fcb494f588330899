"""What `longshore status` tells, from fixed answers of the workflows."""

import io
import json
from datetime import UTC, datetime, timedelta

from rich.console import Console

from longshore.cli.status.facts import CommitStatus, DeploymentState, status_of
from longshore.cli.status.rendering import show
from longshore.schemas.commits import CommitOutcome
from longshore.schemas.devices import (
    DeviceCapacity,
    DeviceRecord,
    DeviceReport,
    DeviceStatus,
    DeviceView,
    Health,
    ModelReport,
)
from longshore.schemas.failures import Failure
from longshore.schemas.fleet import FleetView, Open
from longshore.schemas.held import Accepted, HeldBack
from longshore.schemas.issues import Issue
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.orders import Cordon, Hold
from longshore.schemas.plans import DeploymentPlan, Goal, Plan, Rejection
from longshore.schemas.slots import Demand, Slot

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
GI = 1024**3


def slot(deployment_id, worker_id, state=ModelState.READY, version="1.0.0", **facts):
    return Slot.model_validate(
        {
            "deployment_id": deployment_id,
            "worker_id": worker_id,
            "generation": 3,
            "version": version,
            "digest": version,
            "priority": 50,
            "demand": Demand(memory=GI, cpu=1.0),
            "state": state,
            **facts,
        }
    )


def fleet(*slots, goals=None, deployments=(), workers=("worker-a", "worker-b")):
    return FleetView(
        registry="registry",
        applied_sha="abcdef0123",
        generation=3,
        devices={name: DeviceRecord(worker_id=name, health=Health.HEALTHY) for name in workers},
        slots=slots,
        plan=Plan(
            sha="abcdef0123",
            generation=3,
            workers=workers,
            goals=goals or {"m": Goal(version="1.0.0", replicas=2)},
            deployments=deployments,
        ),
    )


def view(worker_id, *models, health=Health.HEALTHY):
    return DeviceView(
        worker_id=worker_id,
        health=health,
        last_evidence=NOW - timedelta(seconds=75),
        report=DeviceReport(
            worker_id=worker_id,
            boot_id="b",
            sequence=1,
            status=DeviceStatus.HEALTHY,
            timestamp=NOW,
            capacity=DeviceCapacity(
                max_models=5,
                max_memory=16 * GI,
                used_memory=4 * GI,
                max_cpu=8.0,
                used_cpu=2.0,
                max_gpu=0,
                used_gpu=0,
                loaded_models=len(models),
            ),
            models=models,
            data_address="127.0.0.1:8080",
        ),
    )


def only(status):
    (deployment,) = status.deployments
    return deployment


def test_ready_deployment():
    """Every wanted replica runs the desired version."""
    one = only(status_of(fleet(slot("m", "worker-a"), slot("m", "worker-b")), {}, ()))
    assert (one.state, one.desired_version, one.running_versions) == (DeploymentState.READY, "1.0.0", {"1.0.0": 2})
    assert (one.replicas_ready, one.replicas_wanted) == (2, 2)


def test_reload_in_progress_still_serves_the_old_version():
    """What answers requests and what is coming are both told."""
    coming = slot("m", "worker-a", ModelState.RELOADING, "1.1.0", previous_version="1.0.0", previous_digest="1.0.0")
    progress = ModelReport(deployment_id="m", state=ModelState.RELOADING, generation=3, progress=0.45)
    goals = {"m": Goal(version="1.1.0", replicas=1)}
    one = only(status_of(fleet(coming, goals=goals), {"worker-a": view("worker-a", progress)}, ()))
    assert (one.state, one.running_versions, one.replicas_ready) == (DeploymentState.IN_PROGRESS, {"1.0.0": 1}, 0)
    assert one.under_way == ("RELOADING 1.1.0 on worker-a, 45%",)


def test_failure_is_told_in_the_devices_own_words_with_its_remedy():
    """The ledger has the code, the device the message, the table the remedy."""
    error = Failure(code="CHECKSUM_MISMATCH", message="s3://m/model: expected 00, got 11")
    model = ModelReport(deployment_id="m", state=ModelState.READY, generation=3, error=error)
    ledger = fleet(slot("m", "worker-a", code="CHECKSUM_MISMATCH"), goals={"m": Goal(version="1.1.0", replicas=1)})
    one = only(status_of(ledger, {"worker-a": view("worker-a", model)}, ()))
    assert one.state is DeploymentState.FAILED
    assert [(p.worker_id, p.code, p.message) for p in one.problems] == [
        ("worker-a", "CHECKSUM_MISMATCH", "s3://m/model: expected 00, got 11")
    ]
    assert one.problems[0].remedy.startswith("Upload the artifact again")


def test_what_waits_for_an_absent_device_says_so():
    """An operator sees that nothing will happen before somebody starts that device, and not merely `LOADING`."""
    slots = [slot("m", f"worker-{name}", ModelState.LOADING) for name in "ab"]
    never = DeviceView(worker_id="worker-b", health=Health.UNKNOWN, last_evidence=None, report=None)
    devices = {"worker-a": view("worker-a", health=Health.FAILED), "worker-b": never}
    assert only(status_of(fleet(*slots), devices, ())).under_way == (
        "LOADING 1.0.0 on worker-a, waits for the device: nothing is heard of it",
        "LOADING 1.0.0 on worker-b, waits for the device: it was never heard of",
    )


def test_a_replica_that_fell_later_is_not_ready():
    """The ledger has it READY since its command ended; the device failed, or its model did, after that."""
    error = Failure(code="RUNNER_CRASHED", message="exit -11")
    crashed = ModelReport(deployment_id="m", state=ModelState.FAILED, generation=3, error=error)
    devices = {"worker-a": view("worker-a", crashed), "worker-b": view("worker-b", health=Health.FAILED)}
    one = only(status_of(fleet(slot("m", "worker-a"), slot("m", "worker-b")), devices, ()))
    assert (one.state, one.replicas_ready, one.running_versions) == (DeploymentState.FAILED, 0, {})
    assert [(p.worker_id, p.code) for p in one.problems] == [
        ("worker-a", "RUNNER_CRASHED"),
        ("worker-b", "DEVICE_UNREACHABLE"),
    ]


def test_missing_devices_are_told_with_the_plans_reasons():
    """INCOMPLETE is no failure of a device: the plan says why nobody takes the replica."""
    short = DeploymentPlan(
        deployment_id="m",
        generation=3,
        version="1.0.0",
        digest="1.0.0",
        replicas=2,
        changes=(),
        commands=(),
        unplaced=1,
        rejections=(Rejection(worker_id="worker-b", reasons=("memory: 4Gi wanted, 1Gi of 2Gi taken",)),),
    )
    one = only(status_of(fleet(slot("m", "worker-a"), deployments=(short,)), {}, ()))
    assert (one.state, one.replicas_ready, one.unplaced) == (DeploymentState.INCOMPLETE, 1, 1)
    assert one.why_unplaced == ("worker-b: memory: 4Gi wanted, 1Gi of 2Gi taken",)


def test_disabled_and_removed_deployments():
    """Disabled ones are listed as off; removed ones while something of them is left."""
    goals = {"off": Goal(version=None, replicas=0)}
    leaving = slot("gone", "worker-a", ModelState.UNLOADING)
    states = {d.deployment_id: d.state for d in status_of(fleet(leaving, goals=goals), {}, ()).deployments}
    assert states == {"gone": DeploymentState.IN_PROGRESS, "off": DeploymentState.OFF}


def test_workers_never_heard_of_are_listed():
    """A device in git without a host is the first thing to see."""
    workers = status_of(fleet(), {"worker-a": view("worker-a")}, ()).workers
    assert [(w.worker_id, w.last_heard) for w in workers] == [
        ("worker-a", NOW - timedelta(seconds=75)),
        ("worker-b", None),
    ]


def rejected():
    return CommitStatus(
        sha="1234567890",
        started=NOW - timedelta(minutes=2),
        outcome=CommitOutcome.REJECTED,
        summary="rejected: 1 error, nothing that runs has changed",
        issues=(
            Issue(
                code="REF_NOT_FOUND", file="models/production/m.yaml", place="model_card_ref.ref", message="no v9.9.9"
            ),
        ),
    )


def test_the_table_tells_all():
    """What an operator looks for stands in the text, markup in foreign text does no harm."""
    error = Failure(code="RUNNER_OOM", message="killed at [bold]4Gi[/nonsense]")
    model = ModelReport(deployment_id="m", state=ModelState.FAILED, generation=3, error=error)
    ledger = fleet(slot("m", "worker-a", ModelState.FAILED, code="RUNNER_OOM"))
    out = io.StringIO()
    status = status_of(ledger, {"worker-a": view("worker-a", model)}, (rejected(),))
    show(status, Console(file=out, width=250), NOW)
    text = out.getvalue()
    for expected in (
        "registry registry, applied commit abcdef0, generation 3",
        "1234567 2m ago: rejected: 1 error",
        "models/production/m.yaml (model_card_ref.ref): REF_NOT_FOUND: no v9.9.9",
        "Push the tag",
        "RUNNER_OOM on worker-a: killed at [bold]4Gi[/nonsense]",
        "Raise resources.memory",
        "1m ago",
        "4Gi/16Gi",
        "2/8",
        "127.0.0.1:8080",
        "never",
        "0/2",
    ):
        assert expected in text


def test_what_is_held_back_is_shown_with_what_to_type():
    """An operator copies the command; once it has been typed, the line says who did."""
    blocked = HeldBack(
        sha="b" * 40,
        code="MASS_UNLOAD_BLOCKED",
        reason="would unload 6 of 8 replicas (75 %, the limit is 50 %): fraud (6)",
        run_id="r",
        since=NOW,
    )
    word = Accepted(sha="c" * 40, code="HISTORY_REWRITTEN", by="olga@laptop", at=NOW)
    accepted = HeldBack(
        sha="c" * 40, code=word.code, reason="does not descend from a", run_id="r", since=NOW, accepted=word
    )
    ledger = fleet().model_copy(update={"held_back": (blocked, accepted)})
    out = io.StringIO()
    show(status_of(ledger, {}, ()), Console(file=out, width=80), NOW)
    assert (
        "held back: bbbbbbb MASS_UNLOAD_BLOCKED: would unload 6 of 8 replicas (75 %, the limit is 50 %): fraud (6)\n"
        f"  → longshore accept-unload {'b' * 40}\n"
        "held back: ccccccc HISTORY_REWRITTEN: does not descend from a\n"
        f"  → {word}; its workflow is started again\n"
    ) in out.getvalue()


def test_nothing_is_cut_off_in_80_columns():
    """Ids and addresses can be copied from a small terminal or a pipe, and a problem has lines of its own."""
    error = Failure(code="CHECKSUM_MISMATCH", message="s3://models/m/1.1.0/model.bin has sha256 " + "0" * 64)
    model = ModelReport(deployment_id="m", state=ModelState.READY, generation=3, error=error)
    ledger = fleet(slot("m", "worker-a", code="CHECKSUM_MISMATCH"), goals={"m": Goal(version="1.1.0", replicas=1)})
    out = io.StringIO()
    show(status_of(ledger, {"worker-a": view("worker-a", model)}, ()), Console(file=out, width=80), NOW)
    text = out.getvalue()
    assert "…" not in text
    (worker,) = [line for line in text.splitlines() if line.strip().startswith("worker-a ")]
    assert worker.split()[1:] == ["healthy", "1m", "ago", "4Gi/16Gi", "2/8", "1/5", "127.0.0.1:8080"]
    assert f"m: CHECKSUM_MISMATCH on worker-a: {error.message}\n  → Upload the artifact again" in text


def test_json_has_the_same_facts():
    """Dates, enums and numbers survive."""
    document = json.loads(status_of(fleet(slot("m", "worker-a")), {"worker-a": view("worker-a")}, ()).model_dump_json())
    assert document["deployments"][0]["running_versions"] == {"1.0.0": 1}
    assert document["workers"][0]["capacity"]["max_memory"] == 16 * GI


def shown(status):
    out = io.StringIO()
    show(status, Console(file=out, width=250), NOW)
    return out.getvalue()


def test_what_was_given_up_is_not_said_to_lack_a_device():
    """Nobody looks for room where the version itself fails."""
    reasons = ("1.0.0 failed with RUNNER_OOM: trying again does not mend that",)
    undone = Open(unplaced=1, given_up=1, rejections=(Rejection(worker_id="worker-b", reasons=reasons),))
    ledger = fleet(slot("m", "worker-a")).model_copy(update={"version": 7, "open": {"m": undone}})
    text = shown(status_of(ledger, {}, ()))
    assert f"m: 1 of 2 replicas cannot run 1.0.0: given up\nm: worker-b: {reasons[0]}\n" in text
    assert "no device for" not in text


def test_what_operators_hold_and_what_is_left_undone_is_told_with_what_ends_it():
    """By whom and why; what the newest plan left undone counts, not what the commit's did when it was made."""
    undone = Open(unplaced=1, deferred=2, rejections=(Rejection(worker_id="worker-b", reasons=("cordoned",)),))
    ledger = fleet(slot("m", "worker-a")).model_copy(
        update={
            "version": 7,
            "open": {"m": undone},
            "suspected": ("production",),
            "cordons": {"worker-b": Cordon(worker_id="worker-b", kind="drain", by="olga", reason="disk swap")},
            "holds": (Hold(deployment_id="m", kind="quarantined", digest="2", version="1.1.0", workers=("worker-b",)),),
            "devices": {
                "worker-a": DeviceRecord(worker_id="worker-a", draining=True, flags=("CLOCK_SKEW",)),
                "worker-b": DeviceRecord(worker_id="worker-b"),
            },
        }
    )
    text = shown(status_of(ledger, {}, ()))
    for expected in (
        "FLEET_SUSPECT: much of pool production is silent at once",
        "m: held back: 1 of 2 replicas\nm: worker-b: cordoned\n",
        "m: 2 commands wait: `longshore explain m` says for what",
        "m: quarantined: it failed on worker-b\n  → longshore quarantine release m",
        "worker-b: drained by olga: disk swap\n  → longshore worker uncordon worker-b",
        "worker-a: drains itself",
        "worker-a: CLOCK_SKEW\n  → Set the device's clock",
    ):
        assert expected in text


def test_a_fleet_in_order_has_nothing_below_its_tables():
    """What needs nobody says nothing."""
    ledger = fleet(slot("m", "worker-a"), slot("m", "worker-b")).model_copy(update={"version": 7})
    assert shown(status_of(ledger, {}, ())).rstrip().splitlines()[-1].split()[0] == "worker-b"


def test_what_others_took_over_from_a_dead_device_is_no_problem_of_its_deployment():
    """The device is told as failed; the deployment is whole."""
    ledger = fleet(slot("m", "worker-a", replaced=True), slot("m", "worker-b"), slot("m", "worker-c"))
    one = only(status_of(ledger, {"worker-a": view("worker-a", health=Health.FAILED)}, ()))
    assert (one.state, one.replicas_ready, one.problems) == (DeploymentState.READY, 2, ())
