"""Looking now: hints are merged, and what fails is tried again."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from longshore.broker.looking import ATTEMPTS, LookNow
from longshore.schemas.failures import LongshoreError


class Outside:
    """A branch and the commits that are started, both in memory."""

    def __init__(self) -> None:
        self.head = "a"
        self.looks = 0
        self.failing = 0
        self.started: asyncio.Queue[str] = asyncio.Queue()
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def look(self) -> str:
        self.looks += 1
        self.entered.set()
        await self.go_on.wait()
        if self.failing:
            self.failing -= 1
            raise LongshoreError("GIT_UNREACHABLE", "no route to host")
        return self.head

    async def start_commit(self, sha: str) -> None:
        self.started.put_nowait(sha)


async def test_a_burst_of_hints_is_two_looks() -> None:
    """However many deliveries arrive during a look, one more look follows, and it sees the newest head."""
    outside = Outside()
    look_now = LookNow(outside, outside, pause_seconds=0)
    task = asyncio.create_task(look_now.run())
    outside.go_on.clear()
    look_now()
    await outside.entered.wait()
    for _ in range(500):
        look_now()
    outside.head = "b"
    outside.go_on.set()
    async with asyncio.timeout(10):
        assert [await outside.started.get(), await outside.started.get()] == ["b", "b"]
    for _ in range(10):
        await asyncio.sleep(0)
    await ended(task)
    assert outside.looks == 2


async def test_a_host_that_is_not_ready_is_asked_again() -> None:
    """A webhook may come before its commit can be fetched."""
    outside = Outside()
    outside.failing = ATTEMPTS - 1
    look_now = LookNow(outside, outside, pause_seconds=0)
    task = asyncio.create_task(look_now.run())
    look_now()
    async with asyncio.timeout(10):
        assert await outside.started.get() == "a"
    await ended(task)
    assert outside.looks == ATTEMPTS


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
