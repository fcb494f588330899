"""Fixtures of the tests in which every part is real (`e2e/`, `chaos/`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from system import System


@pytest.fixture
async def system() -> AsyncIterator[System]:
    """Temporal and a broker that run; worker hosts are the test's to start. Nothing is left behind."""
    from system import System  # noqa: PLC0415 (it loads Temporal's client, which the pure tests do without)

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
