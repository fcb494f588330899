"""What a plan is made for: a push or a reconciliation, when, within which limits, and what operators hold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from longshore.schemas.fleet import PlanLimits, PlanningInput, RequestKind
from longshore.schemas.ledger import Key
from longshore.schemas.orders import Hold


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
        holds = [h for h in self.holds if h.deployment_id == deployment_id and h.digest in (None, digest)]
        # Pausing forbids the most.
        return min(holds, key=lambda hold: hold.kind != "paused", default=None)


def told(hold: Hold) -> str:
    """Say what a hold is, by whom and why."""
    by = f" by {hold.by}" if hold.by else ""
    why = hold.reason or (f"it failed on {', '.join(hold.workers)}" if hold.workers else "")
    return f"{hold.kind}{by}: {why}" if why else f"{hold.kind}{by}"
