"""Circuit breakers, with a clock of our own (PRD §8.3)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from longshore.schemas.devices import BreakerState
from longshore.schemas.failures import LongshoreError
from longshore.worker_host.breakers import Breaker


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker("storage", clock=clock)


async def fail(breaker, code="STORAGE_UNAVAILABLE"):
    with pytest.raises(LongshoreError, match=code):
        async with breaker.guard():
            raise LongshoreError(code, "no")


async def succeed(breaker):
    async with breaker.guard():
        pass


async def opened(breaker):
    for _ in range(5):
        await fail(breaker)


async def refused(breaker):
    with pytest.raises(LongshoreError) as caught:
        await succeed(breaker)
    return caught.value.code == "CIRCUIT_OPEN"


async def test_five_failures_running_open_it(breaker):
    """The sixth operation is not attempted."""
    await opened(breaker)
    assert breaker.state is BreakerState.OPEN
    assert await refused(breaker)


async def test_a_success_in_between_starts_the_count_anew(breaker):
    """Only consecutive failures count."""
    for _ in range(4):
        await fail(breaker)
    await succeed(breaker)
    await fail(breaker)
    assert breaker.state is BreakerState.CLOSED


async def test_what_the_service_answers_is_no_failure_of_it(breaker):
    """A missing object shows that the store is there."""
    for _ in range(4):
        await fail(breaker)
    await fail(breaker, "ARTIFACT_MISSING")
    await fail(breaker)
    assert breaker.report().failures == 1


async def test_cancellation_says_nothing(breaker):
    """Neither a failure nor a success: four failures stay four."""
    for _ in range(4):
        await fail(breaker)
    with pytest.raises(asyncio.CancelledError):
        async with breaker.guard():
            raise asyncio.CancelledError
    assert breaker.report().failures == 4


async def test_after_a_minute_one_probe_may_pass(breaker, clock):
    """While it is under way everybody else is refused; its success closes the breaker."""
    await opened(breaker)
    clock.now += 60
    assert breaker.state is BreakerState.HALF_OPEN
    async with breaker.guard():
        assert await refused(breaker)
    assert breaker.state is BreakerState.CLOSED
    assert breaker.report().failures == 0


async def test_a_failed_probe_opens_it_for_another_minute(breaker, clock):
    """The pause begins anew."""
    await opened(breaker)
    clock.now += 60
    await fail(breaker)
    clock.now += 59
    assert breaker.state is BreakerState.OPEN
    clock.now += 1
    await succeed(breaker)
    assert breaker.state is BreakerState.CLOSED


async def test_a_cancelled_probe_makes_room_for_the_next(breaker, clock):
    """A breaker never stays half-open with nobody probing."""
    await opened(breaker)
    clock.now += 60
    with pytest.raises(asyncio.CancelledError):
        async with breaker.guard():
            raise asyncio.CancelledError
    await succeed(breaker)
    assert breaker.state is BreakerState.CLOSED


async def test_it_reports_when_it_opened_and_when_it_tries_again(breaker, clock):
    """Times are by the wall clock, though it reckons with another one."""
    now = datetime(2025, 11, 22, 12, tzinfo=UTC)
    assert breaker.report(now).next_try is None
    await opened(breaker)
    clock.now += 10
    report = breaker.report(now)
    assert (report.state, report.failures) == (BreakerState.OPEN, 5)
    assert report.opened_at == now - timedelta(seconds=10)
    assert report.next_try == now + timedelta(seconds=50)
