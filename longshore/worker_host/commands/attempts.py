"""One delivery of one command, from its arrival to its end."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from longshore.activities.devices import Lease
from longshore.schemas.commands import CommandProgress
from longshore.schemas.failures import LongshoreError
from longshore.worker_host.commands.command_queue import CommandQueue, Turn
from longshore.worker_host.commands.steps import Steps

# Characters of a traceback that travel to the operator; the end of it says most. A payload holds 2 MB.
_DETAILS_CAP = 8000


def defect(error: Exception) -> LongshoreError:
    """Return INTERNAL_ERROR with the traceback of what nobody expected: it fails an attempt, not the daemon."""
    details = "".join(traceback.format_exception(error))[-_DETAILS_CAP:]
    return LongshoreError("INTERNAL_ERROR", f"{type(error).__name__}: {error}", details=details)


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
