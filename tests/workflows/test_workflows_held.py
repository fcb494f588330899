"""Commits that are held back until an operator accepts them: rewritten histories, and mass unloads."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fleets import Wanted, answered, observed, registry, worker
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from workflow_world import REGISTRY, World, eventually, program, real_server, world

from longshore.activities.fleet import FleetActivities
from longshore.planning.plan import make_plan
from longshore.schemas.commits import CommitOutcome, CommitResult
from longshore.schemas.fleet import FleetView, PlanOutcome, PlanRequest
from longshore.schemas.held import HELD_KEPT, Acceptance, Accepted
from longshore.schemas.issues import Severity
from longshore.schemas.lifecycle import ModelState
from longshore.workflows import conventions
from longshore.workflows.fleet import FleetWorkflow

WORKERS = tuple(worker(f"worker-{letter}") for letter in "abc")
TEN, TWO = Wanted("ten", replicas=3), Wanted("two", replicas=2)
HISTORY, UNLOAD = "HISTORY_REWRITTEN", "MASS_UNLOAD_BLOCKED"


def fleet_handle(around: World) -> WorkflowHandle[FleetWorkflow, None]:
    return around.client.get_workflow_handle_for(FleetWorkflow.run, conventions.fleet_workflow_id(REGISTRY))


async def accept(around: World, code: str, sha: str, by: str = "olga@laptop") -> Accepted:
    word = Acceptance(sha=sha, code=code, by=by)
    return await fleet_handle(around).execute_update(FleetWorkflow.accept, word)


async def refusal(around: World, word: object) -> ApplicationError:
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await fleet_handle(around).execute_update("accept", word)
    assert isinstance(refused.value.cause, ApplicationError)
    return refused.value.cause


async def applied(around: World, sha: str) -> CommitResult:
    """Wait until the fleet has planned the commit and its workflow has ended, and return the result."""

    async def planned() -> bool:
        return (await around.fleet()).applied_sha == sha

    await eventually(planned, f"{sha[:10]} is applied")
    handle = around.client.get_workflow_handle(conventions.commit_workflow_id(REGISTRY, sha), result_type=CommitResult)
    return await asyncio.wait_for(handle.result(), 60)


@pytest.fixture
async def serving(fleet_world: World) -> World:
    """Five replicas of two deployments serve."""
    await fleet_world.result(fleet_world.registry.push(registry(WORKERS, TEN, TWO)))
    await fleet_world.settled()
    return fleet_world


def unchanged(before: FleetView, after: FleetView) -> bool:
    return before.model_copy(update={"held_back": (), "version": 0}) == after.model_copy(
        update={"held_back": (), "version": 0}
    )


class TestMassUnload:
    async def test_it_changes_nothing(self, serving: World) -> None:
        """No slot, no generation, no command; the result has the code and what to type, git has it, the fleet shows
        it."""
        before = await serving.fleet()
        sha = serving.registry.push(registry(WORKERS))
        result = await serving.result(sha)
        assert result.outcome is CommitOutcome.MASS_UNLOAD_BLOCKED
        assert "would unload 5 of 5 replicas (100 %, the limit is 50 %): ten (3), two (2)" in result.summary
        assert f"longshore accept-unload {sha[:10]}" in result.summary
        assert [(issue.code, issue.severity) for issue in result.issues] == [(UNLOAD, Severity.ERROR)]
        after = await serving.fleet()
        assert unchanged(before, after)
        assert [(held.sha, held.code) for held in after.held_back] == [(sha, UNLOAD)]
        assert sum(len(device.commands) for device in serving.devices.values()) == 5
        assert serving.registry.recorded[-1].result == result

    async def test_accepted_it_is_carried_out_by_itself(self, serving: World) -> None:
        """One word to the fleet is enough; who gave it and when stands in the result."""
        sha = serving.registry.push(registry(WORKERS))
        await serving.result(sha)
        accepted = await accept(serving, UNLOAD, sha)
        result = await applied(serving, sha)
        assert (result.outcome, result.accepted) == (CommitOutcome.APPLIED, (accepted,))
        assert str(accepted) in result.summary
        assert accepted.by == "olga@laptop"
        view = await serving.settled()
        assert (view.slots, view.held_back) == ((), ())
        handle = serving.client.get_workflow_handle(conventions.commit_workflow_id(REGISTRY, sha))
        assert str(accepted) in str(await handle.query("__temporal_workflow_metadata"))

    async def test_a_commit_that_puts_things_right_needs_no_acceptance(self, serving: World) -> None:
        """It is measured against what runs, and the one before it is waited for no longer."""
        blocked = serving.registry.push(registry(WORKERS))
        await serving.result(blocked)
        result = await serving.result(serving.registry.push(registry(WORKERS, TEN, TWO)))
        assert (result.outcome, result.accepted) == (CommitOutcome.APPLIED, ())
        assert (await serving.fleet()).held_back == ()
        assert (await refusal(serving, Acceptance(sha=blocked, code=UNLOAD, by="olga"))).type == "COMMIT_NOT_HELD"

    async def test_what_stands_on_it_is_measured_anew_and_then_looked_at_again(self, serving: World) -> None:
        """A descendant is held back too; once the first is accepted and applied, it takes nothing away any more."""
        first = serving.registry.push(registry(WORKERS))
        second = serving.registry.push(registry(WORKERS, Wanted("new")))
        for sha in (first, second):
            assert (await serving.result(sha)).outcome is CommitOutcome.MASS_UNLOAD_BLOCKED
        await accept(serving, UNLOAD, first)
        result = await applied(serving, second)
        assert (result.outcome, result.accepted) == (CommitOutcome.APPLIED, ())
        assert {slot.deployment_id for slot in (await serving.settled()).slots} == {"new"}

    async def test_the_limit_is_a_setting_that_a_new_broker_brings(self, serving: World) -> None:
        """At 100 nothing is held back."""
        settings = serving.settings.model_copy(update={"mass_unload_limit": 100})
        await fleet_handle(serving).signal(FleetWorkflow.configure, settings.fleet)
        assert (await serving.result(serving.registry.push(registry(WORKERS)))).outcome is CommitOutcome.APPLIED

    async def test_an_acceptance_while_git_is_being_told_starts_a_run_after_that(self, serving: World) -> None:
        """The run that was held back is not taken for the one that is wanted."""
        reached, go_on = asyncio.Event(), asyncio.Event()
        record = serving.registry.record

        async def slowly(request: object) -> None:
            reached.set()
            await go_on.wait()
            await record(request)  # type: ignore[arg-type]

        serving.registry.record = slowly  # type: ignore[method-assign]
        sha = serving.registry.push(registry(WORKERS))
        await serving.commit(sha)
        await reached.wait()
        await accept(serving, UNLOAD, sha)
        go_on.set()
        assert (await applied(serving, sha)).outcome is CommitOutcome.APPLIED
        outcomes = [request.result.outcome for request in serving.registry.recorded[-2:]]
        assert outcomes == [CommitOutcome.MASS_UNLOAD_BLOCKED, CommitOutcome.APPLIED]

    async def test_the_applied_commit_is_not_held_back_when_it_is_planned_once_more(self, bare_world: World) -> None:
        """It was let through before; its unloads are merely not done yet."""
        sha = bare_world.registry.push(registry(WORKERS))
        slots = answered((), make_plan(observed(), registry(WORKERS, TEN)))
        asked = observed(slots).model_copy(update={"request": PlanRequest(request_id="1", registry=REGISTRY, sha=sha)})
        doors = FleetActivities(bare_world.registry, bare_world.registry, bare_world.entities, bare_world.planner)
        outcomes = []
        for before in (sha, None):
            once_more = asked.model_copy(update={"applied_sha": before})
            outcomes.append((await ActivityEnvironment().run(doors.plan_commit, once_more)).outcome)
        assert outcomes == [PlanOutcome.PLANNED, PlanOutcome.MASS_UNLOAD_BLOCKED]


class TestRewrittenHistory:
    async def test_accepted_it_is_carried_out_and_so_is_what_descends_from_it(self, serving: World) -> None:
        """Also a descendant that was refused before; the old line is then the one that is refused."""
        old = serving.registry.shas[-1]
        head = serving.registry.rewrite(registry(WORKERS, TEN, TWO))
        child = serving.registry.rewrite(registry(WORKERS, TEN, TWO, Wanted("new")), head)
        for sha in (head, child):
            result = await serving.result(sha)
            assert [issue.code for issue in result.issues] == [HISTORY]
            assert f"does not descend from {old[:10]}" in result.summary
        await accept(serving, HISTORY, head)
        assert (await applied(serving, child)).outcome is CommitOutcome.APPLIED
        grandchild = serving.registry.rewrite(registry(WORKERS, TEN, TWO), child)
        assert (await serving.result(grandchild)).outcome is CommitOutcome.APPLIED
        forward = serving.registry.push(registry(WORKERS, TEN, TWO))
        assert (await serving.result(forward)).outcome is CommitOutcome.HISTORY_REWRITTEN
        assert [held.sha for held in (await serving.fleet()).held_back] == [forward]

    async def test_a_descendant_that_comes_before_the_plan_is_let_through(self, serving: World) -> None:
        """Its history was accepted with that of the commit that it stands on; that one is then outdated."""
        head = serving.registry.rewrite(registry(WORKERS, TEN, TWO))
        await serving.result(head)
        child = serving.registry.rewrite(registry(WORKERS, TEN, TWO, Wanted("new")), head)
        held = asyncio.Event()

        async def hold(sha: str) -> None:
            if sha == head:
                await held.wait()

        serving.registry.before_validation = hold
        accepted = await accept(serving, HISTORY, head)
        result = await serving.result(child)
        assert (result.outcome, result.accepted) == (CommitOutcome.APPLIED, (accepted,))
        held.set()

        async def outdated() -> bool:
            handle = serving.client.get_workflow_handle(
                conventions.commit_workflow_id(REGISTRY, head), result_type=CommitResult
            )
            result = await handle.result()
            return [(i.code, i.severity) for i in result.issues] == [("COMMIT_STALE", Severity.NOTE)]

        await eventually(outdated, "the accepted commit says that a newer one is applied")

    async def test_other_rewritten_heads_stay_refused(self, serving: World) -> None:
        """An acceptance is for one line, and is void once another line has gone on."""
        one = serving.registry.rewrite(registry(WORKERS, TEN, TWO))
        other = serving.registry.rewrite(registry(WORKERS, TEN))
        await serving.result(one)
        await serving.result(other)
        await accept(serving, HISTORY, one)
        await applied(serving, one)
        assert (await serving.fleet()).held_back == ()
        third = serving.registry.rewrite(registry(WORKERS), other)
        assert (await serving.result(third)).outcome is CommitOutcome.HISTORY_REWRITTEN

    async def test_an_empty_one_needs_both_words(self, serving: World) -> None:
        """That its history is meant does not say that its deletions are."""
        head = serving.registry.rewrite(registry(WORKERS))
        await serving.result(head)
        await accept(serving, HISTORY, head)

        async def blocked() -> bool:
            return [held.code for held in (await serving.fleet()).held_back] == [HISTORY, UNLOAD]

        await eventually(blocked, "it is held back for what it takes away")
        assert all(slot.state is ModelState.READY for slot in (await serving.fleet()).slots)
        await accept(serving, UNLOAD, head)
        result = await applied(serving, head)
        assert [one.code for one in result.accepted] == [HISTORY, UNLOAD]


class TestTheUpdate:
    async def test_nonsense_is_refused_before_it_stands_in_the_history(self, serving: World) -> None:
        """No commit that waits, no id, no code, nobody who says so, no document at all."""
        held = serving.registry.rewrite(registry(WORKERS, TEN))
        await serving.result(held)
        for word, told in (
            ({"sha": "abcd", "code": HISTORY, "by": "olga"}, "holds back no commit abcd"),
            ({"sha": held, "code": UNLOAD, "by": "olga"}, f"waits for `longshore accept-history {held}`"),
            ({"sha": held[:3], "code": HISTORY, "by": "olga"}, "no commit id"),
            ({"sha": "", "code": HISTORY, "by": "olga"}, "no commit id"),
            ({"sha": held, "code": "RUNNER_OOM", "by": "olga"}, "none of HISTORY_REWRITTEN, MASS_UNLOAD_BLOCKED"),
            ({"sha": held, "code": HISTORY}, "`by` says who accepts"),
            ({"sha": held, "code": HISTORY, "by": "two\nlines"}, "`by` says who accepts"),
            ("go ahead", "Acceptance"),
        ):
            assert told in str(await refusal(serving, word))
        assert [one.accepted for one in (await serving.fleet()).held_back] == [None]

    async def test_an_ambiguous_prefix_is_refused(self, serving: World) -> None:
        """Both commits are named, so that the right one can be typed."""
        heads = [serving.registry.rewrite(registry(WORKERS)) for _ in range(2)]
        alike = [f"{'e' * 8}{head[8:]}" for head in heads]
        for head, sha in zip(heads, alike, strict=True):
            serving.registry.snapshots[sha] = serving.registry.snapshots[head].model_copy(update={"sha": sha})
            serving.registry.issues[sha] = ()
            await serving.result(sha)
        refused = await refusal(serving, Acceptance(sha="e" * 8, code=HISTORY, by="olga"))
        assert refused.type == "REF_AMBIGUOUS"
        assert all(sha in str(refused) for sha in alike)
        assert (await accept(serving, HISTORY, alike[0][:10])).sha == alike[0]

    async def test_twice_accepted_is_once_accepted(self, serving: World) -> None:
        """The first word counts, before the commit is applied and after."""
        sha = serving.registry.push(registry(WORKERS))
        await serving.result(sha)
        first, second = await asyncio.gather(accept(serving, UNLOAD, sha), accept(serving, UNLOAD, sha, by="otto"))
        assert first == second
        assert (await applied(serving, sha)).accepted == (first,)
        assert await accept(serving, UNLOAD, sha, by="otto") == first
        assert (await serving.fleet()).generation == 2

    async def test_the_list_is_bounded(self, serving: World) -> None:
        """Somebody who keeps forcing the branch does not grow the ledger without end."""
        heads = [serving.registry.rewrite(registry(WORKERS)) for _ in range(HELD_KEPT + 2)]
        for head in heads:
            await serving.result(head)
        assert [held.sha for held in (await serving.fleet()).held_back] == heads[2:]


@pytest.fixture
async def short_lived() -> AsyncIterator[World]:
    """A server that suggests continue-as-new after 40 events instead of 4,096."""
    suggest = ("--dynamic-config-value", "limit.historyCount.suggestContinueAsNew=40")
    async with real_server(*suggest) as client, world(client) as around:
        await around.start_broker()
        for letter in "abc":
            await around.device(f"worker-{letter}")
        yield around


async def test_a_new_run_of_the_fleet_knows_what_waits(short_lived: World) -> None:
    """After continue-as-new the commit is still held back, can be accepted, and is carried out."""
    await short_lived.result(short_lived.registry.push(registry(WORKERS, TEN)))
    await short_lived.settled()
    sha = short_lived.registry.push(registry(WORKERS))
    await short_lived.result(sha)
    handle = fleet_handle(short_lived)
    first_run = (await handle.describe()).run_id

    async def renewed() -> bool:
        await handle.signal(FleetWorkflow.configure, short_lived.settings.fleet)
        return (await handle.describe()).run_id != first_run

    await eventually(renewed, "the fleet continues as a new run")
    accepted = await accept(short_lived, UNLOAD, sha)
    result = await applied(short_lived, sha)
    assert result.accepted == (accepted,)


async def test_temporals_own_command_line_is_enough(real_world: World) -> None:
    """The recipe of docs/temporal.md, as it stands there."""
    await real_world.start_broker()
    for letter in "abc":
        await real_world.device(f"worker-{letter}")
    await real_world.result(real_world.registry.push(registry(WORKERS, TEN)))
    await real_world.settled()
    sha = real_world.registry.rewrite(registry(WORKERS, TEN))
    await real_world.result(sha)
    page = (Path(__file__).parents[2] / "docs" / "temporal.md").read_text()
    [recipe] = re.findall(r"`temporal (workflow update execute [^`]+--name accept [^`]+)`", page)
    filled = recipe.replace("REGISTRY ", f"{REGISTRY} ").replace('"SHA"', f'"{sha}"').replace("YOU", "olga")
    run = await asyncio.create_subprocess_exec(
        program("temporal"), *shlex.split(filled), "--address", real_world.client.service_client.config.target_host
    )
    assert await run.wait() == 0
    assert [one.by for one in (await applied(real_world, sha)).accepted] == ["olga"]
