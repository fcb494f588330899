"""The state of a fleet at one moment, as plans and explanations need it: asked for now, or recorded before."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from longshore.activities.connection import connect
from longshore.activities.device_facts import facts_in
from longshore.cli.status.gathering import observe, only_registry
from longshore.registry.repositories.local import UnusablePath
from longshore.schemas.base import Message
from longshore.schemas.connections import TemporalSettings
from longshore.schemas.devices import DeviceFacts, DeviceReport, DeviceView
from longshore.schemas.fleet import FleetView


class RecordedState(Message):
    """A file of this form needs no server: it goes into a bug report, a test or a CI job."""

    view: FleetView
    devices: dict[str, DeviceView] = {}
    """By worker id."""
    at: datetime

    async def reports(self, workers: tuple[str, ...]) -> dict[str, DeviceReport]:
        """Return what these devices have reported last; one that has not is left out."""
        views = (self.devices.get(name) for name in workers)
        return {view.worker_id: view.report for view in views if view is not None and view.report is not None}

    async def facts(self, workers: tuple[str, ...]) -> dict[str, DeviceFacts]:
        """Return what the newest reports of these devices know; one that has not reported is left out."""
        known = {name: self.devices[name] for name in workers if name in self.devices}
        return {name: facts_in(view) for name, view in known.items() if view.report is not None}


async def look(settings: TemporalSettings, registry: str | None, file: Path | None) -> RecordedState:
    """Return the state in `file`, or else the fleet's as it is now. Raises UnusablePath, or as `gather` does."""
    if file is not None:
        return _read(file)
    client = await connect(settings)
    view, devices = await observe(client, registry or await only_registry(client))
    return RecordedState(view=view, devices=devices, at=datetime.now(UTC))


def save(state: RecordedState, file: Path) -> None:
    """Write the state for `look`. Raises UnusablePath."""
    try:
        file.write_text(state.model_dump_json(indent=2) + "\n", "utf-8")
    except OSError as error:
        raise UnusablePath(f"cannot write {file}: {error.strerror}") from error


def _read(file: Path) -> RecordedState:
    try:
        return RecordedState.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UnusablePath(f"cannot read {file}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UnusablePath(f"{file} is no state that --save-state has written: {where}: {first['msg']}") from error
