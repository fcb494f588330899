"""The ledger of one registry as a state machine: what is applied, what each device holds, what is to be looked at.

Pure: the FleetWorkflow drives it with its signals, its updates and its clock, the simulator with its own. All that it
knows stands in one FleetInput, so that what is carried over to the next run is all there is.

Plans are made one at a time, against the ledger as it then stands, so that no plan is stale (DESIGN §3): between `ask`
and `planned` (or `given_up`) what devices and rollouts say is held back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from longshore.schemas.devices import DeviceRecord
from longshore.schemas.failures import LongshoreError
from longshore.schemas.fleet import (
    FleetInput,
    FleetSettings,
    FleetView,
    PlanAnswer,
    PlanningInput,
    PlanOutcome,
    PlanRequest,
    RequestKind,
    SlotSettled,
    Steered,
)
from longshore.schemas.held import (
    VERBS,
    Acceptance,
    Accepted,
    HeldBack,
    accept,
    hold,
    named,
    started,
)
from longshore.schemas.ledger import recent_failures, stamp
from longshore.schemas.orders import Order, OrderAnswer
from longshore.schemas.plans import Cause, CauseKind, Plan
from longshore.schemas.reconciliations import DriftFound, LastApplied
from longshore.workflows.ledger import causes, decided, hearing, orders

# Update ids are forgotten at continue-as-new, so the ledger carries its answers: as many as fit.
ANSWERS_KEPT = 200

_TOO_MUCH = PlanOutcome.MASS_UNLOAD_BLOCKED.code or ""

# A rebuilt ledger counts on from the seconds since then: plans are made more slowly, so that is above all generations
# that were given out, also by a ledger that was lost before anybody told of its plans.
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

# Where something is known that is above even that (the server's clock is wrong), it counts on from there plus this: an
# absent device may have seen more, and a rollout that waits for it may hold more.
REBUILD_LEAP = 1000

# What a change of is news for who reads the ledger.
_TOLD = (frozenset(FleetView.model_fields) & frozenset(FleetInput.model_fields) | {"answers", "held"}) - {"version"}


@dataclass(frozen=True)
class _Asked:
    """The plan under way."""

    request: PlanRequest
    at: datetime
    causes: tuple[Cause, ...]
    orphaned: tuple[str, ...]


class Ledger:
    def __init__(self, start: FleetInput) -> None:
        # A ledger that an older release carried over does not say so, and is no new one.
        self._state = start.model_copy(update={"rebuilt": start.rebuilt or start.applied_sha is not None})
        self._asked: _Asked | None = None
        self._meanwhile: list[Callable[[], None]] = []

    @property
    def state(self) -> FleetInput:
        """All that is known, to be read."""
        return self._state

    @property
    def planning(self) -> bool:
        return self._asked is not None

    def configure(self, settings: FleetSettings) -> bool:
        """Take over settings; return whether they are others."""
        changed = settings != self._state.settings
        self._update(settings=settings)
        return changed

    def watched(self, sha: str) -> None:
        """Remember the head that the watch has seen."""
        self._update(watched_sha=sha)

    def heard(self, record: DeviceRecord, now: datetime) -> None:
        """Take over what a device says."""
        if not self._puts_off(partial(self.heard, record, now)):
            self._become(hearing.heard(self._state, record, now))

    def settled(self, event: SlotSettled, now: datetime) -> None:
        """Take over how a command has ended."""
        if not self._puts_off(partial(self.settled, event, now)):
            self._become(hearing.settled(self._state, event, now))

    def ordered(self, order: Order, now: datetime) -> OrderAnswer:
        """Carry out an operator's order, also while a plan is made: that is looked at again.

        Raises LongshoreError WORKER_UNKNOWN, DEPLOYMENT_UNKNOWN.
        """
        ordered = orders.carry_out(order, self._state, self.plan)
        self._become(causes.note(self._state.model_copy(update=ordered.changes), ordered.cause, now))
        return ordered.answer

    def found(self, drift: DriftFound, now: datetime) -> None:
        """Note what a look at all devices and rollouts has found."""
        if self._puts_off(partial(self.found, drift, now)):
            return
        orphaned = tuple(sorted({*self._state.orphaned, *drift.orphaned}))
        self._become(causes.note(self._state.model_copy(update={"orphaned": orphaned}), drift.cause, now))

    def rebuilt(self, heard: Iterable[DeviceRecord], last: LastApplied, now: datetime) -> None:
        """Begin with what the devices and git say, once, in a run that was not continued (FAULTS 57, 70).

        Where nothing has ever run, there is nothing to rebuild, and git's word on what was applied is not taken.
        """
        for record in heard:
            self._become(hearing.heard(self._state, record, now))
        known = max(self._state.generation, last.generation)
        self._update(rebuilt=True)
        if known == 0:
            return
        self._update(applied_sha=self._state.applied_sha or last.sha, generation=leap(known, now))
        words = f"the ledger was lost, and is made anew from git and {len(self._state.devices)} devices"
        self._become(causes.note(self._state, Cause(kind=CauseKind.REBUILD, words=words), now))

    def unheard(self, workers: Iterable[str]) -> tuple[str, ...]:
        """Return which of these devices the ledger has never met."""
        return tuple(worker_id for worker_id in workers if worker_id not in self._state.devices)

    def met(self, workers: Iterable[str]) -> None:
        """Count devices as known, though they have said nothing: no plan waits for them again."""
        self._update(
            devices={name: DeviceRecord(worker_id=name) for name in self.unheard(workers)} | self._state.devices
        )

    def reconciliation(self, cause: Cause) -> PlanRequest:
        """Return the request that plans the applied commit anew."""
        state, plan = self._state, self.plan
        return PlanRequest(
            request_id=f"reconcile:{state.registry}:{state.generation + 1}",
            registry=state.registry,
            sha=state.applied_sha or "",
            workers=plan.workers if plan else tuple(sorted(state.devices)),
            kind=RequestKind.RECONCILE,
            cause=cause,
        )

    def ask(self, request: PlanRequest, now: datetime) -> PlanningInput:
        """Return what the plan is to be made upon. Until it is there, what is said is held back."""
        self._become(hearing.resolved(self._state, now))
        state = self._state
        # A commit's plan mends all of it, but only a reconciliation tells of a device that has failed.
        commit = request.kind is RequestKind.COMMIT
        kept = tuple(cause for cause in state.causes if commit and cause.kind is CauseKind.WORKER_FAILED)
        used_up = tuple(cause for cause in state.causes if cause not in kept)
        self._asked = _Asked(request, now, used_up, state.orphaned)
        self._update(causes=kept, causes_since=state.causes_since if kept else None, orphaned=())
        return PlanningInput(
            request=request,
            applied_sha=state.applied_sha,
            generation=state.generation,
            devices=state.devices,
            slots=state.slots,
            held=state.held,
            mass_unload_limit=state.settings.mass_unload_limit,
            cordons=state.cordons,
            holds=state.holds,
            failures=recent_failures(state.failures, now),
            now=now,
            orphaned=state.orphaned,
            limits=state.settings.limits,
        )

    def planned(self, answer: PlanAnswer, now: datetime) -> None:
        """Take over the answer that was asked for.

        Raises LongshoreError PLAN_STALE where an order has changed the ledger meanwhile: whoever has asked asks anew.
        """
        asked = self._asked
        if asked is None or asked.request.request_id != answer.request_id:
            raise LongshoreError("PLAN_STALE", f"nobody waits for the plan of {answer.request_id}")
        commit = asked.request.kind is RequestKind.COMMIT
        plan = answer.plan
        if plan is None:
            if commit and answer.outcome.code in VERBS:
                self._update(held=hold(self._state.held, _held_back(answer, now)))
        elif plan.stamp not in ("", known := self._stamp()):
            self.given_up(again=now)
            words = f"{answer.request_id} was planned for the ledger {plan.stamp}, which is {known} by now"
            raise LongshoreError("PLAN_STALE", words)
        elif commit:
            self._become(decided.by_commit(self._state, answer, plan, asked.at))
        else:
            self._become(decided.by_reconciliation(self._state, plan, asked.at))
            if answer.reason:  # what it has left undone waits for somebody's word, like a commit
                left_undone = HeldBack(sha=answer.sha, code=_TOO_MUCH, reason=answer.reason, run_id="", since=now)
                self._update(held=hold(self._state.held, left_undone))
        if commit:
            self._update(answers=(*self._state.answers, answer)[-ANSWERS_KEPT:])
        if plan is None:
            self.given_up()
        else:
            self._go_on()

    def given_up(self, again: datetime | None = None) -> None:
        """Go on without the plan that was asked for: what it was to mend is still to be mended.

        A reconciliation that cannot be planned is tried `again` then, else after a while, or when there is news.
        """
        asked = self._asked
        if asked is not None:
            self._update(orphaned=tuple(sorted({*asked.orphaned, *self._state.orphaned})))
            if again is None and asked.request.kind is RequestKind.RECONCILE:
                again = asked.at + self._state.settings.reconcile_interval
            for cause in asked.causes:
                self._become(causes.note(self._state, cause, again or asked.at))
        self._go_on()

    def due(self, now: datetime) -> tuple[Cause | None, datetime | None]:
        """Return why to reconcile now, if at all, and when to ask again if nothing happens until then.

        While a plan is made, and before anything was applied, nothing is due.
        """
        if self._asked is not None:
            return None, None
        self._become(hearing.resolved(self._state, now))
        later: list[datetime] = [doubt.since + self._state.settings.doubt_grace for doubt in self._state.doubts]
        if self._state.applied_sha is not None:
            for at, slot in hearing.retries(self._state):
                if at > now:
                    later.append(at)
                elif self._state.looked_at is None or at > self._state.looked_at:
                    self._become(causes.note(self._state, causes.of_retry(slot), at))
            since = self._state.causes_since
            if since is not None:
                at = since + self._state.settings.reconcile_pause
                if at <= now:
                    return causes.merged(self._state.causes), None
                later.append(at)
        return None, min(later, default=None)

    def recorded(self, request: PlanRequest) -> PlanAnswer | None:
        """Return the answer to a request that was answered before, or asks for what is applied."""
        if request.kind is not RequestKind.COMMIT:
            return None
        answers = self._state.answers
        answer = next((a for a in reversed(answers) if a.request_id == request.request_id), None)
        if answer is None and request.sha == self._state.applied_sha:
            answer = self._applied_answer()
        return answer and answer.model_copy(update={"request_id": request.request_id})

    def let_through(self, acceptance: Acceptance) -> Accepted | None:
        """Return who accepted the applied commit, where that is what is asked for."""
        applied = self._applied_answer()
        for accepted in applied.accepted if applied else ():
            if acceptance.sha and accepted.sha.startswith(acceptance.sha) and accepted.code == acceptance.code:
                return accepted
        return None

    def accepted(self, acceptance: Acceptance, now: datetime) -> Accepted:
        """Let a commit through that is held back. Raises LongshoreError COMMIT_NOT_HELD, REF_AMBIGUOUS."""
        if accepted := self.let_through(acceptance):
            return accepted
        meant = named(self._state.held, acceptance)
        word = Accepted(sha=meant.sha, code=meant.code, by=acceptance.by.strip(), at=now)
        self._update(held=accept(self._state.held, word))
        return named(self._state.held, acceptance).accepted or word

    def started_again(self, held: HeldBack) -> None:
        """Note that the workflow of an accepted commit has been started again."""
        self._update(held=started(self._state.held, held))

    def steerings(self) -> tuple[Steered, ...]:
        """Return, once, what is to be said to running rollouts."""
        told = self._state.steerings
        self._update(steerings=())
        return told

    @property
    def plan(self) -> Plan | None:
        """The plan of the applied commit."""
        applied = self._applied_answer()
        return applied.plan if applied else self._state.plan

    @property
    def rebuilding(self) -> bool:
        """Whether it is new, and no plan has taken in yet what was found to run when it began."""
        if not self._state.rebuilt and self._state.applied_sha is None:
            return True
        pending = (*self._state.causes, *(self._asked.causes if self._asked is not None else ()))
        return any(cause.kind is CauseKind.REBUILD for cause in pending)

    def view(self) -> FleetView:
        state, plan = self._state, self.plan
        # A device that left git is not of the fleet.
        left = state.devices.keys() - plan.workers if plan else frozenset()
        return FleetView(
            registry=state.registry,
            applied_sha=state.applied_sha,
            generation=state.generation,
            devices={name: record for name, record in state.devices.items() if name not in left},
            slots=state.slots,
            plan=plan,
            held_back=state.held,
            cordons=state.cordons,
            holds=state.holds,
            failures=state.failures,
            open=state.open,
            rebuilding=self.rebuilding,
            version=state.version,
            settings=state.settings,
        )

    def carried_over(self, limit: int | None = None) -> FleetInput:
        """Return what the next run starts with, its oldest answers left out where its JSON exceeds `limit` bytes.

        Between two plans this is all there is.
        """
        if limit is None:
            return self._state
        room = limit - len(self._state.model_copy(update={"answers": ()}).model_dump_json())
        return self._state.model_copy(update={"answers": _newest_within(self._state.answers, room)})

    def _go_on(self) -> None:
        self._asked = None
        meanwhile, self._meanwhile = self._meanwhile, []
        for said in meanwhile:
            said()

    def _puts_off(self, said: Callable[[], None]) -> bool:
        if self._asked is not None:
            self._meanwhile.append(said)
        return self._asked is not None

    def _applied_answer(self) -> PlanAnswer | None:
        state = self._state
        planned = (a for a in reversed(state.answers) if a.plan is not None and a.sha == state.applied_sha)
        return next(planned, None)

    def _stamp(self) -> str:
        state = self._state
        return stamp(state.applied_sha, state.generation, state.slots, state.cordons, state.holds)

    def _update(self, **changes: Any) -> None:
        self._become(self._state.model_copy(update=changes))

    def _become(self, state: FleetInput) -> None:
        before, self._state = self._state, state
        if any(getattr(before, name) != getattr(state, name) for name in _TOLD):
            self._state = state.model_copy(update={"version": before.version + 1})


def leap(known: int, now: datetime) -> int:
    """Return a generation above all that may have been given out since `known`, by one lost ledger after the other."""
    since = int((now - _EPOCH).total_seconds())
    return since if since > known else known + REBUILD_LEAP


def _held_back(answer: PlanAnswer, now: datetime) -> HeldBack:
    code = answer.outcome.code or ""
    return HeldBack(sha=answer.sha, code=code, reason=answer.reason, run_id=answer.request_id, since=now)


def _newest_within(answers: tuple[PlanAnswer, ...], limit: int) -> tuple[PlanAnswer, ...]:
    """Return the newest answers, oldest first, whose JSON together stays within `limit` bytes."""
    kept: list[PlanAnswer] = []
    for answer in reversed(answers):
        limit -= len(answer.model_dump_json())
        if limit < 0:
            break
        kept.append(answer)
    return tuple(reversed(kept))
