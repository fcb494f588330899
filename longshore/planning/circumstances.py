"""What a plan is made for: a push or a reconciliation, when, within which limits, and what operators hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from longshore.schemas.fleet import PlanLimits, PlanningInput, RequestKind
from longshore.schemas.ledger import Key
from longshore.schemas.orders import Hold
from longshore.schemas.plans import DeploymentPlan
from longshore.schemas.rollouts import Steering


@dataclass(frozen=True)
class Circumstances:
    reconciling: bool
    """A push is a retry of all that has failed; a reconciliation keeps to the failure table."""
    now: datetime | None
    limits: PlanLimits
    holds: tuple[Hold, ...]
    orphaned: frozenset[str]
    """Deployments of which something is under way that nobody sees to."""
    adopted: frozenset[Key]
    """What was found in reports, and no plan has brought."""

    @classmethod
    def of(cls, asked: PlanningInput) -> Circumstances:
        """Return those of a request; what it has adopted is not told by it."""
        return cls(
            reconciling=asked.request.kind is RequestKind.RECONCILE,
            now=asked.now,
            limits=asked.limits,
            holds=asked.holds,
            orphaned=frozenset(asked.orphaned),
            adopted=frozenset(),
        )

    def hold(self, deployment_id: str, digest: str) -> Hold | None:
        """Return what holds a deployment back; one of another digest is left behind."""
        return hold_of(deployment_id, digest, self.holds)


def hold_of(deployment_id: str, digest: str, holds: Iterable[Hold]) -> Hold | None:
    """Return what holds a version back. Pausing forbids the most."""
    its = [hold for hold in holds if hold.deployment_id == deployment_id and hold.digest in (None, digest)]
    return min(its, key=lambda hold: hold.kind != "paused", default=None)


def word_to(plan: DeploymentPlan, holds: Iterable[Hold]) -> Steering:
    """Return what the rollout of a plan is to be told of the holds of this moment; `resume` where nothing holds it.

    A pause always: what was under way is in the plan, and may not have begun. An abort only where the plan did not know
    of it: else it commands nothing but what may be commanded all the same.
    """
    hold = hold_of(plan.deployment_id, plan.digest, holds) if plan.digest is not None else None
    if hold is None or (hold.kind != "paused" and plan.held):
        return Steering(kind="resume", generation=plan.generation)
    return Steering(
        kind="pause" if hold.kind == "paused" else "abort",
        generation=plan.generation,
        reason=hold.reason,
        by=hold.by,
        code="QUARANTINED" if hold.kind == "quarantined" else "ABORTED",
    )


def told(hold: Hold) -> str:
    """Say what a hold is, by whom and why."""
    by = f" by {hold.by}" if hold.by else ""
    why = hold.reason or (f"it failed on {', '.join(hold.workers)}" if hold.workers else "")
    return f"{hold.kind}{by}: {why}" if why else f"{hold.kind}{by}"
