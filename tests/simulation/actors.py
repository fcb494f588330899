"""What the RolloutWorkflow does around its `Targets` and `Turns`, on virtual time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from longshore.planning.freeing import freed
from longshore.schemas.commands import Action, CommandResult
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.failures import Failure
from longshore.schemas.fleet import FleetView, SlotSettled
from longshore.schemas.plans import PlannedCommand
from longshore.schemas.rollouts import RolloutAnswer, RolloutTarget, SlotResult, Steering
from longshore.workflows.commands import _settled
from longshore.workflows.rollouts import _answer, _by_worker
from longshore.workflows.steering import Barred, Helm, Turns
from longshore.workflows.targets import Targets, withdrawn
from tests.simulation.clock import Clock
from tests.simulation.journal import Errand
from tests.simulation.mutations import Mutations

# Seconds between two looks at the ledger for room that is being freed.
_LOOK = 5.0


class Surroundings(Protocol):
    """What a rollout reaches."""

    clock: Clock
    mutations: Mutations

    def spec(self, sha: str, deployment_id: str) -> DeploymentSpec: ...

    def issue(self, errand: Errand, planned: PlannedCommand) -> None: ...

    def tell_ledger(self, settled: SlotSettled, delivered: Callable[[], None]) -> None: ...

    def reply(self, workflow_id: str, answer: RolloutAnswer) -> None: ...

    def view(self) -> FleetView | None:
        """Return the ledger; None while there is no fleet."""


class Actor:
    def __init__(self, deployment_id: str, around: Surroundings) -> None:
        self.deployment_id = deployment_id
        self.ended = False
        self._around = around
        self._targets = Targets()
        self._helm = Helm()
        self._work: Carrying | None = None

    @property
    def generation(self) -> int | None:
        newest = self._targets.newest
        return newest.plan.generation if newest is not None else None

    def set_target(self, target: RolloutTarget) -> None:
        self._targets.offer(target)
        if target.steering is not None and target is self._targets.newest:
            self._helm.say(target.steering, target)
        if self._work is not None and self._targets.waiting:
            self._work.stop()
            self._targets.end(self._targets.overtaken())
            self._work = None
        self._go_on()

    def steer(self, word: Steering) -> None:
        self._helm.say(word, self._targets.newest)

    def terminate(self) -> None:
        """End as an operator does it: nobody is told, and devices are told to stop."""
        self.ended = True
        if self._work is not None:
            self._work.stop()

    def _go_on(self) -> None:
        target = self._targets.next() if self._work is None else None
        if target is not None and target.outdated:
            self._targets.end(withdrawn(target))
        elif target is not None:
            commands = ", ".join(f"{command.action} {command.worker_id}" for command in target.plan.commands)
            words = f"carries out generation {target.plan.generation} of {target.sha[:6]}: {commands or 'nothing'}"
            self._around.clock.tell(f"rollout:{self.deployment_id}", words)
            self._work = Carrying(target, Turns(target, self._helm), self._around, self._done)
            self._work.begin()
        for workflow_id, answer in self._targets.replies():
            self._around.reply(workflow_id, answer)
        self.ended = self.ended or self._work is None

    def _done(self, answer: RolloutAnswer) -> None:
        if not self.ended:
            self._work = None
            self._targets.end(answer)
            self._go_on()


class Carrying:
    """One target while it is carried out."""

    def __init__(
        self, target: RolloutTarget, turns: Turns, around: Surroundings, done: Callable[[RolloutAnswer], None]
    ) -> None:
        self._target = target
        self._turns = turns
        self._around = around
        self._done = done
        self._stopped = False
        self._queues = [list(queue) for queue in _by_worker(target.plan)]
        self._busy = len(self._queues)
        self._letters = 0
        self._results: list[SlotResult] = []
        self._errands: list[Errand] = []

    def begin(self) -> None:
        for queue in self._queues:
            self._around.clock.after(self._around.clock.chance.uniform(0.01, 0.2), self._next, queue)
        self._finish()

    def stop(self) -> None:
        self._stopped = True
        for errand in self._errands:
            errand.open = False

    def _next(self, queue: list[PlannedCommand]) -> None:
        """Issue a device's next command, once it may go."""
        if self._stopped:
            return
        if not queue:
            self._busy -= 1
            self._finish()
            return
        planned = queue[0]
        barred = self._turns.barred(planned) or self._kept(planned)
        if barred is not None:
            queue.pop(0)
            self._ended(queue, planned, barred)
        elif self._waits(planned) or not self._turns.free(planned):
            self._around.clock.after(_LOOK, self._next, queue)
        else:
            queue.pop(0)
            self._turns.begin(planned)
            self._issue(queue, planned)

    def _waits(self, planned: PlannedCommand) -> bool:
        """Tell whether something that must go is still there, so far as that is known."""
        view = self._around.view()
        if not planned.after or self._around.mutations.no_waiting:
            return False
        return view is None or freed(planned.after, view.slots) is None

    def _kept(self, planned: PlannedCommand) -> Barred | None:
        view = self._around.view()
        if not planned.after or view is None or self._around.mutations.no_waiting:
            return None
        answer = freed(planned.after, view.slots)
        if answer is None or answer.outcome == "freed":
            return None
        return Barred(Failure(code="PREEMPTION_FAILED", message=answer.words))

    def _issue(self, queue: list[PlannedCommand], planned: PlannedCommand) -> None:
        plan = self._target.plan
        unload = planned.action is Action.UNLOAD
        errand = Errand(
            plan.deployment_id,
            planned.worker_id,
            plan.generation,
            planned.action,
            None if unload else self._around.spec(self._target.sha, plan.deployment_id),
            planned.unload_reason,
            planned.recreate,
            ended=partial(self._ended, queue, planned),
        )
        self._errands.append(errand)
        self._around.issue(errand, planned)

    def _ended(
        self, queue: list[PlannedCommand], planned: PlannedCommand, outcome: CommandResult | Failure | Barred
    ) -> None:
        if self._stopped:
            return
        failure = outcome.failure if isinstance(outcome, Barred) else outcome if isinstance(outcome, Failure) else None
        result = SlotResult(worker_id=planned.worker_id, action=planned.action, failure=failure)
        self._turns.end(planned, result)
        self._results.append(result)
        settled = _settled(self._target, planned, outcome)
        if settled is not None:
            self._letters += 1
            self._around.tell_ledger(settled, self._delivered)
        self._next(queue)

    def _delivered(self) -> None:
        self._letters -= 1
        self._finish()

    def _finish(self) -> None:
        """Answer once every command has ended and the ledger knows of it."""
        if not self._stopped and not self._busy and not self._letters:
            self._stopped = True
            self._done(_answer(self._target, tuple(self._results)))
