"""The verbs that change a fleet, against a real Temporal server with a fleet that answers."""

import asyncio
import json
from datetime import timedelta

import pytest
from repositories import ModelRepository, Registry
from temporalio import workflow
from temporalio.exceptions import ApplicationError
from typed_verbs import broker, server_with_fleet, typed

from longshore.cli import exits, orders
from longshore.cli.draining import Left, news, still_there
from longshore.cli.status import gathering
from longshore.schemas.failures import LongshoreError
from longshore.schemas.fleet import FleetView, Open
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.orders import Cordon, Hold, Order, OrderAnswer
from longshore.schemas.plans import Rejection
from longshore.schemas.slots import Demand, Slot

BY = orders.operator()


def slot(deployment_id, worker_id, **facts):
    return Slot.model_validate(
        {
            "deployment_id": deployment_id,
            "worker_id": worker_id,
            "generation": 3,
            "version": "1.0.0",
            "digest": "1",
            "priority": 50,
            "demand": Demand(),
            "state": ModelState.READY,
            **facts,
        }
    )


def view(*slots, **facts):
    return FleetView(registry="ops", applied_sha=None, generation=3, devices={}, slots=slots, plan=None, **facts)


@workflow.defn(name="FleetWorkflow")
class ObeyingFleet:
    @workflow.init
    def __init__(self, start: FleetView) -> None:
        self.state = start
        self.leaving = False

    @workflow.run
    async def run(self, start: FleetView) -> None:  # noqa: ARG002 (taken by __init__)
        while True:
            await workflow.wait_condition(lambda: self.leaving)
            while self.state.slots:
                await workflow.sleep(timedelta(milliseconds=300))
                self.state = self.state.model_copy(update={"slots": self.state.slots[1:]})
            self.leaving = False

    @workflow.query
    def fleet(self) -> FleetView:
        return self.state

    @workflow.update
    async def order(self, order: Order) -> OrderAnswer:
        if order.kind == "uncordon":
            return OrderAnswer(accepted=False, words="it drains itself: start it without --drain")
        if order.kind == "reconcile":
            if order.reason == "slow":
                await workflow.wait_condition(lambda: False)
            return OrderAnswer(accepted=True, words="1 deployment differs", workflow_id="reconcile:ops:4")
        if order.kind == "drain":
            cordon = Cordon(worker_id=order.target, kind="drain")
            self.state = self.state.model_copy(update={"cordons": {order.target: cordon}})
            self.leaving = True
        return OrderAnswer(accepted=True, words=f"{order.kind} {order.target}, by {order.by}: {order.reason}")

    @order.validator
    def refuse(self, order: Order) -> None:
        if order.target == "nobody":
            raise ApplicationError("WORKER_UNKNOWN: no worker nobody", type="WORKER_UNKNOWN")


@pytest.fixture
async def client():
    quarantined = Hold(
        deployment_id="fraud", kind="quarantined", digest="2", version="1.3.0", workers=("worker-a", "worker-b")
    )
    paused = Hold(deployment_id="churn", kind="paused")
    start = view(slot("churn", "worker-d"), slot("fraud", "worker-d"), holds=(quarantined, paused))
    async with server_with_fleet(start) as client:
        yield client


@pytest.fixture
async def served(client):
    async with broker(client, ObeyingFleet):
        yield client


async def test_each_verb_gives_its_order_in_the_operators_name(served):
    """To whom, by whom and why; the fleet's words are printed."""
    verbs = [
        ("worker cordon worker-d", "cordon worker-d"),
        ("worker drain worker-z --no-wait", "drain worker-z"),
        ("rollout pause fraud", "pause fraud"),
        ("rollout resume fraud", "resume fraud"),
        ("rollout abort fraud", "abort fraud"),
        ("quarantine release fraud", "release fraud"),
    ]
    told = await asyncio.gather(*(typed(served, *verb.split(), "--reason", "disk swap") for verb, _ in verbs))
    assert told == [(exits.OK, f"{order}, by {BY}: disk swap\n", "") for _, order in verbs]


async def test_what_an_order_leads_to_is_named_and_what_is_refused_fails(served):
    """The workflow's id is what to look for; a refusal is on stderr, with its reason and exit code 1."""
    told = await asyncio.gather(
        typed(served, "reconcile"), typed(served, "worker", "uncordon", "worker-d"), typed(served, "quarantine", "list")
    )
    assert told == [
        (exits.OK, "1 deployment differs (reconcile:ops:4)\n", ""),
        (exits.FAILED, "", "it drains itself: start it without --drain\n"),
        (
            exits.OK,
            "fraud 1.3.0: failed on worker-a, worker-b\n  → longshore quarantine release fraud\n",
            "",
        ),
    ]


async def test_a_drain_is_followed_until_the_device_is_empty(served):
    """Each model as it goes; the last line says that the device may be switched off."""
    status, out, err = await typed(served, "worker", "drain", "worker-d", "--reason", "disk swap")
    assert (status, err) == (exits.OK, "")
    lines = out.splitlines()
    assert lines[0] == f"drain worker-d, by {BY}: disk swap"
    assert {"  churn  unloaded here", "  fraud  unloaded here"} <= set(lines)
    assert lines[-1].startswith("worker-d is empty after ")


async def test_an_unknown_worker_is_told_with_its_remedy(served):
    """The fleet's own code, once."""
    status, out, err = await typed(served, "worker", "cordon", "nobody")
    assert (status, out) == (exits.FAILED, "")
    assert err.splitlines()[0] == "error WORKER_UNKNOWN: no worker nobody"
    assert "longshore status" in err


async def test_who_does_not_answer_is_told_apart(served, client, monkeypatch):
    """A fleet that has taken the order and plans still, and a registry that nobody serves."""
    monkeypatch.setattr(orders, "DECISION_TIMEOUT", timedelta(seconds=1))
    slow = Order(kind="reconcile", by="olga", reason="slow")
    with pytest.raises(LongshoreError, match="It was taken, but not decided") as told:
        await orders.tell_fleet(served, "ops", "order", slow, OrderAnswer)
    assert told.value.code == "BROKER_UNREACHABLE"
    with pytest.raises(LongshoreError, match="'nobody'") as told:
        await orders.tell_fleet(client, "nobody", "order", slow, OrderAnswer)
    assert told.value.code == "REGISTRY_UNKNOWN"


async def test_without_a_broker_no_order_is_given_and_the_command_ends(client, monkeypatch):
    """It does not wait for ever, and may be typed again."""
    monkeypatch.setattr(gathering, "ANSWER_TIMEOUT", timedelta(seconds=1))
    with pytest.raises(LongshoreError, match="No broker answered") as told:
        await orders.tell_fleet(client, "ops", "order", Order(kind="reconcile"), OrderAnswer)
    assert told.value.code == "BROKER_UNREACHABLE"


async def test_a_live_fleet_and_its_recorded_state_give_the_same_plan(served, tmp_path):
    """What --save-state writes is all that the plan was made upon."""
    registry, model = Registry(tmp_path), ModelRepository(tmp_path, tmp_path / "artifacts", "http://127.0.0.1:1")
    model.release("1.0.0")
    registry.worker("worker-a")
    registry.deployment("sentiment", model, "1.0.0")
    plan = ("plan", str(registry.clone), "--json", "--repository-schemes", "file")
    file = str(tmp_path / "state.json")
    status, live, err = await typed(served, *plan, "--save-state", file)
    assert (status, err) == (exits.CHANGES, "")
    assert [d["deployment_id"] for d in json.loads(live)["plan"]["deployments"]] == ["sentiment"]
    assert await typed(served, *plan, "--state", file) == (exits.CHANGES, live, "")


def test_what_a_drain_waits_for_is_told():
    """A model that finds no other place is named with the reasons, one that has moved with where it runs now."""
    unplaced = Open(unplaced=1, rejections=(Rejection(worker_id="worker-e", reasons=("memory: 4Gi wanted",)),))
    before = view(slot("churn", "worker-d"), slot("fraud", "worker-d"))
    after = view(slot("churn", "worker-d"), slot("fraud", "worker-e"), open={"churn": unplaced})
    left = [tuple(still_there(one, "worker-d")) for one in (before, after)]
    assert list(news(*left, after)) == [
        Left("churn", "finds no other place: worker-e: memory: 4Gi wanted"),
        Left("fraud", "unloaded here; READY on worker-e"),
    ]
    everywhere = view(slot("churn", "worker-d"), open={"churn": Open(unplaced=1)})
    assert list(still_there(everywhere, "worker-d")) == [
        Left("churn", "finds no other place: each device that matches has a replica")
    ]


def test_what_others_have_taken_over_is_not_waited_for():
    """A device that died while it was drained is empty as far as anybody can tell."""
    assert list(still_there(view(slot("churn", "worker-d", replaced=True)), "worker-d")) == []
