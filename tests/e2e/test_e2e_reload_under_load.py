"""RELOAD under load (PRD §12.1 "Zero Downtime Deployments"): versions change, and no caller notices."""

from __future__ import annotations

import pytest
from system import System

from longshore.cli.demo.load import Load
from longshore.schemas.commits import CommitOutcome

pytestmark = pytest.mark.e2e

REQUESTS = 20_000
RELOADS = 10


async def test_ten_reloads_under_twenty_thousand_requests(system: System) -> None:
    """No request fails, and each answer comes from one of the two validated versions and says which."""
    system.start_worker("worker-a")
    system.model.release("1.0.0", factor=10)
    system.model.release("1.1.0", factor=11)
    system.registry.deployment("ten", system.model, "1.0.0")
    result = await system.outcome(system.registry.push("Deploy"))
    assert result.outcome is CommitOutcome.APPLIED, result.summary

    url = f"http://127.0.0.1:{system.data_ports['worker-a']}/infer/ten"
    async with Load(url, {"x": 2}, connections=8) as load:
        for number in range(RELOADS):
            version = ("1.1.0", "1.0.0")[number % 2]
            system.registry.deployment("ten", system.model, version)
            result = await system.outcome(system.registry.push(f"To {version}"))
            assert result.outcome is CommitOutcome.APPLIED, result.summary
        await load.more(max(0, REQUESTS - load.total))
    assert set(load.outcomes) == {"200"}
    assert load.total >= REQUESTS
    assert set(load.versions) == {"1.0.0", "1.1.0"}
    assert len(system.runners()) == 1
