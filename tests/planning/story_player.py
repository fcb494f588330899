"""The fleet of a story: the real planner and the real ledger, asked and answered as the fleet's workflow does it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from fleets import NOW, Wanted, registry, worker
from story_devices import Devices

from longshore.planning.adoption import adopt
from longshore.planning.check import check
from longshore.planning.guard import mass_unload
from longshore.planning.plan import consider
from longshore.planning.render import render
from longshore.schemas.devices import DeviceFacts
from longshore.schemas.fleet import (
    FleetInput,
    FleetSettings,
    PlanAnswer,
    PlanLimits,
    PlanningInput,
    PlanOutcome,
    PlanRequest,
    RequestKind,
)
from longshore.schemas.held import Acceptance
from longshore.schemas.lifecycle import IN_FLIGHT, ModelState
from longshore.schemas.orders import Order
from longshore.schemas.plans import Cause, CauseKind, Plan
from longshore.schemas.reconciliations import DriftFound, LastApplied
from longshore.schemas.registries import RegistrySnapshot
from longshore.schemas.slots import Slot
from longshore.schemas.workers import EvictionPolicy, WorkerConfig
from longshore.workflows.ledger.machine import Ledger

# So long the fleet waits for more news before it plans.
_PAUSE = FleetSettings().reconcile_pause

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours"}


class Player:
    """Plays the events of one story; tests/scenarios/README.md says what there is."""

    def __init__(self, story: Mapping[str, Any]) -> None:
        limits = dict(story.get("limits", {}))
        mass = limits.pop("mass_unload_limit", FleetSettings().mass_unload_limit)
        self._settings = FleetSettings(limits=PlanLimits(**limits), mass_unload_limit=mass)
        self._facts = {
            worker_id: DeviceFacts(last_inference={name: _moment(at) for name, at in models.items()})
            for worker_id, models in story.get("last_asked", {}).items()
        }
        self._now = NOW
        self._ledger = Ledger(FleetInput(registry="registry", settings=self._settings, rebuilt=True))
        self._devices = Devices()
        self._workers: dict[str, dict[str, Any]] = {}
        self._wanted: dict[str, dict[str, Any]] = {}
        self._commits: dict[str, RegistrySnapshot] = {}
        self._plan: Plan | None = None
        """The newest one."""
        self._configure(story["workers"])

    def play(self, event: Mapping[str, Any]) -> dict[str, str]:
        """Let one event happen; return what is said to it and the text of the plan that follows, where there are."""
        self._now += _duration(event.get("after", "0s"))
        told = self._happen(event)
        if "push" in event:
            self._push(event)
            text: str | None = self._commit()
        elif "accepted_by" in event:
            word = Acceptance(sha=self._head, code="MASS_UNLOAD_BLOCKED", by=event["accepted_by"])
            self._ledger.accepted(word, self._now)
            text = self._commit()
        else:
            text = self._look()
        if text is not None:
            told["plan"] = text
            self._assert_it_ends()
            self._answer(event.get("answers", "all"))
        return told

    def is_at_rest(self) -> bool:
        """Tell whether nothing more happens by itself, but for what waits for its time."""
        while self._look() is not None:
            if self._plan is not None and self._plan.moves:
                return False
        return True

    def _happen(self, event: Mapping[str, Any]) -> dict[str, str]:
        told = {}
        for worker_id, word in event.get("health", {}).items():
            self._devices.say(worker_id, word)
            self._hear(worker_id)
        for worker_id, models in event.get("reports", {}).items():
            for name, word in models.items():
                version = word.removeprefix("ready ")
                self._devices.find(worker_id, self._wants(name, version), word)
            self._hear(worker_id)
        if "order" in event:
            (kind, target), *said = event["order"].items()
            told["said"] = self._ledger.ordered(Order(kind=kind, target=target or "", **dict(said)), self._now).words
        if "answered" in event:
            self._answer(event["answered"])
        if "unattended" in event:
            names = tuple(event["unattended"])
            cause = Cause(kind=CauseKind.DRIFT, words=f"nobody sees to {', '.join(names)}", deployments=names)
            self._ledger.found(DriftFound(cause=cause, orphaned=names), self._now)
        if "ledger_lost" in event:
            self._lose(event["ledger_lost"].get("heard", list(self._workers)))
        return told

    def _hear(self, worker_id: str) -> None:
        self._ledger.heard(self._devices.record(worker_id), self._now)

    # What git says.

    @property
    def _head(self) -> str:
        return list(self._commits)[-1]

    def _push(self, event: Mapping[str, Any]) -> None:
        self._configure(event.get("workers", {}))
        if "wanted" in event:
            self._wanted = {name: dict(facts) for name, facts in event["wanted"].items()}
        for name, facts in event.get("changed", {}).items():
            if facts is None:
                del self._wanted[name]
            else:
                self._wanted[name] = {**self._wanted.get(name, {}), **facts}
        workers = [_worker(name, facts) for name, facts in self._workers.items()]
        sha = f"{len(self._commits) + 1:040x}"[::-1]
        wanted = (Wanted(name, **facts) for name, facts in self._wanted.items())
        self._commits[sha] = registry(workers, *wanted, sha=sha)

    def _configure(self, workers: Mapping[str, Mapping[str, Any] | None]) -> None:
        for worker_id, facts in workers.items():
            known = self._workers.pop(worker_id, None)
            if facts is None and known is not None:
                continue
            word, labels = "unknown" if known else "healthy", dict(facts or {})
            word = labels.pop("health", word)
            self._workers[worker_id] = {**(known or {}), **labels}
            if word != "unknown":
                self._devices.say(worker_id, word)
                self._hear(worker_id)

    def _wants(self, name: str, version: str) -> Wanted:
        return Wanted(name, **{**self._wanted.get(name, {}), "version": version})

    # What the fleet does.

    def _commit(self) -> str:
        # Each run of a commit asks by its own id.
        run = f"{self._head} at {self._now}"
        workers = tuple(sorted(self._workers))
        return self._planned(PlanRequest(request_id=run, registry="registry", sha=self._head, workers=workers))

    def _look(self) -> str | None:
        """Plan anew where the ledger has a reason to, now or within the next second."""
        self._now += _PAUSE
        cause, later = self._ledger.due(self._now)
        if cause is None and later is not None and later <= self._now + _PAUSE:
            self._now = later
            cause, _ = self._ledger.due(self._now)
        return self._planned(self._ledger.reconciliation(cause)) if cause is not None else None

    def _planned(self, request: PlanRequest) -> str:
        """Ask, plan and decide as the fleet and its planning activity do; return the plan as an operator reads it."""
        asked, desired = self._ledger.ask(request, self._now), self._commits[request.sha]
        adopted = adopt(asked.slots, asked.devices, self._devices.reports(), desired)
        plan, wondered = consider(asked, desired, adopted)
        if wondered:
            facts = {name: self._facts.get(name, DeviceFacts()) for name in wondered}
            asked = asked.model_copy(update={"facts": facts})
            plan = consider(asked, desired, adopted).plan
        assert check(plan, asked, desired) == []
        too_much = self._too_much(asked, plan)
        self._ledger.planned(_answer(asked, plan, too_much), self._now)
        self._plan = None if too_much else plan
        return f"held back: it {too_much}\n" if too_much else render(plan)

    def _too_much(self, asked: PlanningInput, plan: Plan) -> str | None:
        if asked.request.kind is RequestKind.RECONCILE or any(one.accepted for one in asked.held):
            return None
        return mass_unload((*asked.slots, *plan.adopted), plan, asked.mass_unload_limit)

    def _lose(self, heard: list[str]) -> None:
        """Begin with an empty ledger, as a FleetWorkflow does whose history is gone."""
        last = LastApplied(sha=self._head, generation=self._ledger.state.generation)
        self._ledger = Ledger(FleetInput(registry="registry", settings=self._settings))
        self._ledger.rebuilt([self._devices.record(worker_id) for worker_id in heard], last, self._now)
        self._ledger.met(self._workers)

    # What the devices do.

    def _under_way(self) -> list[Slot]:
        """Return what is under way, what leaves first; a device that is silent does nothing."""
        slots = [slot for slot in self._ledger.state.slots if slot.state in IN_FLIGHT]
        slots = [slot for slot in slots if not self._devices.is_silent(slot.worker_id)]
        return sorted(slots, key=lambda slot: slot.state is not ModelState.UNLOADING)

    def _answer(self, answers: str | Mapping[str, str]) -> None:
        """Let the devices end what is under way: well, but for the failure codes and words of `answers`."""
        words = answers if isinstance(answers, Mapping) else {}
        for slot in self._under_way() if answers != "none" else ():
            word = words.get(f"{slot.deployment_id} on {slot.worker_id}", words.get(slot.worker_id))
            if word == "none":
                continue
            there = (one.deployment_id for one in self._ledger.state.slots if one.worker_id == slot.worker_id)
            self._ledger.settled(self._devices.end(slot, word, frozenset(there)), self._now)
            self._hear(slot.worker_id)

    def _assert_it_ends(self) -> None:
        """Carry the plan out and plan again: then only that is commanded for which something was to be waited."""
        if self._plan is None or self._ledger.state.causes:  # held back, or at its limit of commands
            return
        other = copy.deepcopy(self)
        for _ in range(4):
            planned = {deployment.deployment_id for deployment in other._plan.deployments} if other._plan else set()
            waits = {slot.deployment_id for slot in other._under_way()} - planned
            waits |= other._ledger.state.open.keys()
            other._answer("all")
            other._ledger.ordered(Order(kind="reconcile"), other._now)
            again = other._look()
            commanded = {slot.deployment_id for slot in other._under_way()}
            assert commanded <= waits, again
            if not commanded:
                return
        raise AssertionError("planned again and again, there is always something to do")


def _answer(asked: PlanningInput, plan: Plan, too_much: str | None) -> PlanAnswer:
    return PlanAnswer(
        request_id=asked.request.request_id,
        sha=asked.request.sha,
        outcome=PlanOutcome.MASS_UNLOAD_BLOCKED if too_much else PlanOutcome.PLANNED,
        applied_sha=asked.applied_sha if too_much else asked.request.sha,
        plan=None if too_much else plan,
        reason=too_much or "",
    )


def _worker(worker_id: str, facts: Mapping[str, Any]) -> WorkerConfig:
    others = {name: fact for name, fact in facts.items() if name != "eviction"}
    policy = EvictionPolicy(**facts.get("eviction", {}))
    return worker(worker_id, **others).model_copy(update={"eviction_policy": policy})


def _duration(text: str) -> timedelta:
    return timedelta(**{_UNITS[text[-1]]: int(text[:-1])})


def _moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
