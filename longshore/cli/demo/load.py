"""A load of requests over keep-alive connections, which counts every answer.

h11 over plain asyncio streams: with eight connections it asks four times as often as httpx2's client did on the same
core, and the core is what this load shares with the system under test.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import h11

RECONNECT_AFTER = 0.02  # seconds; an error is counted once, not a thousand times a second
REQUEST_TIMEOUT = 30.0  # seconds; what hangs longer is counted as TimeoutError
SETTLED = 50  # answers in a row that must be 200
CHUNK = 64 * 1024  # bytes read at once


class Connection:
    """One keep-alive connection. Any failure closes it; the next request opens it again."""

    def __init__(self, host: str, port: int, request: h11.Request, body: bytes) -> None:
        self._address = (host, port)
        self._request = request
        self._body = h11.Data(data=body)
        self._http: h11.Connection | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self) -> tuple[int, str | None]:
        """Send the request; return the status and `x-model-version`. Raises OSError or h11.ProtocolError."""
        try:
            if self._http is None:
                self._reader, self._writer = await asyncio.open_connection(*self._address)
                self._http = h11.Connection(h11.CLIENT)
            assert self._writer is not None  # noqa: S101 (opened together)
            for event in (self._request, self._body, h11.EndOfMessage()):
                self._writer.write(self._http.send(event) or b"")
            answer = await self._answer(self._http)
            if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
                self._http.start_next_cycle()
            else:
                self.close()
        except BaseException:
            self.close()
            raise
        version = next((value.decode() for name, value in answer.headers if name == b"x-model-version"), None)
        return answer.status_code, version

    async def _answer(self, http: h11.Connection) -> h11.Response:
        assert self._reader is not None  # noqa: S101 (opened together with `http`)
        answer: h11.Response | None = None
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await self._reader.read(CHUNK))
            elif isinstance(event, h11.Response):
                answer = event
            elif isinstance(event, h11.EndOfMessage) and answer is not None:
                return answer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._http = self._reader = self._writer = None


class Load:
    """`async with Load(url, document) as load`: POSTs `document` in a closed loop on each of its connections.

    Each connection waits `pause` seconds after an answer. On exit each
    connection finishes its request and stops. `outcomes` counts statuses ("200") and, for errors of the
    transport, exceptions by name; `versions` counts answers by `x-model-version`; `latencies` are in seconds.
    """

    def __init__(self, url: str, document: Any, connections: int = 8, *, pause: float = 0.0) -> None:
        parts = urlsplit(url)
        host, port = parts.hostname or "127.0.0.1", parts.port or 80
        body = json.dumps(document).encode()
        headers = [("host", parts.netloc), ("content-type", "application/json"), ("content-length", str(len(body)))]
        request = h11.Request(method="POST", target=parts.path or "/", headers=headers)
        self._connections = [Connection(host, port, request, body) for _ in range(connections)]
        self._pause = pause
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._counted = asyncio.Event()
        self._recent: deque[str] = deque(maxlen=SETTLED)
        self.outcomes: Counter[str] = Counter()
        self.versions: Counter[str] = Counter()
        self.latencies: list[float] = []

    @property
    def total(self) -> int:
        return self.outcomes.total()

    @property
    def failed(self) -> int:
        return self.total - self.outcomes["200"]

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._work(connection)) for connection in self._connections]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        if error is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=error is not None)

    async def more(self, count: int) -> None:
        """Return when `count` more requests have completed, well or not."""
        goal = self.total + count
        await self._until(lambda: self.total >= goal)

    async def settle(self, seconds: float = 30.0) -> None:
        """Return when the last 50 outcomes were 200. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            await self._until(lambda: len(self._recent) == SETTLED and set(self._recent) == {"200"})

    def mark(self) -> Counter[str]:
        """Return a moment to give to `since`."""
        return self.outcomes.copy()

    def since(self, mark: Counter[str]) -> Counter[str]:
        """Return the outcomes after `mark`."""
        return self.outcomes - mark

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._counted.clear()
            await self._counted.wait()

    async def _work(self, connection: Connection) -> None:
        while not self._stopping:
            began = time.perf_counter()
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT):
                    status, version = await connection.ask()
            except (OSError, h11.ProtocolError) as error:
                self._count(type(error).__name__)
                await asyncio.sleep(RECONNECT_AFTER)
                continue
            self.latencies.append(time.perf_counter() - began)
            self._count(str(status))
            if version is not None:
                self.versions[version] += 1
            if self._pause:
                await asyncio.sleep(self._pause)
        connection.close()

    def _count(self, outcome: str) -> None:
        self.outcomes[outcome] += 1
        self._recent.append(outcome)
        self._counted.set()


def percentile(values: list[float], share: float) -> float:
    """Return the smallest of `values` that at least `share` (0 to 1) of them do not exceed; 0 for none."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else 0.0
