"""What the FleetWorkflow and its activities do around the real `Ledger` and the real planner, on virtual time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar, cast
from unittest.mock import patch

from longshore.activities import planner
from longshore.activities.fleet import FleetActivities
from longshore.activities.planner import Planner
from longshore.activities.reconciliations import _is_idle
from longshore.schemas.devices import DeviceFacts, DeviceRecord, DeviceReport, Health
from longshore.schemas.failures import LongshoreError
from longshore.schemas.fleet import (
    FleetInput,
    FleetSettings,
    PlanAnswer,
    PlanningInput,
    PlanRequest,
    RequestKind,
    SlotSettled,
)
from longshore.schemas.lifecycle import IN_FLIGHT
from longshore.schemas.orders import Order, OrderAnswer
from longshore.schemas.plans import Cause, CauseKind, Plan
from longshore.schemas.reconciliations import DriftFound, LastApplied
from longshore.schemas.registries import RegistrySnapshot
from longshore.workflows.ledger.machine import Ledger
from tests.simulation.presence import Presence

if TYPE_CHECKING:
    from tests.simulation.world import World

# Large enough for no commit to be held back: that is not what is tried here.
SETTINGS = FleetSettings(mass_unload_limit=100)

Answer = TypeVar("Answer")

Reply = Callable[[PlanAnswer], None]


# Who is asked for nothing here.
_NOBODY: Any = None


class _Git:
    """The registry, as the planning activities ask for it."""

    def __init__(self, commits: Mapping[str, RegistrySnapshot]) -> None:
        self._commits = commits

    async def snapshot(self, sha: str) -> RegistrySnapshot:
        return self._commits[sha]

    async def is_ancestor(self, older: str, newer: str) -> bool:
        order = list(self._commits)
        return order.index(older) <= order.index(newer)


class _Devices:
    """The devices' newest reports, as the planning activities ask for them."""

    def __init__(self, presences: Mapping[str, Presence]) -> None:
        self._presences = presences

    async def facts(self, workers: Iterable[str]) -> dict[str, DeviceFacts]:
        return {worker_id: DeviceFacts() for worker_id in workers}

    async def reports(self, workers: Iterable[str]) -> dict[str, DeviceReport]:
        found = {worker_id: self._presences[worker_id].report for worker_id in workers}
        return {worker_id: report for worker_id, report in found.items() if report is not None}


def at_once(asked: Coroutine[Any, Any, Answer]) -> Answer:
    """Return what an activity returns that has nothing to wait for, and plans beside no loop."""

    async def here(plan: Callable[..., Any], *args: object) -> Any:
        return plan(*args)

    with patch.object(planner, "asyncio", SimpleNamespace(to_thread=here)):
        try:
            asked.send(None)
        except StopIteration as ended:
            return cast("Answer", ended.value)
    raise AssertionError("a planning activity waits for something")


class FleetRun:
    """One run of the FleetWorkflow, from its start to its termination."""

    def __init__(self, world: World) -> None:
        self.ledger = Ledger(FleetInput(registry="ops", settings=SETTINGS))
        self.over = False
        self.away_until = 0.0
        """Until then no broker does anything for it."""
        self._world = world
        self._clock = world.clock
        self._queue: deque[tuple[PlanRequest, Reply, Callable[[], None]]] = deque()
        self._busy = False
        self._woken = float("inf")
        self._idle: dict[str, int] = {}
        self._seen = -1
        self._git = _Git(world.git)
        self._planner = Planner(self._git, _Devices(world.presences))
        self._clock.after(1, self._go_on)
        self._clock.after(30, self._watch)

    def end(self) -> None:
        """Be terminated: whoever waits for an answer asks the next run."""
        self.over = True
        self._clock.tell("fleet", "is terminated")
        for _, _, again in self._queue:
            self._clock.after(5, again)

    # What it is told

    def request(self, request: PlanRequest, reply: Reply, again: Callable[[], None]) -> None:
        self._queue.append((request, reply, again))
        self._go_on()

    def heard(self, record: DeviceRecord) -> None:
        self.ledger.heard(record, self._clock.now)
        self._go_on()

    def settled(self, event: SlotSettled) -> None:
        self.ledger.settled(event, self._clock.now)
        self._go_on()

    def order(self, order: Order) -> OrderAnswer:
        answer = self.ledger.ordered(order, self._clock.now)
        self._go_on()
        return answer

    # What it does: one thing after the other

    def _go_on(self) -> None:
        if self._busy or self.over:
            return
        if self._clock.seconds < self.away_until:
            self._wake(self.away_until)
            return
        for steered in self.ledger.steerings():
            self._clock.soon(self._world.steer, steered)
        if not self.ledger.state.rebuilt:
            self._busy = True
            self._clock.soon(self._rebuild, self._clock.seconds)
            return
        if self._queue:
            self._answer(*self._queue.popleft())
            return
        cause, again = self.ledger.due(self._clock.now)
        if cause is not None:
            self._reconcile(cause)
        elif again is not None:
            self._wake(self._clock.seconds_at(again))

    def _wake(self, at: float) -> None:
        """Look again at that time, unless something is planned to look before."""
        if self._woken <= self._clock.seconds or at < self._woken:
            self._woken = at
            self._clock.after(at - self._clock.seconds, self._awake, at)

    def _awake(self, at: float) -> None:
        if self._woken == at:
            self._woken = float("inf")
        self._go_on()

    def _rebuild(self, since: float) -> None:
        """Ask git and the devices; where something has run before, give those that are silent some time."""
        if self.over:
            return
        sha, generation = self._world.last_applied()
        workers = tuple(sorted(self._world.git[sha].workers)) if sha else ()
        records = {w: self._world.presences[w].record() for w in workers}
        old = generation > 0 or any(record.generation for record in records.values())
        missing = [w for w, record in records.items() if record.health is Health.UNKNOWN]
        if old and missing and self._clock.seconds < since + SETTINGS.rebuild_grace.total_seconds():
            self._clock.after(2, self._rebuild, since)
            return
        heard = [record for record in records.values() if record.health is not Health.UNKNOWN]
        last = LastApplied(sha=sha, generation=generation, workers=workers)
        self.ledger.rebuilt(heard, last, self._clock.now)
        self._clock.tell("fleet", f"begins: {len(heard)} devices heard, generation {self.ledger.state.generation}")
        self._busy = False
        self._go_on()

    def _answer(self, request: PlanRequest, reply: Reply, again: Callable[[], None]) -> None:
        recorded = self.ledger.recorded(request)
        if recorded is not None:
            self._clock.soon(reply, recorded)
            self._go_on()
            return
        self._busy = True
        for worker_id in self.ledger.unheard(request.workers):
            record = self._world.presences[worker_id].record()
            if record.health is not Health.UNKNOWN:
                self.ledger.heard(record, self._clock.now)
        grace = SETTINGS.first_report_grace.total_seconds() if self.ledger.unheard(request.workers) else 0.0
        self._clock.after(grace, self._begin, request, reply, again)

    def _begin(self, request: PlanRequest, reply: Reply, again: Callable[[], None]) -> None:
        if self.over:
            self._clock.after(5, again)
            return
        self.ledger.met(request.workers)
        asked = self.ledger.ask(request, self._clock.now)

        def planned() -> None:
            if self.over:
                self._clock.after(5, again)
                return
            answer = self._plan(asked)
            self._busy = False
            if answer is None:
                self._clock.after(1, again)
            else:
                self._clock.soon(reply, answer)
            self._go_on()

        self._clock.after(self._clock.chance.uniform(0.05, 1.5), planned)

    def _reconcile(self, cause: Cause) -> None:
        self._busy = True
        request = self.ledger.reconciliation(cause)
        asked = self.ledger.ask(request, self._clock.now)

        def planned() -> None:
            if self.over:
                return
            answer = self._plan(asked)
            self._busy = False
            if answer is not None and answer.plan is not None and answer.plan.moves:
                self._clock.soon(self._world.reconcile, answer.plan)
            self._go_on()

        self._clock.after(self._clock.chance.uniform(0.05, 1.5), planned)

    def _plan(self, asked: PlanningInput) -> PlanAnswer | None:
        """Make the plan, hold it against all that must hold, and take it over; None where an order was quicker."""
        answer = self._answered(asked)
        plan, request = answer.plan, asked.request
        try:
            self.ledger.planned(answer, self._clock.now)
        except LongshoreError as stale:
            self._clock.tell("fleet", str(stale))
            return None
        state = self.ledger.state
        if plan is not None:
            why = f"because {request.cause.words}" if request.cause else f"for {request.sha[:6]}"
            self._clock.tell("fleet", f"plans generation {plan.generation} {why}: {told(plan)}")
            self._world.take_note(plan, asked)
            self._world.record(state.applied_sha, state.generation)
        return answer

    def _answered(self, asked: PlanningInput) -> PlanAnswer:
        """Do what the activity `plan_commit` does."""
        activities = FleetActivities(self._git, _NOBODY, _NOBODY, self._planner)
        reconcile = asked.request.kind is RequestKind.RECONCILE
        return at_once(activities._reconcile(asked) if reconcile else activities._answer(asked))

    def look_at(self, asked: PlanningInput) -> Plan:
        """Plan a reconciliation that nobody carries out."""
        return at_once(self._planner.reconcile(asked))[0]

    # The safety net

    def _watch(self) -> None:
        """Do what the activity `watch_drift` does, every 30 s; with nothing changed since, only now and then."""
        if self.over:
            return
        if self._clock.seconds >= self.away_until and not self._world.calm:
            self.look()
        if not self._world.calm:
            self._clock.after(30, self._watch)

    def look(self) -> bool:
        """Look at everything once; return whether something is to be done."""
        view = self.ledger.view()
        if view.applied_sha is None or self._busy or not self.ledger.state.rebuilt:
            return self._busy
        under_way = {
            slot.deployment_id: slot.generation
            for slot in sorted(view.slots, key=lambda slot: slot.generation)
            if slot.state in IN_FLIGHT and not slot.replaced and not self._has_failed(slot.worker_id)
        }
        running = self._world.running()
        idle = {name: generation for name, generation in under_way.items() if _is_idle(name, generation, running)}
        orphaned = tuple(name for name, generation in idle.items() if self._idle.get(name) == generation)
        changed, self._idle, self._seen = idle != self._idle or view.version != self._seen, idle, view.version
        if orphaned:
            words = f"no rollout sees to what is under way of {', '.join(orphaned)}"
        elif changed or self._world.calm:
            plan = self.look_at(self.dry())
            if not plan.moves:
                return bool(idle)
            words = f"not as {view.applied_sha[:6]} wants it: {told(plan)}"
        else:
            return False
        cause = Cause(kind=CauseKind.DRIFT, words=words, deployments=orphaned)
        self._clock.tell("watch", words)
        self.ledger.found(DriftFound(cause=cause, orphaned=orphaned), self._clock.now)
        self._go_on()
        return True

    def dry(self) -> PlanningInput:
        """Return what a reconciliation would be planned upon now."""
        view = self.ledger.view()
        return PlanningInput(
            request=PlanRequest(request_id="", registry="ops", sha=view.applied_sha or "", kind=RequestKind.RECONCILE),
            applied_sha=view.applied_sha,
            generation=view.generation,
            devices=view.devices,
            slots=view.slots,
            cordons=view.cordons,
            holds=view.holds,
            failures=view.failures,
            now=self._clock.now,
            limits=SETTINGS.limits,
        )

    def _has_failed(self, worker_id: str) -> bool:
        record = self.ledger.state.devices.get(worker_id)
        return record is not None and record.health is Health.FAILED


def told(plan: Plan) -> str:
    """Return a plan in one line."""
    parts = []
    for one in plan.deployments:
        words = [
            f"{c.action} {c.worker_id}{' after ' + ', '.join(a.deployment_id for a in c.after) if c.after else ''}"
            f"{' anew' if c.recreate else ''} ({c.reason})"
            for c in one.commands
        ]
        words += [f"later {d.action} {d.worker_id} once {d.waits_for}" for d in one.deferred]
        words += [f"lost {w}" for w in one.lost]
        words += [f"{one.unplaced} without a place"] if one.unplaced else []
        parts.append(f"{one.deployment_id}: {', '.join(words) or 'nothing'}")
    parts += [f"adopts {slot.deployment_id} on {slot.worker_id}" for slot in plan.adopted]
    parts += [f"suspects pool {one.pool}" for one in plan.suspects]
    return "; ".join(parts) or "nothing"
