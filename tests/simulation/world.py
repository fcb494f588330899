"""One seed played: git, the fleet, the rollouts, the devices and the messages between them, on virtual time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from random import Random

from longshore.planning.circumstances import word_to
from longshore.planning.outdated import outdated
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.devices import DeviceRecord
from longshore.schemas.fleet import FleetView, PlanAnswer, PlanningInput, PlanOutcome, PlanRequest, SlotSettled, Steered
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.plans import Plan, PlannedCommand
from longshore.schemas.registries import RegistrySnapshot
from longshore.schemas.rollouts import RolloutAnswer, RolloutTarget
from longshore.workflows import conventions
from longshore.workflows.reconciliations import _AFTER_LOSSES
from tests.simulation import invariants
from tests.simulation.actors import Actor
from tests.simulation.clock import Clock
from tests.simulation.devices import Device
from tests.simulation.faults import Faults
from tests.simulation.fleet import FleetRun, told
from tests.simulation.journal import Errand, Rules
from tests.simulation.mutations import Mutations
from tests.simulation.presence import LATEST_NEWS, Presence
from tests.simulation.schedule import HORIZON, Push, Schedule, schedule_of

REGISTRY = "ops"

# Seconds of virtual time: whoever is not at rest by then never will be.
_LONGEST = 200_000.0

# Looks at everything, half an hour apart, that find nothing: then it is at rest.
_LOOKS_AT_REST = 2


@dataclass
class Asker:
    """A commit's or a reconciliation's workflow, as far as answers go."""

    workflow_id: str
    sha: str
    plan: Plan | None = None
    outcome: PlanOutcome | None = None
    answers: dict[str, RolloutAnswer] = field(default_factory=dict)
    times: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How often each deployment's target was answered, by generation; heirs may answer too, and the first counts."""

    @property
    def done(self) -> bool:
        if self.outcome is None:
            return False
        return self.plan is None or {d.deployment_id for d in self.plan.deployments} <= self.answers.keys()


class World:
    def __init__(self, schedule: Schedule, mutations: Mutations) -> None:
        self.schedule = schedule
        self.clock = Clock(Random(f"{schedule.seed}: how long everything takes"))
        self.mutations = mutations
        self.git: dict[str, RegistrySnapshot] = {}
        """By commit, the oldest first."""
        self.recorded: tuple[str | None, int] = (None, 0)
        """What the recorder has written: the applied commit, and its generation."""
        self.askers: dict[str, Asker] = {}
        self.actors: dict[str, Actor] = {}
        self.planned: set[tuple[object, ...]] = set()
        self.issued: set[tuple[object, ...]] = set()
        self.forgiven = False
        """Whether the ledger or a device has lost its memory: then a device may refuse what does not fit."""
        self.told_twice: set[tuple[str, str]] = set()
        """Workflow ids and deployments whose target was delivered twice."""
        self.calm = False
        """Whether the faults are over."""
        self.losing_until = 0.0
        rules = Rules(generations=not mutations.no_fencing, leases=not mutations.no_fencing)
        self.devices = {w: Device(one, self.clock, self.changed, rules) for w, one in schedule.workers.items()}
        self.presences = {w: Presence(one, self.clock, partial(self._tell_fleet, w)) for w, one in self.devices.items()}
        for device in self.devices.values():
            device.bad = self._bad
        self.fleet: FleetRun | None = FleetRun(self)

    # What the schedule does

    def begin(self) -> None:
        faults = Faults(self)
        for push in self.schedule.pushes:
            self.clock.after(push.at, self._push, push)
        for fault in self.schedule.faults:
            self.clock.after(fault.at, faults.happen, fault)
        for worker_id in self.devices:
            self.clock.after(self.clock.chance.uniform(0, 3), self.changed, worker_id)
        self.clock.after(HORIZON + 400, self._calm)

    def _push(self, push: Push) -> None:
        sha = push.snapshot.sha
        self.git[sha] = push.snapshot
        self.clock.tell("git", f"{sha[:6]} is pushed: {_wishes(push.snapshot)}")
        self.clock.soon(self._start_commit, sha)

    def _start_commit(self, sha: str) -> None:
        workflow_id = conventions.commit_workflow_id(REGISTRY, sha)
        if workflow_id in self.askers:  # once is enough
            return
        asker = self.askers[workflow_id] = Asker(workflow_id, sha)
        request = PlanRequest(
            request_id=f"run-of-{sha[:6]}",
            registry=REGISTRY,
            sha=sha,
            workers=tuple(sorted(self.git[sha].workers)),
        )
        self._ask(asker, request)

    def _ask(self, asker: Asker, request: PlanRequest) -> None:
        """Ask the fleet until it answers: the broker's activity is repeated."""
        if self.fleet is None:
            self.clock.after(5, self._ask, asker, request)
            return
        self.fleet.request(request, partial(self._planned, asker), partial(self._ask, asker, request))

    def _planned(self, asker: Asker, answer: PlanAnswer) -> None:
        if asker.outcome is not None or self.askers.get(asker.workflow_id) is not asker:
            return
        asker.outcome, asker.plan = answer.outcome, answer.plan
        self.clock.tell(asker.workflow_id, f"{answer.outcome} {answer.reason}".strip())
        if answer.plan is not None:
            self.clock.soon(self._start_rollouts, asker, answer.plan)

    def reconcile(self, plan: Plan) -> None:
        workflow_id = conventions.reconciliation_workflow_id(REGISTRY, plan.generation)
        asker = self.askers.setdefault(workflow_id, Asker(workflow_id, plan.sha, plan, PlanOutcome.PLANNED))
        self._start_rollouts(asker, plan)

    def _start_rollouts(self, asker: Asker, plan: Plan) -> None:
        self.clock.after(conventions.FIRST_REMINDER.total_seconds(), self._remind, asker, plan)
        cause = plan.cause
        lost = cause is not None and cause.kind in _AFTER_LOSSES
        also = (conventions.commit_workflow_id(REGISTRY, plan.sha),) if lost else ()
        for deployment in plan.deployments:
            target = RolloutTarget(
                registry=REGISTRY,
                sha=asker.sha,
                plan=deployment,
                reply_to=asker.workflow_id,
                cause=cause.words if cause else "",
                reply_also=also,
            )
            self.clock.soon(self._set_target, asker, target)
            if self.clock.chance.random() < 0.05:  # a new run does it all once more, and the first answer counts
                self.clock.soon(self._set_target, asker, target)
                self.told_twice.add((asker.workflow_id, deployment.deployment_id))

    def _remind(self, asker: Asker, plan: Plan) -> None:
        """Hand their targets again to the rollouts that have not answered (`Delivery.ended`): they may be gone."""
        missing = tuple(d for d in plan.deployments if d.deployment_id not in asker.answers)
        if missing and self.askers.get(asker.workflow_id) is asker:
            self.told_twice |= {(asker.workflow_id, d.deployment_id) for d in missing}
            self._start_rollouts(asker, plan.model_copy(update={"deployments": missing}))

    def _set_target(self, asker: Asker, target: RolloutTarget) -> None:
        """Signal with start, once the ledger says whether it stands behind it still."""
        if self.askers.get(asker.workflow_id) is not asker:  # gone with the database
            return
        ledger = self.fleet.ledger if self.fleet is not None else None
        if ledger is None or ledger.rebuilding:
            self.clock.after(1, self._set_target, asker, target)
            return
        name = target.plan.deployment_id
        word = word_to(target.plan, ledger.state.holds)
        said = {"steering": word} if word.kind != "resume" else {}
        target = target.model_copy(update=said | {"outdated": outdated(target.plan, ledger.state.slots)})
        actor = self.actors.get(name)
        if actor is None or actor.ended:
            actor = self.actors[name] = Actor(name, self)
        actor.set_target(target)

    # What a rollout reaches

    def spec(self, sha: str, deployment_id: str) -> DeploymentSpec:
        return self.git[sha].specs[deployment_id]

    def issue(self, errand: Errand, planned: PlannedCommand) -> None:
        self.issued.add(_command(errand.deployment_id, errand.generation, planned))
        self.clock.soon(self.devices[errand.worker_id].deliver, errand)

    def tell_ledger(self, settled: SlotSettled, delivered: Callable[[], None]) -> None:
        def arrives() -> None:
            lost = self.fleet is None or self.clock.seconds < self.losing_until
            if lost:
                self.clock.tell("letter", f"lost: {_told(settled)}")
            else:
                self.fleet.settled(settled)
                if self.clock.chance.random() < 0.03:
                    self.clock.soon(self._settled_again, settled)
            delivered()

        self.clock.soon(arrives, latest=LATEST_NEWS)

    def _settled_again(self, settled: SlotSettled) -> None:
        if self.fleet is not None:
            self.fleet.settled(settled)

    def reply(self, workflow_id: str, answer: RolloutAnswer) -> None:
        self.clock.tell(f"rollout:{answer.deployment_id}", f"answers {workflow_id}: {answer.outcome} {answer.message}")
        self.clock.soon(self._replied, workflow_id, answer)

    def _replied(self, workflow_id: str, answer: RolloutAnswer) -> None:
        asker = self.askers.get(workflow_id)
        if asker is None:  # gone with the database
            return
        asker.answers.setdefault(answer.deployment_id, answer)
        asker.times[answer.deployment_id, answer.generation] += 1

    def view(self) -> FleetView | None:
        return self.fleet.ledger.view() if self.fleet else None

    def running(self) -> dict[str, int | None]:
        return {name: actor.generation for name, actor in self.actors.items() if not actor.ended}

    # Devices

    def changed(self, worker_id: str) -> None:
        self.presences[worker_id].changed()

    def _bad(self, spec: DeploymentSpec, worker_id: str) -> str | None:
        bad = self.schedule.bad.get(spec.digest)
        if bad is None or worker_id not in bad.workers or self.clock.seconds >= bad.until:
            return None
        return bad.code

    def _tell_fleet(self, _worker_id: str, record: DeviceRecord, delivered: Callable[[bool], None]) -> None:
        def arrives() -> None:
            if self.fleet is not None:
                self.fleet.heard(record)
            delivered(self.fleet is not None)

        self.clock.soon(arrives, latest=LATEST_NEWS)

    def start_fleet(self) -> None:
        self.clock.tell("keeper", "starts the fleet anew")
        self.fleet = FleetRun(self)
        if self.git:
            self.clock.soon(self._start_commit, list(self.git)[-1])

    def last_applied(self) -> tuple[str | None, int]:
        """Return what is known of the applied commit without the fleet: by commits' own workflows, else by git."""
        for sha in reversed(self.git):
            asker = self.askers.get(conventions.commit_workflow_id(REGISTRY, sha))
            planned = asker.plan.generation if asker is not None and asker.plan is not None else 0
            if planned or sha == self.recorded[0]:
                return sha, max(planned, self.recorded[1])
        before = list(self.git)[:-1]
        return (before[-1] if before else None), self.recorded[1]

    def _calm(self) -> None:
        self.calm = True
        self.clock.tell("fault", "no more: from here on everything is to come to rest")

    # What must hold

    def take_note(self, plan: Plan, asked: PlanningInput) -> None:
        """Hold a plan that is about to be taken over against what must hold."""
        desired = self.git[asked.request.sha]
        for wrong in invariants.of_plan(plan, asked, desired, self.devices):
            self.clock.broken(wrong)
        for deployment in plan.deployments:
            for command in deployment.commands:
                self.planned.add(_command(deployment.deployment_id, deployment.generation, command))

    def record(self, sha: str | None, generation: int) -> None:
        """Write the state to git, seconds later; where its host is slow, minutes."""

        def written() -> None:
            if generation >= self.recorded[1]:
                self.recorded = (sha, generation)

        self.clock.after(self.clock.chance.uniform(*((30, 200) if self.schedule.slow_git else (0.5, 4))), written)

    def steer(self, steered: Steered) -> None:
        actor = self.actors.get(steered.deployment_id)
        if actor is not None:
            actor.steer(steered.steering)

    def play(self) -> None:
        """Play all of it, until nothing moves any more, and see that this is as it should be. Raises Broken."""
        self.begin()
        looks = 0
        while looks < _LOOKS_AT_REST:
            while self.clock.step():
                self._always()
                if self.clock.seconds > _LONGEST:
                    self.clock.broken("does not come to rest")
            # A device that kept failing is given nothing for up to half an hour.
            self.clock.seconds += 1900
            looks = 0 if self.fleet is None or self.fleet.look() else looks + 1
        self._at_rest()

    def _always(self) -> None:
        for device in self.devices.values():
            refused, device.refused = device.refused, []
            if refused and not self.forgiven and not self._is_behind(device):
                self.clock.broken(f"{device.worker_id} has no room for {refused[0]}")

    def _is_behind(self, device: Device) -> bool:
        """Tell whether the device is still to hear of what the ledger has planned for it, or was faster than that."""
        mine = (
            [slot for slot in self.fleet.ledger.state.slots if slot.worker_id == device.worker_id] if self.fleet else []
        )
        entries = [(slot, device.entry(slot.deployment_id)) for slot in mine]
        return any(
            entry.generation < slot.generation or (slot.state is ModelState.LOADING and entry.spec is not None)
            for slot, entry in entries
        )

    def _at_rest(self) -> None:
        fleet = self.fleet
        if fleet is None or fleet.ledger.state.applied_sha is None:
            self.clock.broken("no fleet, or nothing applied")
            return
        asked = fleet.dry()
        newest = list(self.git)[-1]
        if asked.applied_sha != newest:
            self.clock.broken(f"{newest[:6]} was pushed last, {asked.applied_sha} is applied")
        desired = self.git[newest]
        plan = fleet.look_at(asked)
        self.clock.tell("fleet", f"at rest: {told(plan)}")
        holds = [hold.deployment_id for hold in asked.holds]
        wrong = [
            *invariants.at_rest(plan, asked, desired, self.devices, holds),
            *invariants.executed(self.planned, self.issued),
            *self._unanswered(),
        ]
        if wrong:
            self.clock.broken("; ".join(wrong))

    def _unanswered(self) -> Iterator[str]:
        for asker in self.askers.values():
            if not asker.done:
                wanted = {d.deployment_id for d in asker.plan.deployments} if asker.plan else set()
                yield f"{asker.workflow_id} waits for {', '.join(sorted(wanted - asker.answers.keys())) or 'a plan'}"
            for (name, generation), times in asker.times.items():
                own = asker.plan is not None and generation == asker.plan.generation
                if own and times > 1 and (asker.workflow_id, name) not in self.told_twice:
                    yield f"{asker.workflow_id} was answered {times} times for {name}"


def _command(deployment_id: str, generation: int, planned: PlannedCommand) -> tuple[object, ...]:
    return (deployment_id, generation, planned.worker_id, planned.action, planned.unload_reason, planned.recreate)


def _told(settled: SlotSettled) -> str:
    return f"{settled.deployment_id} on {settled.worker_id} is {settled.state}, generation {settled.generation}"


def _wishes(snapshot: RegistrySnapshot) -> str:
    return ", ".join(
        f"{name} {snapshot.specs[name].version} x{manifest.wanted_replicas}"
        if manifest.wanted_replicas
        else f"{name} off"
        for name, manifest in snapshot.manifests.items()
    )


def play(seed: int, mutations: Mutations | None = None) -> World:
    """Play a seed. Raises Broken; the world's trace then ends with what is broken."""
    world = World(schedule_of(seed), mutations or Mutations())
    world.play()
    return world
