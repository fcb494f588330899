"""Whatever happens, and in whatever order: nothing is lost, no generation falls, no room is given away twice."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from ledger_book import (
    DIGEST,
    FAILED,
    GRACE,
    IDLE,
    LOADING,
    NOW,
    OLD,
    READY,
    RELOADING,
    UNLOADING,
    answer,
    commit,
    deployment,
    ledger,
    reconciled,
    settled,
    slot,
    standing,
    told,
)

from longshore.schemas.commands import Action
from longshore.schemas.devices import DeviceRecord, Health
from longshore.schemas.failures import LongshoreError
from longshore.schemas.fleet import (
    FleetInput,
    SlotSettled,
)
from longshore.schemas.orders import Order
from longshore.schemas.plans import (
    PlannedCommand,
)
from longshore.workflows.ledger.machine import Ledger

EVENTS = st.one_of(
    st.builds(
        told,
        st.sampled_from([READY, FAILED, LOADING, IDLE, None]),
        st.integers(3, 7),
        st.sampled_from([DIGEST, OLD, ""]),
        st.sampled_from([None, "RUNNER_OOM", "LOAD_TIMEOUT"]),
        worker_id=st.sampled_from("wx"),
        seen=st.integers(3, 7),
        health=st.sampled_from(Health),
    ),
    st.builds(
        settled,
        st.sampled_from([READY, FAILED, IDLE]),
        st.sampled_from("wx"),
        st.integers(3, 7),
        code=st.sampled_from([None, "RUNNER_OOM", "LOAD_TIMEOUT"]),
    ),
    st.builds(
        Order,
        kind=st.sampled_from(["cordon", "drain", "uncordon", "pause", "resume", "abort", "release", "reconcile"]),
        target=st.sampled_from("wm"),
    ),
    st.just("plan"),
)


def happen(book: Ledger, event: object, now: datetime) -> object:
    """Let one thing happen, and return what the driver sees of it."""
    seen: object = None
    match event:
        case DeviceRecord():
            book.heard(event, now)
        case SlotSettled():
            book.settled(event, now)
        case Order():
            try:
                seen = book.ordered(event, now)
            except LongshoreError as error:
                seen = error.code
        case _:
            command = PlannedCommand(action=Action.LOAD, worker_id="w", reason="most free memory")
            seen = reconciled(book, now, deployment(command, generation=book.state.generation + 1, unplaced=1))
    return seen, book.due(now), book.view(), book.steerings()


STARTS = st.lists(st.sampled_from([READY, FAILED, LOADING, RELOADING, UNLOADING]), min_size=2, max_size=2)
STORIES = st.lists(st.tuples(EVENTS, st.sampled_from([0, 1, 5, 40])), max_size=12)


@settings(max_examples=150, deadline=None)
@given(STARTS, STORIES)
def test_nothing_is_lost_between_two_runs(states, story):
    """A ledger that is carried over before each event, as JSON, behaves like the one that was not."""
    one = ledger(*(slot(state, name) for state, name in zip(states, "wx", strict=True)))
    now, other = NOW, one.state
    for event, pause in story:
        now += timedelta(seconds=pause)
        again = Ledger(FleetInput.model_validate_json(other.model_dump_json()))
        assert happen(one, event, now) == happen(again, event, now)
        other = again.carried_over()
        assert other == one.carried_over()


class Letters(RuleBasedStateMachine):
    """One device that carries out LOADs and UNLOADs by their generation, and all that is said of it.

    Commands of superseded rollouts may still reach it. Letters come late, twice and in any order; the device's own
    records in the order in which it says them, some twice. All are there within the grace of a doubt.
    """

    def __init__(self) -> None:
        super().__init__()
        self.book, self.now = ledger(generation=0), NOW
        self.seen, self.holds, self.highest = 0, False, 0
        self.commands: list[tuple[int, bool]] = []
        self.letters: list[SlotSettled] = []
        self.records: list[DeviceRecord] = []

    @rule()
    def plan(self):
        there = standing(self.book)
        load = there is None or there.state is UNLOADING
        generation = self.book.state.generation + 1
        command = PlannedCommand(action=Action.LOAD if load else Action.UNLOAD, worker_id="w", reason="as wanted")
        request = commit(request_id=str(generation))
        self.book.ask(request, self.now)
        wanted = deployment(command, generation=generation)
        self.book.planned(answer(request, wanted, generation=generation), self.now)
        self.commands.append((generation, load))

    @precondition(lambda self: self.commands)
    @rule(data=st.data())
    def obey(self, data):
        self.carry_out(*data.draw(st.sampled_from(self.commands)))

    def carry_out(self, generation: int, load: bool):  # noqa: FBT001 (a pair, as it is kept)
        if generation >= self.seen:
            self.seen, self.holds = generation, load
            self.records.append(told(READY, generation, seen=generation) if load else told(seen=generation))
            end = {"state": READY, "digest": DIGEST} if load else {"state": IDLE}
            self.letters.append(settled(generation=generation, **end))

    @precondition(lambda self: self.letters)
    @rule(data=st.data())
    def deliver(self, data):
        self.book.settled(data.draw(st.sampled_from(self.letters)), self.now)

    @precondition(lambda self: self.records)
    @rule(again=st.booleans())
    def report(self, again):
        self.book.heard(self.records[0] if again else self.records.pop(0), self.now)

    @rule()
    def wait(self):
        self.now += timedelta(milliseconds=100)
        self.book.due(self.now)

    @invariant()
    def generations_never_fall(self):
        there = standing(self.book)
        known = max(self.book.state.generation, there.generation if there else 0)
        assert known >= self.highest == max(self.highest, self.seen)
        self.highest = known

    @invariant()
    def room_is_kept_while_the_device_may_need_it(self):
        may_load = any(load and generation >= self.seen for generation, load in self.commands)
        assert standing(self.book) is not None or not (self.holds or may_load)

    def teardown(self):
        """In the end everything arrives, and ledger and device agree."""
        for command in sorted(self.commands):
            self.carry_out(*command)
        for record in self.records:
            self.book.heard(record, self.now)
        self.book.due(self.now + GRACE)
        there = standing(self.book)
        assert (there is not None and there.state is READY) == self.holds
        assert there is None or there.state is READY


TestLetters = Letters.TestCase
TestLetters.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
