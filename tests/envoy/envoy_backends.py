"""What stands on both sides of Envoy in these tests: a backend on a Unix socket, and clients under load."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


async def until(condition: Callable[[], Any]) -> None:
    """Poll until `condition` (a function, or one that returns an awaitable) is true, for at most 20 s."""
    async with asyncio.timeout(20):
        while True:
            value = condition()
            if await value if inspect.isawaitable(value) else value:
                return
            await asyncio.sleep(0.005)


async def read_head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    return first, {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


class FakeRunner:
    """Answers every request with its version, keeps connections open for ever, and counts them."""

    def __init__(self, socket: Path, version: str) -> None:
        self.socket = socket
        self.version = version
        self.connections = 0
        self.requests = 0
        self.hold = asyncio.Event()
        """Answers wait for it."""
        self.hold.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._connected, self.socket)

    async def stop(self) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())
        self.connections += 1
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                while True:
                    _, headers = await read_head(reader)
                    await reader.readexactly(int(headers.get("content-length", "0")))
                    self.requests += 1
                    await self.hold.wait()
                    body = json.dumps({"version": self.version}).encode()
                    writer.write(
                        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % len(body)
                        + f"x-model-version: {self.version}\r\n\r\n".encode()
                        + body
                    )
                    await writer.drain()
        finally:
            self.connections -= 1
            writer.close()
            self._tasks.discard(asyncio.current_task())


class Load:
    """Clients that ask without a pause over connections that they keep."""

    def __init__(self, port: int, path: str, connections: int) -> None:
        self.seen: Counter[str] = Counter()
        """`status version` → how often."""
        self.failures: list[str] = []
        self._port = port
        self._path = path
        self._tasks = [asyncio.create_task(self._client()) for _ in range(connections)]

    @property
    def total(self) -> int:
        return sum(self.seen.values())

    async def beyond(self, count: int) -> None:
        """Return when `count` more requests have been answered."""
        target = self.total + count
        await until(lambda: self.total >= target)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _client(self) -> None:
        request = f"POST {self._path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{{}}".encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            while True:
                writer.write(request)
                first, headers = await read_head(reader)
                await reader.readexactly(int(headers["content-length"]))
                status = first.split()[1]
                self.seen[f"{status} {headers.get('x-model-version')}"] += 1
                if status != "200":
                    self.failures.append(first)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.failures.append(repr(error))
            raise
        finally:
            writer.close()
