"""Fixtures of the tests in which every part is real."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from system import System


@pytest.fixture
async def system() -> AsyncIterator[System]:
    """Temporal and a broker that run; worker hosts are the test's to start. Nothing is left behind."""
    whole = System()
    try:
        whole.start_temporal()
        whole.start_broker()
        yield whole
    finally:
        whole.stop()


@pytest.fixture
async def three_workers(system: System) -> System:
    """A system with three worker hosts whose configurations are not pushed yet."""
    for letter in "abc":
        system.start_worker(f"worker-{letter}")
    return system
