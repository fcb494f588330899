"""Networks that can be cut: a TCP wire in this process, or a real link to a network namespace (root only)."""

from __future__ import annotations

import asyncio
import ctypes
import http.client
import json
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

LOOPBACK = "127.0.0.1"

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000


class Wire:
    """Carries bytes from a listener of its own to a port of this machine.

    Cut, it carries none, and nobody is told: connections stay open, and what was on its way arrives once it is healed.
    """

    def __init__(self, port: int, listener: socket.socket | None = None) -> None:
        self._target = (LOOPBACK, port)
        self._listener = listener or socket.create_server((LOOPBACK, 0))
        self._whole = threading.Event()
        self._whole.set()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def address(self) -> str:
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    def cut(self) -> None:
        self._whole.clear()

    def heal(self) -> None:
        self._whole.set()

    def close(self) -> None:
        self.heal()
        for one in (self._listener, *self._open.copy()):
            with suppress(OSError):  # it may be closed already
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _start(self, target: Callable[..., None], *arguments: Any) -> threading.Thread:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                self._start(self._join, near)

    def _join(self, near: socket.socket) -> None:
        with near, suppress(OSError):
            self._whole.wait()
            with socket.create_connection(self._target) as far:
                ends = {near, far}
                self._open |= ends
                back = self._start(self._carry, far, near)
                self._carry(near, far)
                back.join()
                self._open -= ends

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(64 * 1024):
                self._whole.wait()
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Namespace:
    """A network of its own, joined to this machine by one link. Raises OSError or CalledProcessError where not allowed.

    `address` is this machine's end of the link; `inside` runs a function as seen from the namespace.
    """

    def __init__(self) -> None:
        self.name = f"ls-{secrets.token_hex(3)}"
        subnet = f"198.18.{secrets.randbelow(256)}"  # reserved for tests (RFC 2544)
        self.address = f"{subnet}.1"
        _ip("netns", "add", self.name)
        try:
            _ip("link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", self.name)
            _ip("address", "add", f"{self.address}/30", "dev", self.name)
            _ip("link", "set", self.name, "up")
            _ip("-n", self.name, "address", "add", f"{subnet}.2/30", "dev", "eth0")
            for link in ("lo", "eth0"):
                _ip("-n", self.name, "link", "set", link, "up")
            self._inside = ThreadPoolExecutor(1, initializer=self._enter)
            self.inside(os.getpid)
        except BaseException:
            self._remove()
            raise

    @property
    def prefix(self) -> tuple[str, ...]:
        """Begins the command line of a process that lives in it."""
        return ("ip", "netns", "exec", self.name)

    def inside(self, do: Callable[[], T]) -> T:
        return self._inside.submit(do).result()

    def cut(self) -> None:
        _ip("link", "set", self.name, "down")

    def heal(self) -> None:
        _ip("link", "set", self.name, "up")

    def close(self) -> None:
        self._inside.shutdown()
        self._remove()

    def _enter(self) -> None:
        with Path(f"/run/netns/{self.name}").open() as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    def _remove(self) -> None:
        # The link would outlive the namespace for as long as something in it still runs.
        with suppress(subprocess.CalledProcessError):
            _ip("link", "delete", self.name)
        _ip("netns", "delete", self.name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Sampler:
    """Asks every door for one model, again and again, and keeps who answered each time.

    A door connects to a device's data port, from wherever that can be reached.
    """

    def __init__(self, deployment_id: str, doors: Mapping[str, Callable[[], socket.socket]]) -> None:
        self._path = f"/infer/{deployment_id}"
        self._doors = doors
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.samples: list[frozenset[str]] = []

    async def more(self) -> None:
        """Return when one more sample has been begun and taken."""
        goal = len(self.samples) + 2
        while len(self.samples) < goal:  # noqa: ASYNC110 (they come from a thread)
            await asyncio.sleep(0.02)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            self.samples.append(frozenset(name for name, door in self._doors.items() if self._answers(door)))

    def _answers(self, door: Callable[[], socket.socket]) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK)
        try:
            connection.sock = door()
            connection.request("POST", self._path, json.dumps({"x": 1}), {"content-type": "application/json"})
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def door(port: int) -> Callable[[], socket.socket]:
    return lambda: socket.create_connection((LOOPBACK, port), timeout=20)
