"""What must go from one device so that something more important fits there (PRD §5.3 phase 3)."""

from __future__ import annotations

from dataclasses import dataclass

from longshore.planning.fleet import Fleet
from longshore.schemas.plans import Awaited, DeploymentPlan, Shortfall
from longshore.schemas.slots import Demand, Slot


@dataclass(frozen=True)
class Eviction:
    """The smallest set of slots whose going makes the room."""

    victims: tuple[Slot, ...]
    """To be unloaded, the least valuable first."""
    leaving: tuple[Slot, ...] = ()
    """Being unloaded already, and waited for by nobody else."""


@dataclass(frozen=True)
class Veto:
    """Why no eviction makes the room."""

    reasons: tuple[str, ...]
    shortfalls: tuple[Shortfall, ...] = ()
    """What would be missing still with all gone that may be evicted."""


def evictable(worker_id: str, target: DeploymentPlan, fleet: Fleet) -> tuple[Slot, ...]:
    """Return the slots of a device that may go for `target`, in the order in which they go."""
    raise NotImplementedError


def choose(worker_id: str, target: DeploymentPlan, need: Demand, models: int, fleet: Fleet) -> Eviction | Veto:
    """Choose what goes from a device so that `need` and `models` more fit there; changes nothing."""
    raise NotImplementedError


def claim(eviction: Eviction, target: DeploymentPlan, fleet: Fleet) -> tuple[Awaited, ...]:
    """Mark the victims as evicted for `target`, and return what its command must wait for."""
    raise NotImplementedError
