"""An operator's orders to the fleet, and what the ledger keeps of them (signals and updates, PRD §5.5)."""

from __future__ import annotations

from typing import Literal

from longshore.schemas.base import Message


class Order(Message):
    """One order: the argument of the fleet's update `order` and of the signal `give_order`."""

    kind: Literal["cordon", "drain", "uncordon", "pause", "resume", "abort", "release", "reconcile"]
    """cordon, drain, uncordon: a worker. pause, resume, abort, release: a deployment. reconcile: the fleet."""
    target: str = ""
    """The worker's or the deployment's id."""
    by: str = ""
    """Who says so, for the audit trail: `user@host` from our command line."""
    reason: str = ""


class OrderAnswer(Message):
    accepted: bool
    words: str
    """What happens now, or why nothing does."""
    workflow_id: str | None = None
    """The reconciliation that carries it out, where one has been started."""


class Cordon(Message):
    """A device that takes nothing new (cordon), or from which all is moved away (drain)."""

    worker_id: str
    kind: Literal["cordon", "drain"]
    by: str = ""
    reason: str = ""


class Hold(Message):
    """What keeps one deployment from being commanded. It outlives the rollout: else the next look would undo it."""

    deployment_id: str
    kind: Literal["paused", "aborted", "quarantined"]
    """paused: no commands but DISABLE's. aborted, quarantined: no LOAD or RELOAD to `digest`."""
    digest: str | None = None
    version: str | None = None
    """What is held; None: whatever is wanted. A commit with another digest leaves the hold behind."""
    by: str = ""
    reason: str = ""
    workers: tuple[str, ...] = ()
    """The devices on which it has failed, where it is quarantined."""
