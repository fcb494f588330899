"""What traffic should do, in our own words: plain data without a protobuf in it.

A `RoutingTable` says for every deployment which runner processes answer it and in which shares, or why none does.
`resources` translates it for Envoy; nothing else of Longshore needs to know Envoy's vocabulary.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from longshore.schemas.failures import LongshoreError

# `sun_path` holds 108 bytes on Linux and 104 on macOS, with the closing NUL. Envoy NACKs a longer pipe.
MAX_SOCKET_PATH = 103 if sys.platform == "darwin" else 107


def check_socket_path(path: Path | str) -> str:
    """Return `path` as text. Raises LongshoreError SOCKET_PATH_TOO_LONG where no Unix socket can be bound there."""
    text = str(path)
    size = len(text.encode())
    if size > MAX_SOCKET_PATH:
        raise LongshoreError(
            "SOCKET_PATH_TOO_LONG", f"{text} has {size} bytes; a Unix socket's path holds {MAX_SOCKET_PATH}"
        )
    return text


def cluster_name(instance_id: str) -> str:
    """Return Envoy's name for a runner: one per process, never used again, without dots (they separate statistics)."""
    return f"runner-{instance_id}"


class Unavailable(StrEnum):
    """Why nothing answers a deployment. The value ends the `type` of the problem that callers get."""

    DISABLED = "disabled"
    NOT_LOADED = "not-loaded"
    DRAINING = "draining"


@dataclass(frozen=True)
class Backend:
    """One runner process: its Unix socket, the model version that it serves, and how many requests it holds at once."""

    instance_id: str
    socket: str
    version: str
    max_requests: int

    def __post_init__(self) -> None:
        check_socket_path(self.socket)
        if self.max_requests < 1:
            raise ValueError(f"max_requests of {self.instance_id} is {self.max_requests}; a runner holds at least 1")

    @property
    def cluster(self) -> str:
        return cluster_name(self.instance_id)


class Address(NamedTuple):
    """The part of a manifest's endpoint that a request can be recognised by."""

    host: str
    path: str


@dataclass(frozen=True)
class Route:
    """How one deployment is answered.

    `weights` maps instance ids to shares; those that it leaves out get none, and an empty mapping shares equally.
    `unavailable` wins over backends: they stay connected, and callers get its problem. `hash_on` names a request
    header whose value decides between weighted backends, so that one user always meets one version; `mirror`
    receives a copy of each request and answers nobody.

    Raises ValueError for a route that could answer nothing, and LongshoreError MANIFEST_INVALID for an endpoint
    that is no URI.
    """

    deployment_id: str
    endpoint: str | None
    backends: tuple[Backend, ...] = ()
    weights: Mapping[str, int] = field(default_factory=dict)
    unavailable: Unavailable | None = None
    hash_on: str | None = None
    mirror: Backend | None = None

    def __post_init__(self) -> None:
        _ = self.address
        strangers = set(self.weights) - {backend.instance_id for backend in self.backends}
        if strangers:
            raise ValueError(f"{self.deployment_id}: weights for {sorted(strangers)}, which are no backends of it")
        if any(weight < 0 for weight in self.weights.values()):
            raise ValueError(f"{self.deployment_id}: a weight is negative")
        if self.unavailable is None and not self.shares:
            raise ValueError(f"{self.deployment_id}: nothing answers, and no reason is given")

    @property
    def shares(self) -> tuple[tuple[Backend, int], ...]:
        """The backends that get requests, with their weights; never one with a weight of zero."""
        weights = self.weights or {backend.instance_id: 1 for backend in self.backends}
        pairs = ((backend, weights.get(backend.instance_id, 0)) for backend in self.backends)
        return tuple((backend, weight) for backend, weight in pairs if weight > 0)

    @property
    def members(self) -> tuple[Backend, ...]:
        """Every backend that Envoy must know, the mirror included."""
        return (*self.backends, self.mirror) if self.mirror else self.backends

    @property
    def address(self) -> Address | None:
        """Host and path of the endpoint; None where it has no host (`urn:…`) or there is no endpoint."""
        if self.endpoint is None:
            return None
        try:
            parts = urlsplit(self.endpoint)
            host = parts.hostname
        except ValueError as error:
            raise LongshoreError(
                "MANIFEST_INVALID", f"{self.deployment_id}: endpoint {self.endpoint!r}: {error}"
            ) from error
        return Address(f"[{host}]" if ":" in host else host, parts.path or "/") if host else None


@dataclass(frozen=True)
class RoutingTable:
    """One route per deployment, in the order of their ids, so that equal tables give equal resources."""

    routes: tuple[Route, ...] = ()

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.routes, key=lambda route: route.deployment_id))
        if len({route.deployment_id for route in ordered}) < len(ordered):
            raise ValueError("a deployment has two routes")
        object.__setattr__(self, "routes", ordered)

    def get(self, deployment_id: str) -> Route | None:
        return next((route for route in self.routes if route.deployment_id == deployment_id), None)

    def with_route(self, route: Route) -> RoutingTable:
        """Return a table in which `route` is the one of its deployment."""
        return RoutingTable((*self.without(route.deployment_id).routes, route))

    def without(self, deployment_id: str) -> RoutingTable:
        return RoutingTable(tuple(route for route in self.routes if route.deployment_id != deployment_id))

    @property
    def backends(self) -> tuple[Backend, ...]:
        """Every backend of every route, once each."""
        return tuple(dict.fromkeys(backend for route in self.routes for backend in route.members))
