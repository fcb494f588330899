"""What a device is asked, what it remembers of each deployment, and the rules that it keeps to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from longshore.schemas.commands import Action, CommandResult, UnloadReason
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.devices import ModelReport
from longshore.schemas.failures import Failure
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.slots import Demand


@dataclass(eq=False)
class Errand:
    """One command on its way: Temporal delivers it, again and again, until it has ended or nobody waits any more."""

    deployment_id: str
    worker_id: str
    generation: int
    action: Action
    spec: DeploymentSpec | None
    reason: UnloadReason | None
    recreate: bool
    ended: Callable[[CommandResult | Failure], None]
    attempt: int = 0
    open: bool = True

    def __str__(self) -> str:
        version = f" {self.spec.version}" if self.spec else f" ({self.reason})"
        return f"{self.action} {self.deployment_id}{version}, generation {self.generation}"


@dataclass
class Entry:
    """What the journal knows of one deployment."""

    generation: int = 0
    state: ModelState = ModelState.IDLE
    spec: DeploymentSpec | None = None
    """What serves."""
    coming: DeploymentSpec | None = None
    instead: bool = False
    """What comes takes the room of what serves: that goes first."""
    completed: CommandResult | None = None
    failed: Failure | None = None
    tries: int = 0
    """Failed ones of this generation."""
    acted: int = 0
    """The generation of the last command that had an effect."""

    @property
    def demand(self) -> Demand:
        here, coming = (Demand.of(s.card.resources) if s else Demand() for s in (self.spec, self.coming))
        return here.at_least(coming) if self.instead else here + coming

    def leave(self) -> None:
        """Settle what is broken off: what served serves on."""
        self.coming = None
        if self.state in (ModelState.LOADING, ModelState.RELOADING, ModelState.UNLOADING):
            self.state = ModelState.READY if self.spec is not None else ModelState.IDLE

    def told(self, deployment_id: str) -> ModelReport:
        return ModelReport(
            deployment_id=deployment_id,
            state=self.state,
            generation=self.generation,
            version=self.spec.version if self.spec else None,
            digest=self.spec.digest if self.spec else None,
            incoming_version=self.coming.version if self.coming else None,
            error=self.failed,
            reserved=self.demand,
        )


@dataclass(eq=False)
class Work:
    """One attempt of an errand, on the device."""

    errand: Errand
    attempt: int
    begun: bool = False
    committed: bool = False
    """Past the point of no return: nothing stops it."""


@dataclass
class Rules:
    """What the device keeps to; a test turns one off, to see that it is missed."""

    generations: bool = True
    leases: bool = True
