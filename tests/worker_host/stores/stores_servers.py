"""Servers that misbehave on request: an artifact store over HTTP, and git over HTTP."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Fault:
    """What one request is answered with instead of the object. `cut` and `stall` are numbers of bytes."""

    status: int = 0
    cut: int | None = None
    stall: int | None = None


@dataclass
class Stored:
    data: bytes
    etag: str | None = ""
    chunked: bool = False

    def __post_init__(self):
        if self.etag == "":
            self.etag = f'"{hashlib.sha256(self.data).hexdigest()[:16]}"'


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.released = threading.Event()
        self.stalled = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def close(self) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request, client_address) -> None:
        """Clients that hang up are what these tests are about."""


class ArtifactServer(Server):
    """Serves `objects` by path, with ranges; the next `faults` come first. `ranges` are the ranges asked for."""

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        self.faults: deque[Fault] = deque()
        self.ranges: list[str | None] = []
        super().__init__(_ArtifactHandler)

    def put(self, path: str, data: bytes, **facts) -> str:
        self.objects[path] = Stored(data, **facts)
        return self.url + path


class _ArtifactHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ArtifactServer

    def do_GET(self):
        self.server.ranges.append(self.headers.get("Range"))
        fault = self.server.faults.popleft() if self.server.faults else Fault()
        stored = self.server.objects.get(urlsplit(self.path).path)
        if fault.status or stored is None:
            self.send_response(fault.status or 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data, start = stored.data, 0
        span = re.fullmatch(r"bytes=([0-9]+)-", self.headers.get("Range", ""))
        if span and self.headers.get("If-Range") == stored.etag:
            start = int(span[1])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if stored.etag:
            self.send_header("ETag", stored.etag)
        self.send_header("Content-Type", "text/html")
        if stored.chunked:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = next((n for n in (fault.cut, fault.stall) if n is not None), len(data))
        self.wfile.write(data[start:end])
        self.wfile.flush()
        if fault.stall is not None:
            self.server.stalled.set()
            self.server.released.wait()
        if fault != Fault() or stored.chunked:
            self.close_connection = True

    def log_message(self, *_):
        """Tests are quiet."""


@dataclass
class GitServer:
    """`git http-backend` on the folder `root`. `modern` hands on GIT_PROTOCOL, without which bare ids are refused."""

    root: Path
    modern: bool = True
    status: int = 0
    stall: bool = False
    fetches: int = 0
    server: Server = field(init=False)

    def __post_init__(self):
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                owner.answer(self)

            do_POST = do_GET  # noqa: N815 (the base class calls it so)

            def log_message(self, *_):
                """Tests are quiet."""

        self.server = Server(Handler)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.fetches += 1
        if self.stall:
            self.server.stalled.set()
            self.server.released.wait()
        if self.status:
            request.send_response(self.status)
            request.send_header("WWW-Authenticate", "Basic")
            request.end_headers()
            return
        parts = urlsplit(request.path)
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "HOME": str(self.root),
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "REQUEST_METHOD": request.command,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
        }
        if self.modern and request.headers.get("Git-Protocol"):
            env["GIT_PROTOCOL"] = request.headers["Git-Protocol"]
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        request.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)
