"""From records to routes. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from longshore.schemas.commands import UnloadReason
from longshore.schemas.deployments import DeploymentSpec
from longshore.worker_host.journal import Record
from longshore.worker_host.runners.instances import MAX_REQUESTS, Instance, RunPaths
from longshore.xds.routing import Backend, Route, RoutingTable, Unavailable

# An instance gets all requests or none; a canary will be the first to share.
_ALL = 100


def backend(instance: Instance, paths: RunPaths) -> Backend:
    return Backend(
        instance_id=instance.instance_id,
        socket=str(paths.socket(instance.instance_id)),
        version=instance.version,
        max_requests=MAX_REQUESTS,
    )


def to_instance(instance: Instance, paths: RunPaths) -> Route:
    """Return the route that gives one instance all requests of its deployment."""
    return Route(
        deployment_id=instance.deployment_id,
        endpoint=instance.spec.endpoint,
        backends=(backend(instance, paths),),
        weights={instance.instance_id: _ALL},
    )


def require_address(spec: DeploymentSpec) -> None:
    """Raise MANIFEST_INVALID for an endpoint that no route can be made of, before anything remembers it."""
    Route(deployment_id=spec.deployment_id, endpoint=spec.endpoint, unavailable=Unavailable.NOT_LOADED)


def to_nobody(record: Record, reason: Unavailable) -> Route:
    return Route(deployment_id=record.deployment_id, endpoint=record.endpoint, unavailable=reason)


def after_unload(reason: UnloadReason) -> Unavailable | None:
    """Return what callers are told once a model has gone; None: that there is no such deployment."""
    match reason:
        case UnloadReason.DISABLED:
            return Unavailable.DISABLED
        case UnloadReason.REMOVED:
            return None
        case UnloadReason.SCALED_DOWN | UnloadReason.EVICTED:
            return Unavailable.NOT_LOADED


def table(records: Iterable[Record], alive: AbstractSet[str], paths: RunPaths) -> RoutingTable:
    """Return the routes of a daemon that starts: to what serves and is alive, and a reason for the rest."""
    routes = []
    for record in records:
        if record.serving and record.serving.instance_id in alive:
            routes.append(to_instance(record.serving, paths))
        elif record.unavailable:
            routes.append(to_nobody(record, record.unavailable))
    return RoutingTable(tuple(routes))
