"""The linter of plans finds what is wrong with a plan that was tampered with."""

import pytest
from fleets import Wanted, answered, device, observed, registry, worker

from longshore.planning.check import check
from longshore.planning.plan import make_plan
from longshore.schemas.commands import Action, UnloadReason
from longshore.schemas.devices import Health
from longshore.schemas.plans import PlannedCommand

FLEET = [
    worker("worker-a"),
    worker("worker-b"),
    worker("worker-c", pool="staging"),
    worker("worker-d", schemas=["2.2.0"]),
]


def broken(change, slots=(), wanted=Wanted("m", replicas=1), devices=None):  # noqa: B008 (frozen)
    asked, desired = observed(slots, devices), registry(FLEET, wanted)
    plan = make_plan(asked, desired)
    assert check(plan, asked, desired) == []
    (deployment,) = plan.deployments
    tampered = plan.model_copy(update={"deployments": (deployment.model_copy(update=change(deployment)),)})
    return check(tampered, asked, desired)


def load(worker_id):
    return PlannedCommand(action=Action.LOAD, worker_id=worker_id, reason="")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda _: {"generation": 0}, "generation 0 does not rise above 0"),
        (lambda d: {"commands": d.commands * 2}, "several commands for worker-a"),
        (lambda _: {"commands": (load("worker-c"),)}, "LOAD on worker-c, which the selector does not match"),
        (lambda _: {"commands": (load("worker-d"),)}, "LOAD on worker-d, which does not support its schema version"),
        (lambda _: {"commands": (load("worker-x"),)}, "LOAD on worker-x, which git does not configure"),
        (lambda _: {"commands": (load("worker-a"), load("worker-b"))}, "2 replicas where 1 are wanted"),
        (lambda _: {"commands": ()}, "0 placed and 0 unplaced are not the 1 wanted"),
        (lambda _: {"digest": None}, "though nothing should run"),
        (
            lambda _: {"commands": (PlannedCommand(action=Action.RELOAD, worker_id="worker-a", reason=""),)},
            "RELOAD on worker-a, which does not hold it",
        ),
        (
            lambda d: {"demand": d.demand.model_copy(update={"memory": 2**40})},
            "worker-a: 1.09951e+12 memory reserved",
        ),
    ],
)
def test_tampered_plan_is_complained_about(change, complaint):
    """Each rule has its own sentence."""
    assert any(complaint in sentence for sentence in broken(change))


def test_load_where_something_serves():
    """What serves is reloaded, never loaded over."""
    slots = answered((), make_plan(observed(), registry(FLEET, Wanted("m", "1.0.0"))))
    sentences = broken(lambda _: {"commands": (load("worker-a"),)}, slots, Wanted("m", "1.1.0"))
    assert "m: LOAD on worker-a, where 1.0.0 serves" in sentences


def test_unload_reason_belongs_to_unloads():
    """Callers are told why a model has gone, so an UNLOAD has its reason, and nothing else has one."""
    slots = answered((), make_plan(observed(), registry(FLEET, Wanted("m"))))
    off = Wanted("m", enabled=False)
    assert any(
        "unload reason" in sentence
        for sentence in broken(
            lambda d: {"commands": (d.commands[0].model_copy(update={"unload_reason": None}),)}, slots, off
        )
    )
    assert any(
        "unload reason" in sentence
        for sentence in broken(
            lambda d: {"commands": (d.commands[0].model_copy(update={"unload_reason": UnloadReason.REMOVED}),)}
        )
    )


def unload(worker_id):
    return PlannedCommand(action=Action.UNLOAD, worker_id=worker_id, reason="", unload_reason=UnloadReason.SCALED_DOWN)


def test_command_to_a_device_that_has_failed_is_complained_about():
    """Nobody would answer it, and its commit would stay open (PRD §8.3)."""
    slots = answered((), make_plan(observed(), registry(FLEET, Wanted("m", replicas=2))))
    gone = device("worker-b", Health.FAILED)
    sentences = broken(lambda _: {"commands": (unload("worker-b"),), "lost": ()}, slots, Wanted("m", "1.1.0"), gone)
    assert "m: UNLOAD on worker-b, which has failed" in sentences


def test_unload_of_what_serves_before_enough_others_are_ready_is_complained_about():
    """Make before break: a replica goes when its replacements are READY, not when they are commanded (FAULTS 90)."""
    slots = answered((), make_plan(observed(), registry(FLEET, Wanted("m", "1.0.0", replicas=2))))
    hasty = broken(
        lambda d: {"commands": (*d.commands, unload(d.deferred[0].worker_id)), "deferred": ()},
        slots,
        Wanted("m", "1.1.0"),
    )
    assert "m: UNLOAD on worker-a, which serves, leaves 0 READY where 1 are wanted" in hasty
