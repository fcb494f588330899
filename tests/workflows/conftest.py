"""Fixtures of the workflow tests: a Temporal server, and a world around it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

# The small fleets and registries of the planning tests serve here too.
sys.path.append(str(Path(__file__).parents[1] / "planning"))

from rollout_stage import Stage
from workflow_world import World, real_server, time_skipping_server, world


@pytest.fixture
async def bare_world() -> AsyncIterator[World]:
    """A server and a registry; broker and devices are the test's to start."""
    async with time_skipping_server() as client, world(client) as around:
        yield around


@pytest.fixture
async def fleet_world(bare_world: World) -> World:
    """A broker that runs, and three devices that are on."""
    await bare_world.start_broker()
    for letter in "abc":
        await bare_world.device(f"worker-{letter}")
    return bare_world


@pytest.fixture
async def real_world() -> AsyncIterator[World]:
    """The real server, for what the small one gets wrong: it refuses to cancel an activity that is just completing."""
    async with real_server() as client, world(client) as around:
        yield around


@pytest.fixture
async def stage(real_world: World) -> Stage:
    """A rollout's surroundings: two devices, two commits and a fleet that only listen."""
    made = Stage(real_world)
    await made.open()
    return made
