"""Two commits close together: the newer one wins, and each is answered exactly once per deployment."""

from __future__ import annotations

import asyncio

import pytest
from system import System, eventually
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from longshore.schemas.commits import CommitOutcome, CommitResult, RegistryCommit
from longshore.schemas.rollouts import RolloutOutcome
from longshore.workflows import conventions

pytestmark = pytest.mark.e2e


async def look_now(system: System, sha: str) -> None:
    """Start a commit's workflow as a webhook or poll that saw this head would."""
    client = await system.client()
    try:
        await client.start_workflow(
            "RegistryCommitWorkflow",
            RegistryCommit(registry="registry", sha=sha),
            id=conventions.commit_workflow_id("registry", sha),
            task_queue=conventions.BROKER_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        )
    except WorkflowAlreadyStartedError:
        return  # the broker's own look has been quicker, and is done already


async def versions(system: System) -> set[str | None]:
    """Every version that devices report for the deployment."""
    reports = [(await system.device(worker_id)).report for worker_id in ("worker-a", "worker-b", "worker-c")]
    return {model.version for report in reports if report for model in report.models}


@pytest.fixture
async def deployed(three_workers: System) -> System:
    """Version 1.0.0 on three devices; 1.1.0 and 1.2.0 take a second to load."""
    system = three_workers
    system.model.release("1.0.0", factor=10)
    system.model.release("1.1.0", factor=11, load_seconds=1)
    system.model.release("1.2.0", factor=12, load_seconds=1)
    system.registry.deployment("ten", system.model, "1.0.0", replicas=3)
    result = await system.outcome(system.registry.push("Deploy"))
    assert result.outcome is CommitOutcome.APPLIED, result.summary
    return system


async def test_a_second_push_supersedes_the_first_at_any_distance(deployed: System) -> None:
    """Pushes 0 to 1 s apart: the end state is the second's, and both workflows end with one answer."""
    system = deployed
    for step in range(5):
        ends: list[CommitResult] = []
        system.registry.deployment("ten", system.model, "1.1.0", replicas=3)
        first = system.registry.push(f"To 1.1.0, distance {step}")
        await look_now(system, first)
        await asyncio.sleep(step * 0.25)
        system.registry.deployment("ten", system.model, "1.2.0", replicas=3)
        second = system.registry.push(f"To 1.2.0, distance {step}")
        await look_now(system, second)
        ends = [await system.outcome(first), await system.outcome(second)]
        assert [len(end.answers) for end in ends if end.outcome is not CommitOutcome.OUTDATED] in ([1, 1], [1])
        assert ends[0].outcome is CommitOutcome.OUTDATED or ends[0].answers[0].outcome in {
            RolloutOutcome.SUPERSEDED,
            RolloutOutcome.DONE,
        }
        assert ends[1].outcome is CommitOutcome.APPLIED, ends[1].summary

        async def settled() -> bool:
            return await versions(system) == {"1.2.0"}

        await eventually(settled, "every device runs 1.2.0")
        assert len(system.runners()) == 3
        system.registry.deployment("ten", system.model, "1.0.0", replicas=3)
        await system.outcome(system.registry.push(f"Back, after distance {step}"))


async def test_a_slow_poll_of_the_old_head_cannot_win(deployed: System) -> None:
    """The newer commit's workflow runs first; the older one's then answers `outdated` and changes nothing."""
    system = deployed
    system.processes["broker"].stop()  # nobody polls until both commits have been pushed
    system.registry.deployment("ten", system.model, "1.1.0", replicas=3)
    old = system.registry.push("To 1.1.0")
    system.registry.deployment("ten", system.model, "1.2.0", replicas=3)
    new = system.registry.push("To 1.2.0")
    system.restart("broker")
    assert (await system.outcome(new)).outcome is CommitOutcome.APPLIED
    await look_now(system, old)
    assert (await system.outcome(old)).outcome is CommitOutcome.OUTDATED
    assert await versions(system) == {"1.2.0"}
