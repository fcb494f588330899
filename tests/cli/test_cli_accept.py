"""`longshore accept-history` and `accept-unload` against a real Temporal server with a fleet that answers."""

from datetime import UTC, datetime, timedelta

import pytest
from temporalio import workflow
from temporalio.exceptions import ApplicationError
from typed_verbs import broker, server_with_fleet, typed

from longshore.cli import exits, orders
from longshore.cli.status import gathering
from longshore.schemas.failures import LongshoreError
from longshore.schemas.held import Acceptance, Accepted

SHA = "b" * 40
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ACCEPTANCE = Acceptance(sha=SHA, code="HISTORY_REWRITTEN", by="olga")


@workflow.defn(name="FleetWorkflow")
class AcceptingFleet:
    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)

    @workflow.update
    def accept(self, word: Acceptance) -> Accepted:
        return Accepted(sha=SHA, code=word.code, by=word.by, at=NOON)

    @accept.validator
    def refuse(self, word: Acceptance) -> None:
        if word.sha not in {SHA, SHA[:7]}:
            raise ApplicationError(f"COMMIT_NOT_HELD: no commit {word.sha}", type="COMMIT_NOT_HELD")


@pytest.fixture
async def client():
    async with server_with_fleet() as client:
        yield client


@pytest.fixture
async def served(client):
    async with broker(client, AcceptingFleet):
        yield client


@pytest.mark.parametrize(
    ("verb", "code"), [("accept-history", "HISTORY_REWRITTEN"), ("accept-unload", "MASS_UNLOAD_BLOCKED")]
)
async def test_a_commit_is_accepted_in_the_operators_name(served, verb, code):
    """The command says what was accepted, by whom and when; capitals and spaces of a copied id do no harm."""
    status, out, err = await typed(served, verb, f" {SHA[:7].upper()}")
    assert (status, err) == (exits.OK, "")
    assert out.startswith(f"{code} of bbbbbbbbbb accepted by {orders.operator()} at 2026-01-01 12:00:00 UTC\n")


async def test_what_is_not_held_back_is_told_with_its_remedy(served):
    """The fleet's own words, once."""
    status, out, err = await typed(served, "accept-unload", "abcd")
    assert (status, out) == (exits.FAILED, "")
    assert err.splitlines()[0] == "error COMMIT_NOT_HELD: no commit abcd"
    assert "longshore status" in err


async def test_a_registry_that_nobody_serves_is_told(served):
    """By the name that was asked for."""
    with pytest.raises(LongshoreError, match="'nobody'") as told:
        await orders.tell_fleet(served, "nobody", "accept", ACCEPTANCE, Accepted)
    assert told.value.code == "REGISTRY_UNKNOWN"


async def test_without_a_broker_nothing_is_accepted_and_the_command_ends(client, monkeypatch):
    """It does not wait for ever, and may be typed again."""
    monkeypatch.setattr(gathering, "ANSWER_TIMEOUT", timedelta(seconds=1))
    with pytest.raises(LongshoreError) as told:
        await orders.tell_fleet(client, "ops", "accept", ACCEPTANCE, Accepted)
    assert told.value.code == "BROKER_UNREACHABLE"


def test_an_operator_without_a_name_has_a_number(monkeypatch):
    """Some containers run as a user whom nobody has named."""

    def nameless():
        raise OSError("no username set in the environment")

    monkeypatch.setattr(orders.getpass, "getuser", nameless)
    assert orders.operator().startswith("uid-")
