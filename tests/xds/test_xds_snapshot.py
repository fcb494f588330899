"""Snapshots: the same content has the same version, and nothing leads nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st
from xds_clients import LISTEN, backend, snapshot, table

from longshore.xds.listeners import Listen
from longshore.xds.routing import Route, RoutingTable, Unavailable
from longshore.xds.snapshot import InconsistentSnapshotError, Resources, ResourceType, Snapshot
from longshore.xds.transition import transition

GOLDEN = Path(__file__).parent / "golden"

EXAMPLE = RoutingTable(
    (
        Route("digits", None, unavailable=Unavailable.DISABLED),
        Route(
            "sentiment-analysis",
            "https://models.example.com/v1/sentiment",
            (backend(1, "1.2.3"), backend(2, "1.3.0")),
            {backend(1).instance_id: 90, backend(2).instance_id: 10},
            hash_on="x-user",
            mirror=backend(3, "2.0.0"),
        ),
    )
)


@pytest.mark.parametrize(
    ("type_", "message"),
    [
        (ResourceType.CLUSTER, Cluster),
        (ResourceType.LISTENER, Listener),
        (ResourceType.ROUTE, RouteConfiguration),
    ],
)
def test_golden_resources(type_, message):
    """What Envoy is told, as a reviewer reads it. After an intended change: write `found` into the file."""
    resources = Snapshot.of(EXAMPLE, LISTEN)[type_]
    found = [MessageToDict(message.FromString(item.value)) for item in resources.items.values()]

    expected = json.loads((GOLDEN / f"{type_.name.lower()}.json").read_text())

    assert found == expected


def test_types_know_their_urls():
    """Each type is found by its URL, another URL is none of ours."""
    assert [ResourceType.of_url(type_.url) for type_ in ResourceType] == list(ResourceType)
    assert ResourceType.of_url("type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment") is None


def test_version_is_a_function_of_the_content():
    """Equal tables have equal versions in every type; a changed one differs where it changed."""
    one, again, other = snapshot(1, 2), snapshot(2, 1), snapshot(1)

    assert all(one[type_].version == again[type_].version for type_ in ResourceType)
    assert one.clusters.version != other.clusters.version
    assert one.routes.version != other.routes.version
    assert one.listeners.version == other.listeners.version
    assert one.listeners.version != Snapshot.of(table(1), Listen("127.0.0.1", 8081)).listeners.version


def test_routes_to_absent_clusters_are_no_snapshot():
    """A snapshot that would make Envoy answer 503 cannot be made."""
    good = Snapshot.of(EXAMPLE, LISTEN)

    for name in good.clusters.items:
        rest = Resources({key: item for key, item in good.clusters.items.items() if key != name})
        with pytest.raises(InconsistentSnapshotError, match=name):
            good.with_clusters(rest)
    with pytest.raises(InconsistentSnapshotError, match="models"):
        Snapshot(good.clusters, good.listeners, Resources({}))


def test_unavailable_wins_over_backends():
    """A route with a reason answers it, while its backends stay connected."""
    route = Route("m", None, (backend(1),), unavailable=Unavailable.DRAINING)
    made = Snapshot.of(RoutingTable((route,)), LISTEN)

    [item] = made.routes.items.values()
    routes = RouteConfiguration.FromString(item.value).virtual_hosts[0].routes
    assert not any(entry.HasField("route") for entry in routes)
    assert list(made.clusters.items) == [backend(1).cluster]


def test_contested_endpoint_goes_to_the_deployment_that_serves():
    """While a model moves from one deployment to another, the one that can answer has the endpoint."""
    endpoint = "https://models.example.com/v1"
    gone = Route("a-first", endpoint, unavailable=Unavailable.NOT_LOADED)
    serving = Route("b-second", endpoint, (backend(1),))

    [item] = Snapshot.of(RoutingTable((gone, serving)), LISTEN).routes.items.values()

    routes = RouteConfiguration.FromString(item.value).virtual_hosts[0].routes
    first = next(entry for entry in routes if entry.match.path == "/v1")
    assert first.route.weighted_clusters.clusters[0].name == backend(1).cluster


_NUMBERS = st.sets(st.integers(0, 6), max_size=5)


@settings(max_examples=100, deadline=None)
@given(_NUMBERS, _NUMBERS, _NUMBERS)
def test_no_stage_leads_to_an_absent_cluster(before, left_over, after):
    """For any two tables, and whatever clusters an earlier move has left: at every moment of the move each route in
    force, old or new, has its clusters, and nothing is left over at the end.
    """
    current = snapshot(*before)
    current = current.with_clusters(current.clusters.union(snapshot(*left_over).clusters))
    stages = transition(current, snapshot(*after))

    held = current
    for stage in stages:
        # Envoy takes clusters first, then routes: in between it has the new clusters and the old routes.
        Snapshot(stage.clusters, held.listeners, held.routes)
        held = stage
    assert held == snapshot(*after)
    assert stages.add.routes == current.routes
