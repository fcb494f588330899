"""How the list of held-back commits moves, where the order of things is tight."""

from datetime import UTC, datetime

from longshore.schemas.held import Accepted, HeldBack, accept, after_plan, hold, started

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
CODE = "HISTORY_REWRITTEN"
WORD = Accepted(sha="a", code=CODE, by="olga", at=NOW)


def held(sha="a", run_id="run-1", code=CODE):
    return HeldBack(sha=sha, code=code, reason="does not fit", run_id=run_id, since=NOW)


def test_an_acceptance_while_the_commit_is_being_planned_is_not_lost():
    """Held back once more by a plan that could not know of it, the commit is started again after that run."""
    (first,) = accept(hold((), held()), WORD)
    (again,) = hold((first,), held(run_id="run-2"))
    assert (again.accepted, again.run_id, again.due) == (WORD, "run-2", True)
    (still,) = started((again,), first)
    assert still.due
    (done,) = started((again,), again)
    assert (done.due, done.accepted) == (False, WORD)


def test_one_code_is_accepted_and_the_other_is_not():
    """A commit may wait for two words."""
    both = hold(hold((), held()), held(code="MASS_UNLOAD_BLOCKED"))
    assert [one.accepted for one in accept(both, WORD)] == [WORD, None]


def test_after_a_plan_only_its_descendants_wait_and_are_looked_at_again():
    """What was planned, what came before it and any other line is done with."""
    assert after_plan((held("a"), held("b")), ("b",)) == (held("b").model_copy(update={"due": True}),)
