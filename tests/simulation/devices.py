"""A model of a device: the rules of its journal, of its queue and of its lease, without anything that runs.

As in `worker_host/commands`: a lower generation is refused, an equal one that is done is answered from the journal, a
higher one stops what is under way; before its first effect and before the point of no return an attempt confirms its
lease; a failure that may pass is tried again by the device's own backoff.
"""

from __future__ import annotations

from collections.abc import Callable

from longshore.schemas.commands import Action, CommandResult
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.devices import DeviceCapacity, DeviceReport, DeviceStatus
from longshore.schemas.failures import FAILURES, Backoff, Category, Failure
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.slots import Demand
from longshore.schemas.workers import WorkerConfig
from tests.simulation.clock import Clock
from tests.simulation.journal import Entry, Errand, Rules, Work
from tests.simulation.line import UNNOTICED, Line

_IDLE, _LOADING, _READY = ModelState.IDLE, ModelState.LOADING, ModelState.READY
_RELOADING, _UNLOADING, _FAILED = ModelState.RELOADING, ModelState.UNLOADING, ModelState.FAILED
_SERVES = (_READY, _RELOADING)


class Device(Line):
    def __init__(self, worker: WorkerConfig, clock: Clock, changed: Callable[[str], None], rules: Rules) -> None:
        super().__init__(worker.worker_id, clock, changed)
        self.worker = worker
        self.journal: dict[str, Entry] = {}
        self.status = DeviceStatus.HEALTHY
        self.draining = False
        self.bad: Callable[[DeploymentSpec, str], str | None] = lambda _spec, _worker_id: None
        """The failure code with which a version ends here."""
        self.refused: list[Errand] = []
        """What it had no room for."""
        self._rules = rules
        self._troubled = -UNNOTICED
        """When it last lost something, or fell silent."""
        self._reports = 0
        self._backoff = Backoff()

    def entry(self, deployment_id: str) -> Entry:
        return self.journal.setdefault(deployment_id, Entry())

    @property
    def excused(self) -> bool:
        """Tell whether nobody may know yet what it has lost a moment ago."""
        return self._clock.seconds - self._troubled < UNNOTICED

    def serving(self, deployment_id: str) -> DeploymentSpec | None:
        """Return what answers requests here; a device that is switched off holds it, and serves it when it is back."""
        entry = self.journal.get(deployment_id)
        return entry.spec if entry is not None and entry.state in _SERVES else None

    # What happens to it

    def wipe(self) -> None:
        """Lose the state folder, and with it all that runs."""
        self.crash()
        self.journal.clear()
        self._troubled = self._clock.seconds

    def die(self, deployment_id: str) -> None:
        """Let a model's runner crash until the device gives it up."""
        entry = self.journal.get(deployment_id)
        if entry is None or entry.state is not _READY or self.frozen or not self.running:
            return
        entry.state, entry.spec = _FAILED, None
        entry.failed = Failure(code="RUNNER_CRASHED", message="it has crashed too often")
        self._troubled = self._clock.seconds
        self._clock.tell(self.worker_id, f"the runner of {deployment_id} has crashed for good")
        self._changed(self.worker_id)

    def blink(self, deployment_id: str) -> None:
        """Let a runner crash and be started again."""
        entry = self.journal.get(deployment_id)
        if entry is None or entry.state is not _READY or not self.running:
            return
        entry.state, self._troubled = _LOADING, self._clock.seconds
        self._clock.tell(self.worker_id, f"the runner of {deployment_id} has crashed, and is started again")
        self._changed(self.worker_id)

        def again() -> None:
            if entry.state is _LOADING and entry.coming is None:
                entry.state = _READY
                self._changed(self.worker_id)

        self._clock.after(2.0, again)

    # Carrying out

    def _execute(self, work: Work) -> None:
        errand = work.errand
        entry = self.entry(errand.deployment_id)
        if self._rules.generations and errand.generation < entry.generation:
            message = f"generation {errand.generation} came after {entry.generation}"
            self._clock.tell(self.worker_id, f"refuses {errand}: {message}")
            self._answer(work, Failure(code="STALE_GENERATION", message=message))
            return
        done = entry.completed
        if done and (done.generation, done.digest) == (errand.generation, errand.spec and errand.spec.digest):
            self._answer(work, done.model_copy(update={"already_done": True}))
            return
        if errand.generation != entry.generation:
            entry.generation, entry.tries, entry.failed, entry.completed = errand.generation, 0, None, None
        for other in self._of(errand.deployment_id):
            if not other.committed:
                self._stop(other, overtaken=other.errand.generation < errand.generation)
        self.works.append(work)
        if self._of(errand.deployment_id) == [work]:
            self._begin(work)

    def _of(self, deployment_id: str) -> list[Work]:
        return [work for work in self.works if work.errand.deployment_id == deployment_id]

    def _stop(self, work: Work, *, overtaken: bool) -> None:
        if work.begun:
            self.entry(work.errand.deployment_id).leave()
        if overtaken:
            self._answer(work, Failure(code="SUPERSEDED", message="a newer generation overtook it"))
        else:
            self._forget(work)

    def _forget(self, work: Work) -> None:
        """Let the next attempt of that deployment begin."""
        if work in self.works:
            self.works.remove(work)
        waiting = self._of(work.errand.deployment_id)
        if waiting and not any(other.begun for other in waiting):
            self._later(0, self._begin_next, work.errand.deployment_id)

    def _begin_next(self, deployment_id: str) -> None:
        waiting = self._of(deployment_id)
        if waiting and not any(work.begun for work in waiting):
            self._begin(waiting[-1])

    def _break_off(self) -> None:
        for entry in self.journal.values():
            entry.leave()

    def _confirmed(self, work: Work) -> bool:
        """Ask the server whether this attempt still holds; where it does not, nothing happens any more."""
        errand = work.errand
        if not self._rules.leases or (self.reachable and errand.open and errand.attempt == work.attempt):
            return True
        self._clock.tell(self.worker_id, f"fenced: {errand}")
        if work.begun:
            self.entry(errand.deployment_id).leave()
        self._forget(work)
        self._changed(self.worker_id)
        return False

    def _begin(self, work: Work) -> None:
        if not self._confirmed(work):
            return
        errand, chance = work.errand, self._clock.chance
        entry = self.entry(errand.deployment_id)
        work.begun = True
        if errand.spec is None:
            self._unload(work, entry)
            return
        if entry.spec is not None and entry.state in _SERVES and entry.spec.digest == errand.spec.digest:
            entry.acted, entry.failed = errand.generation, None
            self._complete(work, entry)
            return
        shortfall = self._shortfall(errand, entry)
        if shortfall:
            if entry.spec is None or errand.action is Action.RELOAD:
                self.refused.append(errand)
            self._fail(work, Failure(code="CAPACITY_INSUFFICIENT", message=shortfall))
            return
        entry.state = _RELOADING if entry.spec is not None else _LOADING
        entry.coming, entry.instead = errand.spec, errand.recreate
        self._clock.tell(self.worker_id, f"begins {errand}")
        self._changed(self.worker_id)
        self._later(chance.uniform(1, 20), self._arrive, work)

    def _arrive(self, work: Work) -> None:
        """All is fetched: the point of no return, unless the version is bad."""
        errand = work.errand
        if work not in self.works or errand.spec is None:
            return
        entry = self.entry(errand.deployment_id)
        code = self.bad(errand.spec, self.worker_id)
        early = code is not None and FAILURES[code].category is Category.NETWORK
        if code is not None and (early or not errand.recreate):
            step = "artifact_download" if early else "validation_inference"
            self._fail(work, Failure(code=code, message=f"{errand.spec.version} is bad", step=step))
            return
        if not self._confirmed(work):
            return
        work.committed, entry.acted = True, self._rising(entry, errand)
        if errand.recreate and entry.spec is not None:
            entry.spec = None
            self._clock.tell(self.worker_id, f"serves no {errand.deployment_id} until {errand.spec.version} is there")
            self._changed(self.worker_id)
        if code is not None:
            self._later(1, self._fail, work, Failure(code=code, message="it is bad", step="validation_inference"))
        else:
            self._later(self._clock.chance.uniform(0.1, 2), self._flip, work)

    def _flip(self, work: Work) -> None:
        if work in self.works:
            entry = self.entry(work.errand.deployment_id)
            entry.spec, entry.coming, entry.state, entry.failed = work.errand.spec, None, _READY, None
            self._clock.tell(self.worker_id, f"has done {work.errand}")
            self._complete(work, entry)

    def _unload(self, work: Work, entry: Entry) -> None:
        entry.acted = self._rising(entry, work.errand)
        if entry.spec is None:
            entry.state, entry.failed = _IDLE, None
            self._complete(work, entry)
            return
        entry.state, work.committed = _UNLOADING, True
        self._clock.tell(self.worker_id, f"begins {work.errand}")
        self._changed(self.worker_id)
        self._later(self._clock.chance.uniform(0.5, 10), self._gone, work)

    def _gone(self, work: Work) -> None:
        if work in self.works:
            entry = self.entry(work.errand.deployment_id)
            entry.spec, entry.state, entry.failed = None, _IDLE, None
            self._clock.tell(self.worker_id, f"has done {work.errand}")
            self._complete(work, entry)

    def _complete(self, work: Work, entry: Entry) -> None:
        spec = work.errand.spec
        entry.completed = CommandResult(
            deployment_id=work.errand.deployment_id,
            worker_id=self.worker_id,
            generation=work.errand.generation,
            state=_READY if spec else _IDLE,
            version=spec.version if spec else None,
            digest=spec.digest if spec else None,
        )
        self._answer(work, entry.completed)

    def _fail(self, work: Work, failure: Failure) -> None:
        if work not in self.works:
            return
        errand = work.errand
        entry = self.entry(errand.deployment_id)
        entry.coming, entry.failed = None, failure
        entry.state = _READY if entry.spec is not None else _FAILED
        entry.tries += 1
        delay = self._backoff.delay_after(entry.tries) if failure.kind.retriable else None
        self._clock.tell(self.worker_id, f"failed: {errand}: {failure.code}")
        if delay is None:
            self._answer(work, failure)
            return
        self._forget(work)
        if self.reachable and work.attempt == errand.attempt:
            self._unanswered.remove(errand)
            self._clock.after(delay.total_seconds(), self.deliver, errand)
        self._changed(self.worker_id)

    def _rising(self, entry: Entry, errand: Errand) -> int:
        if errand.generation < entry.acted:
            self._clock.broken(f"{self.worker_id}: {errand} takes effect after generation {entry.acted}")
        return errand.generation

    def _shortfall(self, errand: Errand, entry: Entry) -> str:
        """Return what is missing for one more version beside all that is here."""
        taken = sum((e.demand for name, e in self.journal.items() if name != errand.deployment_id), Demand())
        models = sum(name != errand.deployment_id and e.demand != Demand() for name, e in self.journal.items()) + 1
        coming = Demand.of(errand.spec.card.resources) if errand.spec else Demand()
        taken += coming.at_least(entry.demand) if errand.recreate else coming + entry.demand
        found = self._lacks(taken, models)
        return f"{', '.join(found)}: {taken} and {models} models would be here" if found else ""

    def room(self, demand: Demand, models: int) -> bool:
        """Tell whether so much more would fit beside all that is here."""
        taken = sum((entry.demand for entry in self.journal.values()), demand)
        return not self._lacks(taken, sum(entry.demand != Demand() for entry in self.journal.values()) + models)

    def _lacks(self, taken: Demand, models: int) -> list[str]:
        limit = self.worker.capacity
        return [
            *(["memory"] if taken.memory > limit.memory_bytes else ()),
            *(["cpu"] if taken.cpu > limit.max_cpu + 1e-6 else ()),
            *(["gpu"] if taken.gpu > limit.max_gpu else ()),
            *(["models"] if models > limit.max_models else ()),
        ]

    def report(self) -> DeviceReport:
        self._reports += 1
        used = sum((entry.demand for entry in self.journal.values()), Demand())
        limit = self.worker.capacity
        return DeviceReport(
            worker_id=self.worker_id,
            boot_id=f"boot-{self.boots}",
            sequence=self._reports,
            status=self.status,
            timestamp=self._clock.now,
            capacity=DeviceCapacity(
                max_models=limit.max_models,
                max_memory=limit.memory_bytes,
                used_memory=used.memory,
                max_cpu=limit.max_cpu,
                used_cpu=used.cpu,
                max_gpu=limit.max_gpu,
                used_gpu=used.gpu,
                loaded_models=sum(entry.demand != Demand() for entry in self.journal.values()),
            ),
            models=tuple(
                entry.told(name)
                for name, entry in sorted(self.journal.items())
                if entry.state is not _IDLE or entry.failed is not None
            ),
            draining=self.draining,
            highest_generation=max((entry.generation for entry in self.journal.values()), default=0),
        )
