"""Whether a device is there, and what becomes of the commands on their way to it (DESIGN §3, "Retries")."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from longshore.schemas.commands import CommandResult
from longshore.schemas.failures import Failure
from tests.simulation.clock import Clock
from tests.simulation.journal import Errand, Work

# A command whose device is silent is delivered again after this (CommandIntervals.heartbeat_timeout).
HEARTBEAT_TIMEOUT = 30.0

# Seconds after which every change has been noticed: 120 until it has failed, a ping, and late messages.
UNNOTICED = 220.0

# The part of all deliveries that Temporal repeats, because it takes the first for lost.
_DELIVERED_TWICE = 0.03


class Line(ABC):
    """A host and its connection; what it does with a command is another's business."""

    def __init__(self, worker_id: str, clock: Clock, changed: Callable[[str], None]) -> None:
        """`changed` hears that something is worth a report."""
        self.worker_id = worker_id
        self.running = True
        self.linked = True
        self.frozen = False
        self.works: list[Work] = []
        """All attempts on the device, also those that wait for another of their deployment."""
        self.boots = 1
        self._clock = clock
        self._changed = changed
        self._mailbox: list[Errand] = []
        self._unanswered: list[Errand] = []
        self._asleep: list[tuple[Callable[..., None], tuple[object, ...]]] = []
        self._silent_since: float | None = None

    @property
    def reachable(self) -> bool:
        return self.running and self.linked and not self.frozen

    @property
    def dead(self) -> bool:
        """Tell whether it has been silent for so long that everybody knows."""
        return self._silent_since is not None and self._clock.seconds - self._silent_since >= UNNOTICED

    def crash(self) -> None:
        """Kill the daemon: what it was doing is gone, what serves is there again when it is back."""
        self.running = False
        self.works.clear()
        self._asleep.clear()
        self._break_off()
        self._silence()

    def boot(self) -> None:
        self.running, self.frozen = True, False
        self.boots += 1
        self._back()

    def cut(self) -> None:
        self.linked = False
        self._silence()

    def heal(self) -> None:
        self.linked = True
        self._back()

    def freeze(self) -> None:
        self.frozen = True
        self._silence()

    def thaw(self) -> None:
        """Go on where it stopped, as if no time had passed."""
        self.frozen = False
        asleep, self._asleep = self._asleep, []
        for happens, args in asleep:
            self._clock.after(self._clock.chance.uniform(0, 0.1), happens, *args)
        self._back()

    def deliver(self, errand: Errand) -> None:
        """Let the device pick it up, or leave it in its queue until the device is back."""
        if not errand.open:
            return
        if not self.reachable:
            self._mailbox.append(errand)
            return
        errand.attempt += 1
        if errand not in self._unanswered:
            self._unanswered.append(errand)
        if self._clock.chance.random() < _DELIVERED_TWICE:
            self._clock.after(self._clock.chance.uniform(0.1, 5), self.deliver, errand)
        self._execute(Work(errand, errand.attempt))

    def _silence(self) -> None:
        if self._silent_since is None:
            self._silent_since = self._clock.seconds
        self._clock.after(HEARTBEAT_TIMEOUT, self._time_out)

    def _time_out(self) -> None:
        """Take back what was picked up and is not heard of any more: whoever still works on it has lost its lease."""
        alive = {(work.errand, work.attempt) for work in self.works} if self.reachable else set()
        lost = [errand for errand in self._unanswered if (errand, errand.attempt) not in alive]
        for errand in lost:
            self._unanswered.remove(errand)
            errand.attempt += 1
            self._clock.soon(self.deliver, errand)

    def _back(self) -> None:
        if self.reachable:
            self._silent_since = None
            mailbox, self._mailbox = self._mailbox, []
            for errand in mailbox:
                self._clock.soon(self.deliver, errand)
            self._changed(self.worker_id)

    def _later(self, seconds: float, happens: Callable[..., None], *args: object) -> None:
        """Let something happen on this device: not while it is frozen."""

        def wake() -> None:
            if self.frozen:
                self._asleep.append((happens, args))
            elif self.running:
                happens(*args)

        self._clock.after(seconds, wake)

    def _answer(self, work: Work, outcome: CommandResult | Failure) -> None:
        """End a work. What cannot be told, or is told by an attempt that is none any more, is as if never said."""
        self._forget(work)
        errand = work.errand
        if self.reachable and work.attempt == errand.attempt and errand in self._unanswered:
            self._unanswered.remove(errand)
            self._clock.soon(self._answered, errand, outcome)
        self._changed(self.worker_id)

    @staticmethod
    def _answered(errand: Errand, outcome: CommandResult | Failure) -> None:
        if errand.open:
            errand.open = False
            errand.ended(outcome)

    @abstractmethod
    def _execute(self, work: Work) -> None:
        """Begin what has been picked up."""

    @abstractmethod
    def _forget(self, work: Work) -> None:
        """Drop what has ended."""

    @abstractmethod
    def _break_off(self) -> None:
        """Lose everything that is being worked on."""
