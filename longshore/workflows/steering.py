"""Which of a target's commands may begin: what an operator has said, and how many may be recreated at once. Pure.

What a device has begun is never broken off. A newer target begins with nothing said of it but what it brings itself:
what lasts is the ledger's Hold, and the plan of the newer one has heeded it, unless it was made before that.
"""

from __future__ import annotations

from dataclasses import dataclass

from longshore.schemas.failures import Failure
from longshore.schemas.plans import PlannedCommand
from longshore.schemas.rollouts import RolloutTarget, SlotResult, Steering
from longshore.workflows.outcomes import OVERTAKEN
from longshore.workflows.stories import said


@dataclass(frozen=True)
class Barred:
    """Why a command was not begun, and will not be."""

    failure: Failure
    given_back: bool = False
    """Nobody is to blame for it: its slot becomes what it was before."""


class Helm:
    """The last word to one target. Said twice, it is the same; what is aborted stays so."""

    def __init__(self) -> None:
        self.word: Steering | None = None
        self._of: int | None = None

    def say(self, word: Steering, newest: RolloutTarget | None) -> bool:
        """Take a word to the newest target; return whether it changes anything. One to another target is ignored."""
        if newest is None or word.generation not in (None, newest.plan.generation):
            return False
        before = self.word_to(newest)
        if before is not None and before.kind in ("abort", word.kind):
            return False
        self._of, self.word = newest.plan.generation, word
        return before is not None or word.kind != "resume"

    def word_to(self, target: RolloutTarget) -> Steering | None:
        return self.word if self._of == target.plan.generation else None

    def paused(self, target: RolloutTarget) -> bool:
        word = self.word_to(target)
        return word is not None and word.kind == "pause"

    def aborted(self, target: RolloutTarget) -> Barred | None:
        word = self.word_to(target)
        if word is None or word.kind != "abort":
            return None
        return Barred(Failure(code=word.code, message=f"not begun: aborted{said(word)}"), given_back=True)


class Turns:
    """Who of one target's commands may begin: at most `max_unavailable` recreate at once, none after one has failed."""

    def __init__(self, target: RolloutTarget, helm: Helm, before: Turns | None = None) -> None:
        """`before`: of the target that this one overtakes. What it was recreating comes first: it may be down."""
        self._target = target
        self._helm = helm
        recreated = {command.worker_id for command in target.plan.commands if command.recreate}
        self.recreating: set[str] = before.recreating & recreated if before is not None else set()
        self._failed: SlotResult | None = None

    def barred(self, planned: PlannedCommand) -> Barred | None:
        """Return why a command that has not begun never will."""
        if aborted := self._helm.aborted(self._target):
            return aborted
        if not planned.recreate or self._failed is None or self._failed.failure is None:
            return None
        why = f"recreating it on {self._failed.worker_id} has failed with {self._failed.failure.code}"
        return Barred(Failure(code="ABORTED", message=f"not begun: {why}, so the version that serves stays"))

    def free(self, planned: PlannedCommand) -> bool:
        """Tell whether a command may begin now."""
        if self._helm.paused(self._target):
            return False
        others = self.recreating - {planned.worker_id}
        return not planned.recreate or len(others) < self._target.plan.max_unavailable

    def begin(self, planned: PlannedCommand) -> None:
        if planned.recreate:
            self.recreating.add(planned.worker_id)

    def end(self, planned: PlannedCommand, result: SlotResult) -> None:
        if planned.recreate:
            self.recreating.discard(planned.worker_id)
            if self._failed is None and result.failure is not None and result.failure.code not in OVERTAKEN:
                self._failed = result
