"""The devices of a story: what they hold, what they say of it, and how they end what they are told to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleets import NOW, Wanted

from longshore.schemas.devices import (
    DeviceCapacity,
    DeviceRecord,
    DeviceReport,
    DeviceStatus,
    Health,
    ModelReport,
    Told,
)
from longshore.schemas.failures import Failure
from longshore.schemas.fleet import SlotSettled
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.slots import Demand, Slot

_NOTHING = DeviceCapacity(
    max_models=0, max_memory=0, used_memory=0, max_cpu=0, used_cpu=0, max_gpu=0, used_gpu=0, loaded_models=0
)


class Devices:
    def __init__(self) -> None:
        self._models: dict[str, dict[str, ModelReport]] = {}
        """By worker and deployment id."""
        self._seen: dict[str, int] = {}
        """The highest generation that each has seen."""
        self._words: dict[str, str] = {}
        """What was said last of the health of each."""

    def say(self, worker_id: str, word: str) -> None:
        """Let a device be what `word` says of its health from now on."""
        self._words[worker_id] = word

    def is_silent(self, worker_id: str) -> bool:
        return self._words.get(worker_id) == "failed"

    def find(self, worker_id: str, wanted: Wanted, word: str) -> None:
        """Let a device hold what nobody has commanded: `gone`, `failed CODE`, or `ready VERSION`, that of `wanted`."""
        holds = self._models.setdefault(worker_id, {})
        state, _, fact = word.partition(" ")
        if state == "gone":
            del holds[wanted.id]
        elif state == "failed":
            failed = {"state": ModelState.FAILED, "version": None, "digest": None, "error": _failure(fact)}
            holds[wanted.id] = holds[wanted.id].model_copy(update=failed)
        else:
            self._seen[worker_id] = max(1, self._seen.get(worker_id, 0))
            holds[wanted.id] = ModelReport(
                deployment_id=wanted.id,
                state=ModelState.READY,
                generation=self._seen[worker_id],
                version=wanted.version,
                digest=wanted.spec.digest,
                reserved=Demand.of(wanted.spec.card.resources),
            )

    def end(self, slot: Slot, word: str | None, others: frozenset[str]) -> SlotSettled:
        """End the command of a slot as `word` says (None: well), and return what its rollout tells of that.

        `others` are the deployments that the ledger holds on that device: what waits for one of them in vain fails.
        """
        if word is None and others & set(slot.instead_of):
            return _settled(slot, state=ModelState.FAILED, code="PREEMPTION_FAILED")
        before = {"state": ModelState.READY, "version": slot.previous_version, "digest": slot.previous_digest}
        if word == "not begun":
            back = {"state": ModelState.IDLE} if slot.state is ModelState.LOADING else before
            return _settled(slot, **back, begun=False)
        self._seen[slot.worker_id] = max(self._seen.get(slot.worker_id, 0), slot.generation)
        holds = self._models.setdefault(slot.worker_id, {})
        if slot.state is ModelState.UNLOADING:
            if word is None:
                holds.pop(slot.deployment_id, None)
            return _settled(slot, state=ModelState.IDLE if word is None else ModelState.FAILED, code=word)
        facts: dict[str, Any] = {"state": ModelState.FAILED}
        if word is None:
            facts = {"state": ModelState.READY, "version": slot.version, "digest": slot.digest}
        elif slot.state is ModelState.RELOADING and not slot.recreate:
            facts = before
        holds[slot.deployment_id] = ModelReport(
            deployment_id=slot.deployment_id,
            generation=slot.generation,
            error=_failure(word) if word is not None else None,
            reserved=slot.demand,
            **facts,
        )
        return _settled(slot, **facts, code=word)

    def record(self, worker_id: str) -> DeviceRecord:
        """Return what the ledger is told of a device."""
        word = self._words.get(worker_id, "unknown")
        return DeviceRecord(
            worker_id=worker_id,
            health=Health.HEALTHY if word in ("leaving", "draining") else Health(word),
            status=DeviceStatus.LEAVING if word == "leaving" else DeviceStatus.HEALTHY,
            boot_id="1",
            slots={name: _text(model) for name, model in self._models.get(worker_id, {}).items()},
            draining=word == "draining",
            generation=self._seen.get(worker_id, 0),
        )

    def reports(self) -> dict[str, DeviceReport]:
        """Return the full reports, by worker id."""
        return {
            worker_id: DeviceReport(
                worker_id=worker_id,
                boot_id="1",
                sequence=1,
                status=DeviceStatus.HEALTHY,
                timestamp=NOW,
                capacity=_NOTHING,
                models=tuple(models.values()),
            )
            for worker_id, models in self._models.items()
        }


def _settled(slot: Slot, **facts: Any) -> SlotSettled:
    common: Mapping[str, Any] = {"deployment_id": slot.deployment_id, "worker_id": slot.worker_id}
    return SlotSettled(**common, generation=slot.generation, **facts)


def _text(model: ModelReport) -> str:
    code = model.error.code if model.error is not None else None
    return str(Told(model.state, model.generation, (model.digest or "")[:8], code))


def _failure(code: str) -> Failure:
    return Failure(code=code, message="as the story says")
