"""Replay one seed, and print what happens: `python -m tests.simulation SEED`."""

from __future__ import annotations

import sys

from tests.simulation.clock import Broken
from tests.simulation.mutations import Mutations
from tests.simulation.schedule import schedule_of
from tests.simulation.world import World


def main(seed: int) -> int:
    world = World(schedule_of(seed), Mutations())
    broken = False
    try:
        world.play()
    except Broken:
        broken = True
    sys.stdout.writelines(f"{seconds:10.2f}  {who:<24}  {what}\n" for seconds, who, what in world.clock.trace)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
