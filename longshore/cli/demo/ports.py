"""Ports on loopback: the usual one where it is free."""

from __future__ import annotations

import contextlib
import socket

LOOPBACK = "127.0.0.1"


def choose(wanted: int, taken: set[int]) -> int:
    """Return `wanted` if it is free and not in `taken`, else any free port. What is returned joins `taken`."""
    for port in (wanted, *[0] * 20):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            chosen = int(probe.getsockname()[1])
            if chosen not in taken:
                taken.add(chosen)
                return chosen
    raise OSError(f"no port is free on {LOOPBACK}")
