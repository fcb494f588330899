"""What a commit on this disk would change in a fleet: planned by the code that the fleet itself plans with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from longshore.activities.planner import Planner, upon
from longshore.cli.recorded import RecordedState
from longshore.cli.validate.report import Report, check
from longshore.planning.guard import held_back
from longshore.registry.repositories.local import Found, UnusablePath, find_repository, has_changes
from longshore.schemas.failures import LongshoreError
from longshore.schemas.fleet import PlanningInput, PlanOutcome, PlanRequest, RequestKind
from longshore.schemas.plans import Cause, CauseKind, Plan
from longshore.schemas.policies import RepositoryPolicy
from longshore.schemas.registries import RegistrySnapshot
from longshore.schemas.wording import short

_A_LOOK = Cause(kind=CauseKind.DRIFT, words="it is applied: this is what the fleet does by itself")


class Invalid(Exception):
    """The broker would reject it."""

    def __init__(self, report: Report) -> None:
        super().__init__(report.summary)
        self.report = report


@dataclass(frozen=True)
class Proposal:
    plan: Plan
    asked: PlanningInput
    """What the plan was made upon, with all that the devices know."""
    desired: RegistrySnapshot
    held_back: str | None
    """Why the fleet would not carry it out before somebody accepts it."""


@dataclass(frozen=True)
class LocalRegistry:
    """One registry on this disk, as the planner asks for it."""

    found: Found | None
    """None where it lies in no repository."""
    sha: str
    """The newest commit that is more than the broker's bookkeeping; empty where files are read as they lie there."""
    base: str
    """The same, or the commit that the files would follow; empty where there is none."""
    desired: RegistrySnapshot

    async def snapshot(self, sha: str) -> RegistrySnapshot:  # noqa: ARG002 (there is no other)
        return self.desired

    async def is_ancestor(self, older: str, newer: str) -> bool:
        return self.found is not None and await self.found.repository.is_ancestor(older, newer)


async def read(path: Path, rev: str | None, policy: RepositoryPolicy) -> LocalRegistry:
    """Read a registry at `rev`, or as its files lie there. Raises UnusablePath, Invalid."""
    found = await find_repository(path, os.environ)
    base = ""
    if found is not None:
        head = await found.repository.commit_id(rev or "HEAD")
        if head is None and (rev is not None or found.bare):
            raise UnusablePath(f"there is no revision {rev or 'HEAD'}")
        base = await found.repository.effective_head(head) if head else ""
        if rev is None and (found.bare or not await has_changes(path, os.environ)):
            rev = base or None
    elif rev is not None:
        raise UnusablePath(f"{path} is in no git repository, so it has no revision {rev}")
    report = await check(path, base if rev else None, policy)
    if report.what != "registry":
        raise UnusablePath(f"{path} is a model repository, and only a registry can be planned")
    if not report.valid or report.snapshot is None:
        raise Invalid(report)
    return LocalRegistry(found, base if rev else "", base, report.snapshot)


async def read_applied(path: Path, state: RecordedState, policy: RepositoryPolicy) -> LocalRegistry:
    """Read a registry as it is applied. Raises UnusablePath, Invalid, LongshoreError REF_NOT_FOUND."""
    await _require_applied(path, await find_repository(path, os.environ), state)
    return await read(path, state.view.applied_sha, policy)


async def propose(path: Path, rev: str | None, policy: RepositoryPolicy, state: RecordedState) -> Proposal:
    """Plan what lies at `path` for the fleet in `state`.

    Of the applied commit, it is what the fleet does by itself. Raises UnusablePath, Invalid, and LongshoreError
    COMMIT_STALE, HISTORY_REWRITTEN where the fleet would not look at the plan, REF_NOT_FOUND where that is not known.
    """
    registry, view = await read(path, rev, policy), state.view
    await _require_applied(path, registry.found, state)
    planner = Planner(registry, state)
    reconciles = registry.sha != "" and registry.sha == view.applied_sha
    request = PlanRequest(
        request_id="",
        registry=view.registry,
        sha=registry.sha,
        workers=tuple(sorted(registry.desired.workers)),
        kind=RequestKind.RECONCILE if reconciles else RequestKind.COMMIT,
        cause=_A_LOOK if reconciles else None,
    )
    asked = upon(view, request, state.at)
    if registry.found is not None:
        await _require_forward(planner, registry, asked)
    plan = (await planner.reconcile(asked))[0] if reconciles else await planner.plan(asked)
    told = asked.model_copy(update={"facts": await state.facts(plan.workers)})
    return Proposal(plan, told, registry.desired, held_back(asked, plan))


async def _require_applied(path: Path, found: Found | None, state: RecordedState) -> None:
    applied = state.view.applied_sha
    if applied is not None and found is not None and await found.repository.commit_id(applied) is None:
        message = f"{path} does not have {short(applied)}, which is applied: fetch it, with its history"
        raise LongshoreError("REF_NOT_FOUND", message)


async def _require_forward(planner: Planner, registry: LocalRegistry, asked: PlanningInput) -> None:
    """Refuse what the fleet would not plan, files that lie there by the commit that they would follow."""
    applied = asked.applied_sha or ""
    outcome = await planner.outcome(registry.base, asked.applied_sha)
    what = short(registry.base) if registry.sha else f"what lies there follows {short(registry.base)}, which"
    if outcome is PlanOutcome.OUTDATED:
        raise LongshoreError("COMMIT_STALE", f"{what} is older than {short(applied)}, which is applied")
    if outcome is PlanOutcome.HISTORY_REWRITTEN and await planner.accepted_line(asked) is None:
        raise LongshoreError("HISTORY_REWRITTEN", f"{what} does not descend from {short(applied)}, which runs")
