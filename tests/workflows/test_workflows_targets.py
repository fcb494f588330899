"""The inbox of the latest-wins actor by itself: which target wins, and who is answered with what."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from longshore.schemas.plans import DeploymentPlan
from longshore.schemas.rollouts import RolloutAnswer, RolloutInput, RolloutOutcome, RolloutTarget
from longshore.workflows.targets import Targets


def target(generation: int, sha: str, reply_to: str | None = None, *also: str) -> RolloutTarget:
    return RolloutTarget(
        registry="ops",
        sha=sha,
        plan=DeploymentPlan(
            deployment_id="ten", generation=generation, version="1.0.0", digest="d", replicas=1, changes=(), commands=()
        ),
        reply_to=reply_to or f"asker-{generation}",
        reply_also=also,
    )


def done(target: RolloutTarget) -> RolloutAnswer:
    return RolloutAnswer(
        deployment_id="ten",
        generation=target.plan.generation,
        sha=target.sha,
        outcome=RolloutOutcome.DONE,
        version="1.0.0",
    )


def replies(targets: Targets) -> list[tuple[str, str, int]]:
    return [(who, answer.outcome.value, answer.generation) for who, answer in targets.replies()]


def test_another_commit_supersedes_what_was_never_begun() -> None:
    """The loser is answered at once, whichever of the two arrives first."""
    for pair in ((target(1, "a"), target(2, "b")), (target(2, "b"), target(1, "a"))):
        targets = Targets()
        for one in pair:
            targets.offer(one)
        assert replies(targets) == [("asker-1", "superseded", 1)]
        assert targets.next() == target(2, "b")
        assert targets.next() is None


def test_the_same_commit_inherits() -> None:
    """What a reconciliation takes over is answered by its end; who asks the heir is answered once."""
    targets = Targets()
    first, second = target(1, "a"), target(2, "a")
    targets.offer(first)
    assert targets.next() == first
    targets.offer(second)
    assert targets.waiting
    assert targets.overtaken() is None
    targets.end(None)
    assert (replies(targets), targets.heirs(second)) == ([], ("asker-1",))
    assert targets.next() == second
    targets.end(done(second))
    assert replies(targets) == [("asker-2", "done", 2), ("asker-1", "done", 2)]


def test_another_commit_supersedes_the_heir_and_whom_it_inherited() -> None:
    """Somebody has pushed: all who awaited the older commit learn of it."""
    targets = Targets()
    for one in (target(1, "a"), target(2, "a"), target(3, "b")):
        targets.offer(one)
    assert replies(targets) == [("asker-2", "superseded", 2), ("asker-1", "superseded", 2)]


def test_a_late_older_target_of_the_same_commit_gets_the_answer_that_there_is() -> None:
    """It arrives when its heir has ended, while the actor still lives."""
    targets = Targets()
    second = target(2, "a")
    targets.offer(second)
    targets.next()
    targets.end(done(second))
    targets.replies()
    targets.offer(target(1, "a"))
    assert replies(targets) == [("asker-1", "done", 2)]
    assert not targets.waiting


def test_who_comes_with_a_target_is_answered_with_it() -> None:
    """`reply_also` names those whom its sender knows to wait."""
    targets = Targets()
    one = target(1, "a", "commit", "other", "commit")
    targets.offer(one)
    targets.next()
    targets.end(done(one))
    assert replies(targets) == [("commit", "done", 1), ("other", "done", 1)]


def test_what_waits_is_carried_over() -> None:
    """A run that has grown long hands on who awaits what, and which targets it has seen."""
    targets = Targets()
    first, second = target(1, "a"), target(2, "a")
    targets.offer(first)
    targets.next()
    assert targets.carried_over() is None
    targets.offer(second)
    targets.end(targets.overtaken())
    carried = targets.carried_over()
    assert carried is not None
    next_run = Targets(carried)
    next_run.offer(first)
    assert next_run.next() == carried.target
    next_run.end(done(second))
    assert replies(next_run) == [("asker-2", "done", 2), ("asker-1", "done", 2)]


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=8), st.data())
def test_everybody_is_answered_exactly_once(order: list[tuple[int, bool]], data: st.DataObject) -> None:
    """In whatever order targets arrive, end and are carried over to a next run: one answer each, of its own commit."""
    targets, under_way = Targets(), None
    answered: list[tuple[str, RolloutAnswer]] = []

    def work() -> None:
        nonlocal targets, under_way
        if under_way is not None:
            targets.end(targets.overtaken() if targets.waiting else done(under_way))
        answered.extend(targets.replies())
        if (carried := targets.carried_over()) is not None and data.draw(st.booleans()):
            targets = Targets(RolloutInput.model_validate_json(carried.model_dump_json()))
        under_way = targets.next()

    for generation, newer_commit in order:
        # Commits are in a row: a higher generation never belongs to an older commit.
        targets.offer(target(generation, "b" if newer_commit and generation > 3 else f"{generation > 3}"))
        if data.draw(st.booleans()):
            work()
    while targets.waiting or under_way is not None:
        work()
    answered.extend(targets.replies())
    offered = {f"asker-{generation}" for generation, _ in order}
    assert sorted(who for who, _ in answered) == sorted(offered)
    newest = max((generation for generation, _ in order), default=0)
    for who, answer in answered:
        assert answer.outcome is RolloutOutcome.SUPERSEDED or answer.generation >= int(who.removeprefix("asker-"))
        if who == f"asker-{newest}":
            assert answer.outcome is RolloutOutcome.DONE
