"""Why a deployment is where it is, and why not elsewhere: what `longshore explain` and `longshore plan` tell."""

from datetime import UTC, datetime, timedelta

import pytest
from fleets import Wanted, answered, device, observed, registry, worker

from longshore.planning.explain import VerdictKind, explain, why_not
from longshore.planning.plan import make_plan
from longshore.schemas.commands import Action
from longshore.schemas.devices import Health
from longshore.schemas.failures import LongshoreError
from longshore.schemas.orders import Cordon, Hold
from longshore.schemas.plans import ChangeType

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

A, B, C, D = (f"worker-us-east-1{letter}" for letter in "abcd")


def running(fleet, *wanted, failures=None):
    """Return the ledger once `wanted` has been planned and carried out."""
    asked = observed()
    return answered((), make_plan(asked, registry(fleet, *wanted)), failures)


def told(explanation):
    return {one.worker_id: (one.kind.value, *one.reasons) for one in explanation.verdicts}


def test_every_configured_device_has_one_verdict():
    """Where it runs with the words of the plan that brought it, where it could be, and every reason where not."""
    fleet = [worker(A), worker(B), worker(C, memory="2Gi", cpu=1), worker(D, pool="staging", region="eu-west-1")]
    wanted = Wanted("fraud")
    explanation = explain("fraud", observed(running(fleet, wanted)), registry(fleet, wanted))
    assert (explanation.version, explanation.ready, explanation.wanted) == ("1.0.0", 1, 1)
    assert told(explanation) == {
        A: (
            "runs",
            "READY 1.0.0 since generation 1: rank 1 of 2 that fit: 100% of memory and 100% of CPU free, 0 models",
        ),
        B: ("could", "rank 1 of 1 that fit: 100% of memory and 100% of CPU free, 0 models"),
        C: (
            "cannot",
            "memory: 4Gi wanted, 0Gi of 2Gi taken",
            "cpu: 2 wanted, 0 of 1 taken",
            "no eviction helps: the device is too small",
        ),
        D: ("cannot", "pool is staging, wanted production", "region is eu-west-1, wanted us-east-1"),
    }


def test_what_could_only_be_with_an_eviction_says_whom():
    """The devices with room come first."""
    fleet = [worker(A, memory="4Gi"), worker(B), worker(C)]
    low, high = Wanted("churn", priority=20), Wanted("fraud", priority=90)
    slots = running([fleet[0]], low)
    explanation = explain("fraud", observed(slots), registry(fleet, low, high))
    ranks = {one.worker_id: one.rank for one in explanation.verdicts}
    assert ranks == {A: 3, B: 1, C: 2}
    assert told(explanation)[A] == ("could", "room must be made: evicts churn (priority 20)")


def test_a_held_deployment_could_be_elsewhere_but_for_the_hold():
    """Who holds it and why; what cannot take it anyway says so all the same."""
    fleet, wanted = [worker(A), worker(B, memory="2Gi")], Wanted("fraud")
    asked = observed().model_copy(
        update={"holds": (Hold(deployment_id="fraud", kind="paused", by="olga", reason="audit"),)}
    )
    explanation = explain("fraud", asked, registry(fleet, wanted))
    assert explanation.held == "paused by olga: audit"
    assert [one.kind for one in explanation.verdicts] == [VerdictKind.HELD, VerdictKind.CANNOT]
    assert told(explanation)[A][1] == "paused by olga: audit"


def test_what_waits_for_others_is_told_with_what_it_waits_for():
    """A device that is drained keeps serving until its replacement is READY."""
    fleet, wanted = [worker(A), worker(B)], Wanted("fraud")
    cordons = {A: Cordon(worker_id=A, kind="drain", by="olga", reason="disk swap")}
    asked = observed(running(fleet, wanted)).model_copy(update={"cordons": cordons})
    explanation = explain("fraud", asked, registry(fleet, wanted))
    (later,) = explanation.deferred
    assert (later.worker_id, later.action, later.waits_for) == (A, Action.UNLOAD, "another is READY")
    assert told(explanation)[A][-1] == "the device is being drained (olga, disk swap)"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("STORAGE_UNAVAILABLE", "1.0.0 failed there with STORAGE_UNAVAILABLE, and is tried again at 12:00:10 UTC"),
        ("RUNNER_OOM", "1.0.0 failed with RUNNER_OOM: trying again does not mend that"),
    ],
)
def test_a_failure_is_told_with_what_becomes_of_it(code, words):
    """The failure table decides whether it is tried again, and when."""
    fleet, wanted = [worker(A)], Wanted("fraud")
    (slot,) = running(fleet, wanted, failures={A: code})
    slot = slot.model_copy(update={"failures": 1, "failed_at": NOON - timedelta(seconds=20)})
    asked = observed([slot]).model_copy(update={"now": NOON})
    explanation = explain("fraud", asked, registry(fleet, wanted))
    assert told(explanation)[A] == ("cannot", words)
    assert (explanation.ready, explanation.last_failure.code) == (0, code)


def test_a_device_that_is_dead_runs_nothing():
    """Whatever the ledger had there; the replica may be needed elsewhere."""
    fleet, wanted = [worker(A), worker(B)], Wanted("fraud")
    asked = observed(running(fleet, wanted), device(A, Health.FAILED))
    explanation = explain("fraud", asked, registry(fleet, wanted))
    assert explanation.ready == 0
    assert told(explanation)[A] == (
        "cannot",
        "the device has failed: nothing was heard of it",
        "it was ready there with 1.0.0",
    )


def test_what_should_not_run_says_why_not():
    """Disabled in git; what is left of it is on its way out."""
    fleet = [worker(A), worker(B)]
    slots = running(fleet, Wanted("fraud"))
    explanation = explain("fraud", observed(slots), registry(fleet, Wanted("fraud", enabled=False)))
    assert (explanation.version, explanation.wanted) == (None, 0)
    assert told(explanation)[B] == ("cannot", "enabled is false")


def test_a_deployment_that_nobody_knows_is_refused():
    """Neither git nor the ledger has it: it is a slip of the hand."""
    with pytest.raises(LongshoreError) as refused:
        explain("fruad", observed(), registry([worker(A)], Wanted("fraud")))
    assert refused.value.code == "DEPLOYMENT_UNKNOWN"


def test_the_devices_that_a_plan_did_not_choose_are_those_that_ranked_below():
    """As it was when the plan chose: the room that it gave away later was free then."""
    fleet = [worker(A), worker(B, memory="8Gi"), worker(C, memory="6Gi")]
    first, second = Wanted("fraud", priority=90), Wanted("churn", priority=20, replicas=3)
    asked, desired = observed(), registry(fleet, first, second)
    plan = make_plan(asked, desired)
    others = why_not(plan, asked, desired)
    assert {one.worker_id: (one.kind, one.rank) for one in others["fraud"]} == {
        B: (VerdictKind.COULD, 2),
        C: (VerdictKind.COULD, 3),
    }
    assert others["churn"] == ()
    assert [change.type for change in plan.deployments[0].changes] == [ChangeType.NEW_DEPLOYMENT]
