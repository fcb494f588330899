"""What a test turns off, to see that it is missed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutations:
    """Mechanisms that are turned off, to see that the simulator misses them."""

    no_fencing: bool = False
    """Devices keep to no generation and no lease."""
    no_waiting: bool = False
    """A command does not wait for the room that is made for it."""
