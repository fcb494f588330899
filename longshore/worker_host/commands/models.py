"""The device's models: the journal's records, changed only along the lifecycle table, and told of when changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from longshore.schemas.lifecycle import ModelState
from longshore.worker_host.commands import lifecycle
from longshore.worker_host.journal import Journal, Record


class Models:
    """Reads and writes records. `on_change` is called after each write that may be worth a report."""

    def __init__(self, journal: Journal, on_change: Callable[[], None]) -> None:
        self._journal = journal
        self._on_change = on_change

    def get(self, deployment_id: str) -> Record:
        return self._journal.record(deployment_id)

    def all(self) -> list[Record]:
        return self._journal.records()

    def at_work(self) -> list[str]:
        """Return the deployments that serve, or are on their way to or from it."""
        resting = {ModelState.IDLE, ModelState.FAILED}
        return [record.deployment_id for record in self.all() if record.serving or record.state not in resting]

    def update(self, deployment_id: str, **changes: Any) -> Record:
        """Write some fields of a record, its state excepted."""
        record = self.get(deployment_id).model_copy(update=changes)
        self._journal.put(record)
        self._on_change()
        return record

    def fire(self, deployment_id: str, event: lifecycle.Event, **changes: Any) -> Record:
        """Move a model along the table, and write `changes` with it. Raises ILLEGAL_STATE, and then nothing changed."""
        state = lifecycle.after(self.get(deployment_id).state, event)
        return self.update(deployment_id, state=state, **changes)
