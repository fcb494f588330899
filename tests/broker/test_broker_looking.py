"""Looking now: hints are merged, what fails is tried again, and what was promised is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from repositories import Registry
from structlog.testing import capture_logs

from longshore.broker.looking import ATTEMPTS, AWAITED, LookNow
from longshore.broker.registry_service import RegistryService
from longshore.registry.repositories.git import Git
from longshore.schemas.failures import LongshoreError


class Outside:
    """A branch and the commits that are started, both in memory."""

    def __init__(self) -> None:
        self.history = ["a"]
        self.later: list[str] = []
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
        head = self.history[-1]
        self.history += self.later[:1]  # what can be read at the next look
        del self.later[:1]
        self.seen = self.history[: self.history.index(head) + 1]
        return head

    async def has(self, sha: str) -> bool:
        return sha in self.seen

    async def start_commit(self, sha: str) -> None:
        self.started.put_nowait(sha)


async def test_a_burst_of_hints_is_two_looks() -> None:
    """However many deliveries arrive during a look, one more look follows, and it sees the newest head (FAULTS 10)."""
    outside = Outside()
    async with looking(outside) as look_now:
        outside.go_on.clear()
        look_now()
        await outside.entered.wait()
        for number in range(500):
            look_now(f"push {number}")
        outside.history += [f"push {number}" for number in range(500)]
        outside.go_on.set()
        assert [await outside.started.get(), await outside.started.get()] == ["push 499", "push 499"]
        await settled()
    assert outside.looks == 2


async def test_a_host_that_is_not_ready_is_asked_again() -> None:
    """A webhook may come before its branch can be fetched: that is told once, not with every attempt."""
    outside = Outside()
    outside.failing = ATTEMPTS - 1
    with capture_logs() as logs:
        async with looking(outside) as look_now:
            look_now()
            assert await outside.started.get() == "a"
    assert outside.looks == ATTEMPTS
    assert [entry["event"] for entry in logs] == ["registry_unreadable"]


async def test_a_promised_commit_is_waited_for() -> None:
    """A webhook may come before its commit can be read: finding the old head is not the end of it (FAULTS 8)."""
    outside = Outside()
    outside.later = ["b"]
    async with looking(outside) as look_now:
        look_now("b")
        assert [await outside.started.get(), await outside.started.get()] == ["a", "b"]
        await settled()
    assert outside.looks == 2


async def test_a_commit_that_never_comes_is_left_to_the_poll() -> None:
    """A forced push may take it away before anyone looks: the attempts end, and the next hint is heard."""
    outside = Outside()
    async with looking(outside) as look_now:
        look_now("taken away")
        assert [await outside.started.get() for _ in range(ATTEMPTS)] == ["a"] * ATTEMPTS
        await settled()
        assert outside.looks == ATTEMPTS
        look_now("a")
        assert await outside.started.get() == "a"
        await settled()
    assert outside.looks == ATTEMPTS + 1


async def test_a_hint_that_comes_late_does_not_end_the_wait() -> None:
    """The delivery of A after that of B: the head is what counts, and B is still waited for (FAULTS 9)."""
    outside = Outside()
    async with looking(outside, pause_seconds=20) as look_now:
        look_now("b")
        assert await outside.started.get() == "a"
        await settled()
        outside.later = ["b"]
        look_now("a")  # it ends the pause
        assert await outside.started.get() == "a"
        await settled()
        look_now()
        assert await outside.started.get() == "b"
        await settled()
        assert outside.looks == 3
        look_now()
        assert await outside.started.get() == "b"
        await settled()
    assert outside.looks == 4


async def test_what_is_waited_for_is_bounded() -> None:
    """Promises that nobody keeps do not add up."""
    look_now = LookNow(Outside(), Outside())
    for number in range(100):
        look_now(str(number))
    assert list(look_now._awaited) == [str(number) for number in range(100 - AWAITED, 100)]


async def test_our_own_commits_go_round_no_loop(tmp_path: Path) -> None:
    """The host tells of the state commit that the broker pushed: one look, and only the operator's (FAULTS 16)."""
    registry = Registry(tmp_path)
    operators = registry.push("Deploy")
    (registry.clone / "transactions" / "actual-state.yaml").write_text("models: {}\n")
    ours = registry.push("Record the state")
    outside = Outside()
    branch = CountedLooks(Git(tmp_path / "cache"), registry.url, "main")
    async with looking(outside, branch, pause_seconds=20) as look_now:
        for _ in range(2):
            look_now(ours)
            assert await outside.started.get() == operators
        look_now()
        assert await outside.started.get() == operators
        assert not look_now._awaited  # our commit was seen, though it is not what was started
    assert branch.looks == 3


async def test_the_branch_is_read_where_the_settings_say(tmp_path: Path) -> None:
    """An older commit's delivery comes last, and one names a commit of elsewhere: the head is started (FAULTS 5, 9)."""
    registry = Registry(tmp_path)
    older = registry.push("Begin")
    registry.worker("worker-a")
    newer = registry.push("Add a worker")
    outside = Outside()
    branch = CountedLooks(Git(tmp_path / "cache"), registry.url, "main")
    async with looking(outside, branch) as look_now:
        for hint in (newer, older, "f" * 40):
            look_now(hint)
            assert await outside.started.get() == newer


class CountedLooks(RegistryService):
    looks = 0

    async def look(self) -> str:
        self.looks += 1
        return await super().look()


@asynccontextmanager
async def looking(
    outside: Outside, branch: RegistryService | None = None, *, pause_seconds: float = 0
) -> AsyncIterator[LookNow]:
    look_now = LookNow(branch or outside, outside, pause_seconds=pause_seconds)
    task = asyncio.create_task(look_now.run())
    try:
        async with asyncio.timeout(20):
            yield look_now
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def settled() -> None:
    """Let everything happen that waits for nothing."""
    for _ in range(50):
        await asyncio.sleep(0)
