"""One delivery of one command, from its arrival to its end."""

from __future__ import annotations

from dataclasses import dataclass

from longshore.activities.devices import Lease
from longshore.schemas.commands import CommandProgress
from longshore.schemas.failures import LongshoreError
from longshore.worker_host.commands.command_queue import CommandQueue, Turn
from longshore.worker_host.commands.steps import Steps


@dataclass(frozen=True)
class Attempt:
    generation: int
    lease: Lease
    turn: Turn
    queue: CommandQueue
    steps: Steps

    async def pass_point_of_no_return(self) -> None:
        """Confirm the lease one last time; from here on the attempt completes whatever happens. Raises FENCED."""
        await self.lease.confirm()
        if self.turn.stopped:
            raise LongshoreError("FENCED", f"generation {self.generation} was stopped before its route changed")
        self.queue.commit(self.turn)


class OwnInitiative:
    """The lease of what the host does without being told: a restart of a crashed runner."""

    def beat(self, progress: CommandProgress) -> None:
        """Nobody listens."""

    async def confirm(self) -> None:
        """Always holds: the queue alone decides."""
