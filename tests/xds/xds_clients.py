"""Small tables, and a client that speaks ADS as Envoy does."""

from __future__ import annotations

from typing import Any

from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest

from longshore.xds.listeners import Listen
from longshore.xds.routing import Backend, Route, RoutingTable
from longshore.xds.snapshot import Resources, ResourceType, Snapshot

LISTEN = Listen("127.0.0.1", 8080)


def backend(number: int, version: str = "1.0.0") -> Backend:
    return Backend(f"{number:010x}", f"/run/l/{number:010x}.sock", version, 16)


def table(*numbers: int) -> RoutingTable:
    """One deployment per number, each with the backend of that number."""
    return RoutingTable(tuple(Route(f"model-{number}", None, (backend(number),)) for number in numbers))


def snapshot(*numbers: int) -> Snapshot:
    return Snapshot.of(table(*numbers), LISTEN)


def offer(snapshot_: Snapshot) -> dict[ResourceType, Resources]:
    return {type_: snapshot_[type_] for type_ in ResourceType}


def ask(type_: ResourceType | str, **fields: Any) -> DiscoveryRequest:
    """A request; `node` and `build` fill the node message."""
    url = type_.url if isinstance(type_, ResourceType) else type_
    request = DiscoveryRequest(type_url=url)
    request.node.id = fields.pop("node", "device")
    request.node.user_agent_build_version.version.minor_number = fields.pop("build", 40)
    for name, value in fields.items():
        if name == "resource_names":
            request.resource_names.extend(value)
        else:
            setattr(request, name, value)
    return request


def ack(response: Any) -> DiscoveryRequest:
    return ask(response.type_url, version_info=response.version_info, response_nonce=response.nonce)


def nack(response: Any, message: str = "no") -> DiscoveryRequest:
    request = ask(response.type_url, response_nonce=response.nonce)
    request.error_detail.code = 13
    request.error_detail.message = message
    return request
