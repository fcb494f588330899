"""The load generator against a small server of our own, which misbehaves on request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from longshore.cli.demo.load import Load, percentile

Answer = Callable[[int], bytes]


def ok(version: str = "1.0.0", more: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-model-version: " + version.encode() + b"\r\n" + more + b"\r\n{}"


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[tuple[str, list[int]]]:
    """Serve `answer(number of the request)`, an empty one closes the connection; count connections."""
    connections = [0]
    requests = [0]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections[0] += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.split(b":")[1]))
                requests[0] += 1
                bytes_ = answer(requests[0])
                if not bytes_:
                    break
                writer.write(bytes_)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/infer/x", connections


async def test_every_answer_is_counted_over_kept_connections():
    """Statuses and versions add up, and each worker needs one connection."""
    async with serving(lambda number: ok("1.0.0" if number <= 50 else "1.1.0")) as (url, connections):
        async with Load(url, {"x": 1}, connections=4) as load:
            await load.more(200)
            await load.settle()
        assert connections == [4]
    assert set(load.outcomes) == {"200"}
    assert load.total == load.versions.total() == len(load.latencies) >= 200
    assert load.versions["1.0.0"] == 50
    assert load.failed == 0


async def test_a_closed_connection_is_one_failure_and_is_opened_again():
    """A server that hangs up costs exactly the request that it did not answer."""
    async with (
        serving(lambda number: b"" if number == 10 else ok()) as (url, connections),
        Load(url, {}, connections=1) as load,
    ):
        await load.more(30)
    assert load.failed == 1
    assert load.outcomes["RemoteProtocolError"] == 1
    assert connections == [2]


async def test_an_announced_close_is_no_failure():
    """`connection: close` is obeyed and costs nothing."""
    async with (
        serving(lambda number: ok(more=b"connection: close\r\n") if number == 5 else ok()) as (url, connections),
        Load(url, {}, connections=1) as load,
    ):
        await load.more(20)
    assert set(load.outcomes) == {"200"}
    assert connections == [2]


async def test_only_what_came_after_a_mark_is_told():
    """`since` leaves out what was counted before."""
    async with (
        serving(lambda number: ok() if number <= 20 else ok().replace(b"200 OK", b"503 No")) as (url, _),
        Load(url, {}, connections=1) as load,
    ):
        await load.more(20)
        mark = load.mark()
        await load.more(20)
        assert load.since(mark)["503"] >= 19
        assert load.outcomes["200"] == 20


async def test_a_load_that_never_settles_says_so():
    """Without 50 good answers in a row `settle` ends with a TimeoutError."""
    async with Load("http://127.0.0.1:9/infer/x", {}, connections=1) as load:
        with pytest.raises(TimeoutError):
            await load.settle(0.1)
    assert set(load.outcomes) == {"ConnectionRefusedError"}


def test_percentiles_of_nothing_and_of_few():
    """The middle of few values is one of them."""
    assert percentile([], 0.5) == 0
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile([1, 2], 0.99) == 2
