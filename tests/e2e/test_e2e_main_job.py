"""The main job (PRD §7): a registry commit becomes a model that answers behind Envoy, and what follows."""

from __future__ import annotations

import httpx2
import pytest
from ruamel.yaml import YAML
from system import System

from longshore.schemas.commits import CommitOutcome
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.rollouts import RolloutOutcome

pytestmark = pytest.mark.e2e

WORKERS = ("worker-a", "worker-b", "worker-c")


async def infer(system: System, worker_id: str, deployment_id: str, document: object) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{system.data_ports[worker_id]}") as client:
        return await client.post(f"/infer/{deployment_id}", json=document)


async def test_deploy_update_roll_back_scale_and_disable(three_workers: System) -> None:
    """PRD §7.1 to §7.4 and §11.2 in one story, through git alone."""
    system = three_workers
    system.model.release("1.0.0", factor=10)
    system.model.release("1.1.0", factor=11)
    system.registry.deployment("ten", system.model, "1.0.0", replicas=3, endpoint="http://api.example.com/v1/ten")

    result = await system.outcome(system.registry.push("Deploy ten 1.0.0"))
    assert result.outcome is CommitOutcome.APPLIED, result.summary
    for worker_id in WORKERS:
        answer = await infer(system, worker_id, "ten", {"x": 4})
        assert (answer.status_code, answer.json()) == (200, {"y": 40})
        assert answer.headers["x-model-version"] == "1.0.0"

    async with httpx2.AsyncClient() as client:
        by_endpoint = await client.post(
            f"http://127.0.0.1:{system.data_ports['worker-a']}/v1/ten",
            json={"x": 1},
            headers={"host": "api.example.com"},
        )
    assert by_endpoint.json() == {"y": 10}

    system.registry.deployment("ten", system.model, "1.1.0", replicas=3)
    result = await system.outcome(system.registry.push("Update to 1.1.0"))
    assert result.outcome is CommitOutcome.APPLIED, result.summary
    assert (await infer(system, "worker-b", "ten", {"x": 4})).json() == {"y": 44}

    system.registry.deployment("ten", system.model, "1.0.0", replicas=3)
    await system.outcome(system.registry.push("Back to 1.0.0"))
    assert (await infer(system, "worker-b", "ten", {"x": 4})).json() == {"y": 40}

    system.registry.deployment("ten", system.model, "1.0.0", replicas=2)
    await system.outcome(system.registry.push("Scale to 2"))
    codes = sorted([(await infer(system, worker_id, "ten", {"x": 4})).status_code for worker_id in WORKERS])
    assert codes == [200, 200, 503]

    # And back up: the two that serve are left alone, the third is loaded beside them (PRD §11.2).
    before = {slot.worker_id: slot.generation for slot in (await system.fleet()).slots}
    system.registry.deployment("ten", system.model, "1.0.0", replicas=3)
    result = await system.outcome(system.registry.push("Scale to 3"))
    assert result.outcome is CommitOutcome.APPLIED, result.summary
    after = {slot.worker_id: slot.generation for slot in (await system.fleet()).slots}
    assert (len(after), after | before) == (3, after)
    assert [(await infer(system, worker_id, "ten", {"x": 4})).status_code for worker_id in WORKERS] == [200] * 3

    system.registry.deployment("ten", system.model, "1.0.0", replicas=3, enabled=False)
    result = await system.outcome(system.registry.push("EMERGENCY: disable ten"))
    assert result.outcome is CommitOutcome.APPLIED, result.summary
    problems = [(await infer(system, worker_id, "ten", {"x": 4})) for worker_id in WORKERS]
    assert {problem.status_code for problem in problems} == {503}
    assert any("disabled" in problem.json()["type"] for problem in problems)
    assert not system.runners()


async def test_status_and_git_tell_the_same_state(three_workers: System) -> None:
    """`longshore status` and transactions/actual-state.yaml show every worker and replica; history has a snapshot."""
    system = three_workers
    system.model.release("1.0.0", factor=10)
    system.registry.deployment("ten", system.model, "1.0.0", replicas=2)
    await system.outcome(system.registry.push("Deploy"))

    status = system.status()
    assert [worker["worker_id"] for worker in status["workers"]] == list(WORKERS)
    (deployment,) = status["deployments"]
    assert (deployment["deployment_id"], deployment["desired_version"]) == ("ten", "1.0.0")

    clone = system.registry.pull()
    state = YAML(typ="safe").load(clone / "transactions" / "actual-state.yaml")
    running = {
        worker["worker_id"]: [(m["deployment_id"], m["status"], m["model_version"]) for m in worker["models"]]
        for worker in state["workers"]
    }
    assert sorted(running) == list(WORKERS)
    assert sum(models == [("ten", "ready", "1.0.0")] for models in running.values()) == 2
    text = (clone / "transactions" / "actual-state.yaml").read_bytes()
    assert text in [snapshot.read_bytes() for snapshot in (clone / "transactions" / "history").iterdir()]


async def test_the_brokers_own_commits_start_nothing(three_workers: System) -> None:
    """After a deployment the branch head is a state commit, and no workflow exists for it."""
    system = three_workers
    system.model.release("1.0.0", factor=10)
    system.registry.deployment("ten", system.model, "1.0.0", replicas=1)
    sha = system.registry.push("Deploy")
    await system.outcome(sha)
    system.registry.deployment("ten", system.model, "1.0.0", replicas=2)
    second = system.registry.push("Scale")
    await system.outcome(second)
    client = await system.client()
    started = {execution.id async for execution in client.list_workflows("WorkflowType = 'RegistryCommitWorkflow'")}
    assert started == {f"registry-commit:registry:{commit}" for commit in (sha, second)}


class TestEachErrorIsClearAndCostsNothing:
    """A bad checksum, an absent tag, a broken card, a broken input: named where one looks; what ran still runs."""

    async def _running(self, system: System) -> None:
        system.model.release("1.0.0", factor=10)
        system.registry.deployment("ten", system.model, "1.0.0", replicas=1)
        result = await system.outcome(system.registry.push("Deploy"))
        assert result.outcome is CommitOutcome.APPLIED, result.summary

    async def _still_serves(self, system: System) -> None:
        (worker_id,) = {slot.worker_id for slot in (await system.fleet()).slots if slot.deployment_id == "ten"}
        assert await system.model_state(worker_id, "ten") is ModelState.READY
        assert (await infer(system, worker_id, "ten", {"x": 4})).json() == {"y": 40}

    async def test_bad_checksum(self, three_workers: System) -> None:
        """An UPDATE to an artifact with another checksum fails by name; the old version serves."""
        system = three_workers
        await self._running(system)
        system.model.release("1.1.0", factor=11, checksum="0" * 64)
        system.registry.deployment("ten", system.model, "1.1.0", replicas=1)
        result = await system.outcome(system.registry.push("Update to a corrupt artifact"))
        assert result.outcome is CommitOutcome.PARTLY_APPLIED
        (answer,) = result.answers
        assert answer.outcome is RolloutOutcome.FAILED
        assert [r.failure.code for r in answer.results if r.failure] == ["CHECKSUM_MISMATCH"]
        (deployment,) = system.status()["deployments"]
        assert "CHECKSUM_MISMATCH" in str(deployment)
        errors = [path.read_text() for path in (system.registry.pull() / "errors").glob("*.yaml")]
        assert any("CHECKSUM_MISMATCH" in text for text in errors)
        await self._still_serves(system)

    async def test_absent_tag(self, three_workers: System) -> None:
        """A commit that names a tag which does not exist is rejected."""
        system = three_workers
        await self._running(system)
        system.registry.deployment("ten", system.model, "9.9.9", replicas=1)
        result = await system.outcome(system.registry.push("Update to nowhere"))
        assert result.outcome is CommitOutcome.REJECTED
        assert [issue.code for issue in result.issues] == ["REF_NOT_FOUND", "CHECK_SKIPPED"]
        errors = [path.read_text() for path in (system.registry.pull() / "errors").glob("*validation-error.yaml")]
        assert any("REF_NOT_FOUND" in text for text in errors)
        assert "REF_NOT_FOUND" in str(system.status())
        await self._still_serves(system)

    async def test_card_that_breaks_its_schema(self, three_workers: System) -> None:
        """A card without metadata.owner is refused with its place."""
        system = three_workers
        await self._running(system)
        system.model.release(
            "1.1.0", card={"metadata": {"name": "multiplier", "version": "1.1.0", "description": "Multiplies numbers"}}
        )
        system.registry.deployment("ten", system.model, "1.1.0", replicas=1)
        result = await system.outcome(system.registry.push("Update to a broken card"))
        assert result.outcome is CommitOutcome.REJECTED
        assert [issue.code for issue in result.issues] == ["CARD_INVALID", "CHECK_SKIPPED"]
        assert "owner" in str(result.issues[0])
        await self._still_serves(system)

    async def test_input_that_breaks_its_schema(self, three_workers: System) -> None:
        """A request that does not conform gets 422 with the path in the document."""
        system = three_workers
        await self._running(system)
        (slot,) = (await system.fleet()).slots
        answer = await infer(system, slot.worker_id, "ten", {"x": "four"})
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        assert "x" in answer.text
        await self._still_serves(system)
