"""Fail forward, enforced (FAULTS 17 and 20): what looks like a slip changes nothing until an operator accepts it."""

from __future__ import annotations

import httpx2
import pytest
from system import System, eventually

from longshore.schemas.commits import CommitOutcome

pytestmark = pytest.mark.e2e


async def answers(system: System) -> object:
    async with httpx2.AsyncClient() as client:
        answer = await client.post(
            f"http://127.0.0.1:{system.data_ports['worker-a']}/infer/ten", json={"x": 4}, timeout=20
        )
    return answer.json() if answer.status_code == 200 else answer.status_code


async def applied(system: System, sha: str) -> None:
    async def planned() -> bool:
        return (await system.fleet()).applied_sha == sha

    await eventually(planned, f"{sha[:10]} is applied")


def error_file(system: System, kind: str) -> str:
    (path,) = (system.registry.pull() / "errors").glob(f"*-{kind}.yaml")
    return path.read_text()


async def test_a_forced_push_and_a_mass_deletion_wait_for_an_operator(system: System) -> None:
    """What ran still answers, `status` and git say what to type, and typing it is enough."""
    system.start_worker("worker-a")
    system.model.release("1.0.0", factor=10)
    system.model.release("1.1.0", factor=11)
    system.registry.deployment("ten", system.model, "1.0.0")
    first = system.registry.push("Deploy")
    await system.outcome(first)
    before = await system.fleet()

    system.registry.deployment("ten", system.model, "1.1.0")
    rewritten = system.registry.rewrite("Start over")
    result = await system.outcome(rewritten)
    assert result.outcome is CommitOutcome.HISTORY_REWRITTEN, result.summary
    view = await system.fleet()
    assert (view.applied_sha, view.generation, view.slots) == (first, before.generation, before.slots)
    assert await answers(system) == {"y": 40}
    assert f"longshore accept-history {rewritten}" in error_file(system, "history-rewritten")
    assert f"→ longshore accept-history {rewritten}" in system.longshore("status")

    assert f"HISTORY_REWRITTEN of {rewritten[:10]} accepted by " in system.longshore("accept-history", rewritten[:12])
    await applied(system, rewritten)
    result = await system.outcome(rewritten)
    assert result.outcome is CommitOutcome.APPLIED, result.summary
    assert await answers(system) == {"y": 44}

    (system.registry.clone / "models" / "production" / "ten.yaml").unlink()
    emptied = system.registry.push("Delete every manifest")
    result = await system.outcome(emptied)
    assert result.outcome is CommitOutcome.MASS_UNLOAD_BLOCKED, result.summary
    assert await answers(system) == {"y": 44}
    assert f"longshore accept-unload {emptied}" in error_file(system, "mass-unload-blocked")

    system.longshore("accept-unload", emptied)
    await applied(system, emptied)
    result = await system.outcome(emptied)
    assert (result.outcome, len(result.accepted)) == (CommitOutcome.APPLIED, 1)
    assert await answers(system) in {404, 503}
    assert system.status()["held_back"] == []
    assert not system.runners()
