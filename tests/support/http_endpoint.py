"""A real HTTP server on the loopback that keeps what it was asked and answers what a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    """As it was sent: percent-encoded, with the query."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: Any
    """JSON, read."""


@dataclass(frozen=True)
class Answer:
    code: int = 200
    body: str = "{}"
    headers: Mapping[str, str] = field(default_factory=dict)


class Endpoint:
    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.asked: list[Asked] = []
        self.answer: Callable[[Asked], Answer] = lambda _: Answer()


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, json.loads(body))
            here.asked.append(asked)
            answer = here.answer(asked)
            self.send_response(answer.code)
            for name, value in {**answer.headers, "Content-Length": str(len(answer.body.encode()))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body.encode())

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here = Endpoint(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
