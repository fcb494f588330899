"""Routing table → the clusters and the one RouteConfiguration that Envoy is given (xDS v3 protobufs).

One STATIC cluster per runner process, reached through its Unix socket; one RouteConfiguration for all deployments
(5 ms for Envoy at 100 models, 10 ms at 500). No runtime keys, no EDS, no retries: a POST is not ours to repeat.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from envoy.config.cluster.v3.circuit_breaker_pb2 import CircuitBreakers
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.address_pb2 import Address, Pipe
from envoy.config.core.v3.base_pb2 import DataSource, HeaderValue, HeaderValueOption, RuntimeFractionalPercent
from envoy.config.core.v3.protocol_pb2 import Http1ProtocolOptions, HttpProtocolOptions
from envoy.config.endpoint.v3.endpoint_components_pb2 import Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.route.v3.route_components_pb2 import (
    DirectResponseAction,
    HeaderMatcher,
    RouteAction,
    RouteMatch,
    VirtualHost,
    WeightedCluster,
)
from envoy.config.route.v3.route_components_pb2 import Route as EnvoyRoute
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2 as upstream
from envoy.type.matcher.v3.string_pb2 import StringMatcher
from envoy.type.v3.percent_pb2 import FractionalPercent
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from longshore.xds.problems import CONTENT_TYPE, METHOD_NOT_ALLOWED, UNAVAILABLE, UNKNOWN_DEPLOYMENT, Problem
from longshore.xds.routing import Backend, Route, RoutingTable

ROUTES_NAME = "models"
VERSION_HEADER = "x-model-version"

# The drain cap of PRD §6.2: a request that may last longer than its runner's drain would be cut by it.
REQUEST_TIMEOUT = timedelta(seconds=60)

# A runner on the same machine accepts at once or not at all (row A11).
CONNECT_TIMEOUT = timedelta(seconds=1)

# The only closer of an idle connection to a runner (DESIGN §5): a runner that closes on its own costs requests.
UPSTREAM_IDLE_TIMEOUT = timedelta(minutes=5)

# Request headers by which a caller could change time-outs or ask for retries; Envoy obeys them unless they are removed.
STEERING_HEADERS = (
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-max-retries",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
)


def seconds(interval: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(interval)
    return duration


def packed(message: Message) -> AnyMessage:
    """Return `message` in an Any, serialised so that equal messages give equal bytes."""
    container = AnyMessage()
    container.Pack(message, deterministic=True)
    return container


def header(name: str, value: str, action: int) -> Any:
    return HeaderValueOption(header=HeaderValue(key=name, value=value), append_action=action)


def clusters(table: RoutingTable) -> list[Any]:
    """Return a Cluster for every backend of every route."""
    return [cluster(backend) for backend in table.backends]


def cluster(backend: Backend) -> Any:
    endpoint = Endpoint(address=Address(pipe=Pipe(path=backend.socket)))
    # What exceeds the runner's own queue is refused here, at once. Twice as many connections: with no more than
    # there are requests, an excess request would wait for a connection instead of being refused.
    bound = UInt32Value(value=backend.max_requests)
    thresholds = CircuitBreakers.Thresholds(
        max_requests=bound,
        max_pending_requests=bound,
        max_connections=UInt32Value(value=2 * backend.max_requests),
        max_retries=UInt32Value(value=0),
    )
    protocol = upstream.HttpProtocolOptions(
        common_http_protocol_options=HttpProtocolOptions(idle_timeout=seconds(UPSTREAM_IDLE_TIMEOUT)),
        explicit_http_config=upstream.HttpProtocolOptions.ExplicitHttpConfig(
            http_protocol_options=Http1ProtocolOptions()
        ),
    )
    return Cluster(
        name=backend.cluster,
        type=Cluster.STATIC,
        connect_timeout=seconds(CONNECT_TIMEOUT),
        lb_policy=Cluster.ROUND_ROBIN,
        circuit_breakers=CircuitBreakers(thresholds=[thresholds]),
        typed_extension_protocol_options={
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed(protocol),
        },
        load_assignment=ClusterLoadAssignment(
            cluster_name=backend.cluster,
            endpoints=[LocalityLbEndpoints(lb_endpoints=[LbEndpoint(endpoint=endpoint)])],
        ),
    )


def route_configuration(table: RoutingTable) -> Any:
    """Return the RouteConfiguration of all deployments: `/infer/<id>`, then endpoints, then 404 for the rest."""
    routes: list[Any] = []
    for route in table.routes:
        routes += _entries(route, RouteMatch(path=f"/infer/{route.deployment_id}"))
    # Two deployments may claim one endpoint while a model moves between them: the one that serves is asked.
    for route in sorted(table.routes, key=lambda route: route.unavailable is not None):
        if route.address is not None:
            host = HeaderMatcher(
                name=":authority", string_match=StringMatcher(exact=route.address.host, ignore_case=True)
            )
            routes += _entries(route, RouteMatch(path=route.address.path, headers=[host]))
    routes.append(_direct(RouteMatch(prefix="/"), UNKNOWN_DEPLOYMENT))
    return RouteConfiguration(
        name=ROUTES_NAME,
        virtual_hosts=[VirtualHost(name=ROUTES_NAME, domains=["*"], routes=routes)],
        # Otherwise a route to an unknown cluster is accepted, and its requests fail.
        validate_clusters=BoolValue(value=True),
        internal_only_headers=STEERING_HEADERS,
    )


def _entries(route: Route, match: Any) -> Iterator[Any]:
    post = RouteMatch()
    post.CopyFrom(match)
    post.headers.append(HeaderMatcher(name=":method", string_match=StringMatcher(exact="POST")))
    if route.unavailable is None:
        yield EnvoyRoute(name=route.deployment_id, match=post, route=_action(route))
    else:
        yield _direct(post, UNAVAILABLE[route.unavailable], deployment_id=route.deployment_id)
    yield _direct(match, METHOD_NOT_ALLOWED, deployment_id=route.deployment_id)


def _action(route: Route) -> Any:
    """Return the RouteAction to the route's shares. The runner names its version; Envoy does where it answers."""
    action = RouteAction(
        weighted_clusters=WeightedCluster(
            clusters=[
                WeightedCluster.ClusterWeight(
                    name=backend.cluster,
                    weight=UInt32Value(value=weight),
                    response_headers_to_add=[header(VERSION_HEADER, backend.version, HeaderValueOption.ADD_IF_ABSENT)],
                )
                for backend, weight in route.shares
            ]
        ),
        timeout=seconds(REQUEST_TIMEOUT),
    )
    if route.hash_on is not None:
        action.weighted_clusters.use_hash_policy.value = True
        action.hash_policy.append(
            RouteAction.HashPolicy(header=RouteAction.HashPolicy.Header(header_name=route.hash_on))
        )
    if route.mirror is not None:
        everything = FractionalPercent(numerator=100, denominator=FractionalPercent.HUNDRED)
        action.request_mirror_policies.append(
            RouteAction.RequestMirrorPolicy(
                cluster=route.mirror.cluster, runtime_fraction=RuntimeFractionalPercent(default_value=everything)
            )
        )
    return action


def _direct(match: Any, problem: Problem, **members: str) -> Any:
    overwrite = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    headers = [header("content-type", CONTENT_TYPE, overwrite)]
    if problem.retry_after is not None:
        headers.append(header("retry-after", str(problem.retry_after), overwrite))
    if problem is METHOD_NOT_ALLOWED:
        headers.append(header("allow", "POST", overwrite))
    return EnvoyRoute(
        match=match,
        direct_response=DirectResponseAction(
            status=problem.status, body=DataSource(inline_string=json.dumps(problem.document(**members)))
        ),
        response_headers_to_add=headers,
    )
