"""The host's own queue: order, locks, and who stops whom."""

from __future__ import annotations

import asyncio

import pytest

from longshore.worker_host.commands.command_queue import CommandQueue, Rank, Turn


async def run(queue, turn, log, gate=None):
    """Enter, wait, note the turn, and hold it until `gate` opens."""
    queue.enter(turn)

    async def work():
        async with queue.granted(turn):
            log.append(turn)
            if gate is not None:
                await gate.wait()

    turn.task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    turn.task.add_done_callback(lambda _: queue.leave(turn))
    return turn.task


async def test_what_frees_goes_before_what_fills():
    """DISABLE, UNLOAD, evict, RELOAD, LOAD, whatever the order of arrival; then priority, then arrival."""
    queue, log, gate = CommandQueue(1), [], asyncio.Event()
    blocker = await run(queue, Turn("blocker", 1, Rank.LOAD), log, gate)
    turns = [
        Turn("a", 1, Rank.LOAD, priority=10),
        Turn("b", 1, Rank.LOAD, priority=90),
        Turn("c", 1, Rank.RELOAD),
        Turn("d", 1, Rank.LOAD, priority=90),
    ]
    tasks = [await run(queue, turn, log) for turn in turns]
    gate.set()
    await asyncio.gather(blocker, *tasks)
    assert [turn.deployment_id for turn in log] == ["blocker", "c", "b", "d", "a"]


async def test_an_unload_does_not_wait_for_heavy_work():
    """A DISABLE begins while as many LOADs run as may."""
    queue, log, gate = CommandQueue(1), [], asyncio.Event()
    loading = await run(queue, Turn("slow", 1, Rank.LOAD), log, gate)
    await run(queue, Turn("other", 1, Rank.DISABLE), log)
    assert [turn.deployment_id for turn in log] == ["slow", "other"]
    gate.set()
    await loading


async def test_one_turn_at_a_time_per_deployment():
    """Even an UNLOAD waits for the command of the same deployment that is past its point of no return."""
    queue, log, gate = CommandQueue(2), [], asyncio.Event()
    first = Turn("echo", 1, Rank.LOAD)
    loading = await run(queue, first, log, gate)
    queue.commit(first)
    unloading = await run(queue, Turn("echo", 2, Rank.DISABLE), log)
    assert len(log) == 1
    gate.set()
    await asyncio.gather(loading, unloading)
    assert len(log) == 2


@pytest.mark.parametrize(("generation", "code"), [(2, "SUPERSEDED"), (1, "FENCED")])
async def test_a_newcomer_stops_what_is_older(generation, code):
    """A higher generation supersedes; the same one again means that Temporal has given the first delivery up."""
    queue, log = CommandQueue(2), []
    older = Turn("echo", 1, Rank.LOAD)
    task = await run(queue, older, log, asyncio.Event())
    await run(queue, Turn("echo", generation, Rank.LOAD), log)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert older.verdict.code == code


async def test_past_the_point_of_no_return_heavy_work_is_light():
    """A RELOAD that only drains does not keep a LOAD waiting."""
    queue, log, gate = CommandQueue(1), [], asyncio.Event()
    draining = Turn("echo", 1, Rank.RELOAD)
    task = await run(queue, draining, log, gate)
    queue.commit(draining)
    await run(queue, Turn("other", 1, Rank.LOAD), log)
    assert [turn.deployment_id for turn in log] == ["echo", "other"]
    gate.set()
    await task


async def test_a_second_try_waits_for_its_turn_like_the_first():
    """A restart that failed and is tried again takes no place that another has got meanwhile."""
    queue, gate = CommandQueue(1), asyncio.Event()
    again = Turn("echo", 1, Rank.LOAD)
    queue.enter(again)
    async with queue.granted(again):
        queue.commit(again)
    other = await run(queue, Turn("other", 1, Rank.LOAD), [], gate)

    async def second_try():
        async with queue.granted(again):
            assert other.done()

    trying = again.task = asyncio.create_task(second_try())
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(other, trying)


async def test_between_two_tries_a_turn_can_be_stopped():
    """A restart that failed past its flip and waits for its next try does not keep a command waiting."""
    queue = CommandQueue(1)
    restart = Turn("echo", 1, Rank.LOAD)
    queue.enter(restart)
    async with queue.granted(restart):
        queue.commit(restart)
    restart.task = asyncio.create_task(asyncio.Event().wait())
    queue.enter(Turn("echo", 2, Rank.LOAD))
    with pytest.raises(asyncio.CancelledError):
        await restart.task
