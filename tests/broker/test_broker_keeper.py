"""What a broker looks after: that the workflows are there, and that the server has not forgotten them."""

from __future__ import annotations

from pathlib import Path

from structlog.testing import capture_logs

from longshore.broker.keeper import Keeper
from longshore.schemas.fleet import FleetView
from longshore.schemas.plans import Plan


class Entities:
    def __init__(self) -> None:
        self.run: str | None = None
        self.kept: list[str] = []

    async def fleet(self) -> FleetView:
        plan = Plan(sha="a", generation=1, workers=("worker-a", "worker-b"))
        return FleetView(registry="ops", applied_sha="a", generation=1, devices={}, slots=(), plan=plan)

    async def first_fleet_run(self) -> str | None:
        return self.run

    async def keep_fleet(self) -> None:
        self.run = self.run or "run-1"
        self.kept.append("fleet")

    async def keep_device(self, worker_id: str) -> None:
        self.kept.append(worker_id)


async def look(entities: Entities, state_dir: Path) -> list[str | None]:
    """Look once, as a broker that has just started; return the codes that were logged."""
    with capture_logs() as logs:
        await Keeper(entities, state_dir).look()
    return [entry.get("code") for entry in logs]


async def test_the_fleet_and_all_configured_devices_are_kept(tmp_path: Path) -> None:
    """What an operator has terminated is there again within a minute."""
    entities = Entities()
    await look(entities, tmp_path / "state")
    assert entities.kept == ["fleet", "worker-a", "worker-b"]


async def test_a_server_that_has_forgotten_the_fleet_is_told_once(tmp_path: Path) -> None:
    """SERVER_NOT_DURABLE: it was restarted without its database; a server that is new, or still has it, is in order."""
    entities = Entities()
    codes = [await look(entities, tmp_path) for _ in range(2)]
    entities.run = None
    codes += [await look(entities, tmp_path) for _ in range(2)]
    assert codes == [[], [], ["SERVER_NOT_DURABLE"], []]
