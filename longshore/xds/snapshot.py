"""Everything that one Envoy is told, as one immutable value that is right in itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any

from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from google.protobuf.any_pb2 import Any as AnyMessage

from longshore.xds.listeners import Listen, listener
from longshore.xds.resources import clusters, packed, route_configuration
from longshore.xds.routing import RoutingTable


class ResourceType(IntEnum):
    """The three types that we serve. Their order is the order in which they are sent (xDS protocol, "Eventual
    consistency considerations"): what is referred to goes before what refers to it.
    """

    CLUSTER = 0
    LISTENER = 1
    ROUTE = 2

    @property
    def url(self) -> str:
        return f"type.googleapis.com/{_MESSAGES[self]}"

    @classmethod
    def of_url(cls, url: str) -> ResourceType | None:
        return next((type_ for type_ in cls if type_.url == url), None)


_MESSAGES = {
    ResourceType.CLUSTER: "envoy.config.cluster.v3.Cluster",
    ResourceType.LISTENER: "envoy.config.listener.v3.Listener",
    ResourceType.ROUTE: "envoy.config.route.v3.RouteConfiguration",
}


class InconsistentSnapshotError(ValueError):
    """A resource refers to one that the snapshot does not hold."""


@dataclass(frozen=True)
class Resources:
    """All resources of one type, by name."""

    items: Mapping[str, AnyMessage]

    @classmethod
    def of(cls, messages: Iterable[Any]) -> Resources:
        """Pack protobufs that have a `name`."""
        return cls(
            MappingProxyType({message.name: packed(message) for message in sorted(messages, key=lambda m: str(m.name))})
        )

    @cached_property
    def version(self) -> str:
        """The `version_info`: a hash of the content, so that a restarted server repeats no version by accident."""
        digest = hashlib.sha256()
        for name, item in self.items.items():
            digest.update(f"{name} {len(item.value)} ".encode())
            digest.update(item.value)
        return digest.hexdigest()[:16]

    def union(self, other: Resources) -> Resources:
        """Return the resources of both; where both have a name, the one of `other`."""
        merged = {**self.items, **other.items}
        return Resources(MappingProxyType({name: merged[name] for name in sorted(merged)}))


@dataclass(frozen=True)
class Snapshot:
    """Raises InconsistentSnapshotError when a route names an absent cluster or the listener absent routes."""

    clusters: Resources
    listeners: Resources
    routes: Resources

    @classmethod
    def of(cls, table: RoutingTable, listen: Listen) -> Snapshot:
        return cls(
            clusters=Resources.of(clusters(table)),
            listeners=Resources.of([listener(listen)]),
            routes=Resources.of([route_configuration(table)]),
        )

    def __post_init__(self) -> None:
        missing = set(_clusters_named(self.routes)) - set(self.clusters.items)
        if missing:
            raise InconsistentSnapshotError(f"routes lead to clusters that do not exist: {sorted(missing)}")
        missing = set(_routes_named(self.listeners)) - set(self.routes.items)
        if missing:
            raise InconsistentSnapshotError(f"listeners use routes that do not exist: {sorted(missing)}")

    def __getitem__(self, type_: ResourceType) -> Resources:
        return {
            ResourceType.CLUSTER: self.clusters,
            ResourceType.LISTENER: self.listeners,
            ResourceType.ROUTE: self.routes,
        }[type_]

    def with_clusters(self, resources: Resources) -> Snapshot:
        return replace(self, clusters=resources)


def _clusters_named(routes: Resources) -> Iterator[str]:
    for item in routes.items.values():
        configuration = RouteConfiguration.FromString(item.value)
        for virtual_host in configuration.virtual_hosts:
            for route in virtual_host.routes:
                yield from (share.name for share in route.route.weighted_clusters.clusters)
                yield from (mirror.cluster for mirror in route.route.request_mirror_policies)


def _routes_named(listeners: Resources) -> Iterator[str]:
    for item in listeners.items.values():
        for chain in Listener.FromString(item.value).filter_chains:
            for filter_ in chain.filters:
                manager = HttpConnectionManager()
                if filter_.typed_config.Unpack(manager):
                    yield manager.rds.route_config_name
