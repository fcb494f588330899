"""Fixtures of the workflow tests: a Temporal server, and a world around it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

# The small fleets and registries of the planning tests serve here too.
sys.path.append(str(Path(__file__).parents[1] / "planning"))

from workflow_world import World, time_skipping_server, world  # noqa: E402 (after the path above)


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
