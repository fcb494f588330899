"""The inbox of a latest-wins actor: what it works on next, and who is answered with what (DESIGN §3). Pure.

Only a target of another commit supersedes. One of the same commit with a higher generation, which a reconciliation has
planned, takes over the work: whoever awaited the one before is its heir's to answer.
"""

from __future__ import annotations

from longshore.schemas.rollouts import RolloutAnswer, RolloutInput, RolloutOutcome, RolloutTarget
from longshore.schemas.wording import short

# A target is delivered again within minutes, and a run that knows so many has been continued as new before.
KNOWN_KEPT = 1_000


class Targets:
    """Every target that was ever offered is answered exactly once, through `replies`, unless the actor is ended."""

    def __init__(self, start: RolloutInput | None = None) -> None:
        """`start`: what the run before this one has carried over."""
        self._known: dict[tuple[int, str], None] = dict.fromkeys(start.known) if start else {}
        self._newest: RolloutTarget | None = None
        self._begun: RolloutTarget | None = None
        self._answer: RolloutAnswer | None = None
        self._heirs: dict[int, tuple[str, ...]] = {}
        self._replies: list[tuple[str, RolloutAnswer]] = []
        if start is not None:
            self._take(start.target)

    @property
    def waiting(self) -> bool:
        """Whether the newest target has not been begun; while another one is under way, that one is overtaken."""
        return self._newest is not self._begun

    @property
    def newest(self) -> RolloutTarget | None:
        return self._newest

    def offer(self, target: RolloutTarget) -> None:
        """Take a target in. Delivered again, it is the same one: signal-with-start is retried."""
        key = (target.plan.generation, target.reply_to)
        if key in self._known:
            return
        self._known[key] = None
        loser: RolloutTarget | None = target
        if self._newest is None or target.plan.generation > self._newest.plan.generation:
            loser = self._newest
            self._take(target)
        if loser is not None and loser is not self._begun:
            self._lose(loser)

    def next(self) -> RolloutTarget | None:
        """Return the newest target where it has not been begun, and take it for begun; the one before has ended."""
        if not self.waiting:
            return None
        self._begun, self._answer = self._newest, None
        return self._begun

    def overtaken(self) -> RolloutAnswer | None:
        """Return how the overtaken one is answered; None where the one that overtook it answers in its stead."""
        if self._begun is None or self._newest is None or self._begun.sha == self._newest.sha:
            return None
        return _superseded(self._begun, self._newest)

    def end(self, answer: RolloutAnswer | None) -> None:
        """Take note of how the begun target has ended; None: it was overtaken, and leaves its answer to its heir."""
        begun = self._begun
        if begun is None:
            return
        if answer is None:
            self._lose(begun)
            return
        self._answer = answer
        self._replies += [(who, answer) for who in (begun.reply_to, *self._heirs.pop(begun.plan.generation, ()))]

    def replies(self) -> list[tuple[str, RolloutAnswer]]:
        """Hand out, once, what can be answered by now: workflow ids and their answers, in the order to send them."""
        replies, self._replies = self._replies, []
        return replies

    def heirs(self, target: RolloutTarget) -> tuple[str, ...]:
        """Return who else gets this target's answer: those that awaited what it has taken over."""
        return self._heirs.get(target.plan.generation, ())

    def carried_over(self) -> RolloutInput | None:
        """Return what a next run begins with: the target that waits, and who gets its answer; None where none waits."""
        if self._newest is None or not self.waiting:
            return None
        target = self._newest.model_copy(update={"reply_also": self.heirs(self._newest)})
        return RolloutInput(target=target, known=tuple(self._known)[-KNOWN_KEPT:])

    def _take(self, target: RolloutTarget) -> None:
        self._newest = target
        self._heirs[target.plan.generation] = _others(target, target.reply_also)

    def _lose(self, loser: RolloutTarget) -> None:
        winner = self._newest
        if winner is None:
            return
        who = (loser.reply_to, *self._heirs.pop(loser.plan.generation, _others(loser, loser.reply_also)))
        if loser.sha != winner.sha:
            answer = _superseded(loser, winner)
            self._replies += [(one, answer) for one in who]
        elif winner is self._begun and self._answer is not None:
            answer = self._answer
            self._replies += [(one, answer) for one in _others(winner, who)]
        else:
            self._heirs[winner.plan.generation] = _others(winner, (*self.heirs(winner), *who))


def withdrawn(target: RolloutTarget) -> RolloutAnswer:
    """Return the answer to a target that the ledger stands behind no longer."""
    return _answer(target, "the ledger has other plans by now")


def _others(target: RolloutTarget, who: tuple[str, ...]) -> tuple[str, ...]:
    """Return them in their order, each once, without the one who asked for `target` itself."""
    return tuple(one for one in dict.fromkeys(who) if one != target.reply_to)


def _superseded(target: RolloutTarget, by: RolloutTarget) -> RolloutAnswer:
    return _answer(target, f"superseded by commit {short(by.sha)} (generation {by.plan.generation})")


def _answer(target: RolloutTarget, message: str) -> RolloutAnswer:
    return RolloutAnswer(
        deployment_id=target.plan.deployment_id,
        generation=target.plan.generation,
        sha=target.sha,
        outcome=RolloutOutcome.SUPERSEDED,
        version=target.plan.version,
        message=message,
    )
