"""The routing table refuses what could not be right, and keeps its order."""

from __future__ import annotations

import pytest
from xds_clients import backend, table

from longshore.schemas.failures import LongshoreError
from longshore.xds.routing import MAX_SOCKET_PATH, Address, Backend, Route, RoutingTable, Unavailable


def test_order_does_not_depend_on_history():
    """Tables with the same routes are equal, however they came about."""
    assert table(1, 2).with_route(table(3).routes[0]) == table(3, 1, 2) == table(1, 2, 3, 4).without("model-4")
    assert table(1).get("model-1") == table(1).routes[0]
    assert table(1).get("model-2") is None


def test_deployment_has_one_route():
    """Two routes of one deployment are an error."""
    with pytest.raises(ValueError, match="two routes"):
        RoutingTable(table(1).routes * 2)


def test_socket_path_that_no_socket_can_have():
    """A path that Envoy would refuse is named before it is sent, with its length."""
    longest = "/" + "x" * (MAX_SOCKET_PATH - 1)
    Backend("a", longest, "1.0.0", 1)

    with pytest.raises(LongshoreError, match=f"has {MAX_SOCKET_PATH + 1} bytes") as refused:
        Backend("a", longest + "x", "1.0.0", 1)
    assert refused.value.code == "SOCKET_PATH_TOO_LONG"


@pytest.mark.parametrize("weights", [{"0" * 10: 1}, {f"{1:010x}": 0}, {f"{1:010x}": -1}])
def test_weights_that_mean_nothing(weights):
    """Weights of strangers, of zero in total and below zero are errors."""
    with pytest.raises(ValueError, match="model"):
        Route("model", None, (backend(1),), weights)


def test_route_without_backend_needs_a_reason():
    """Nothing to answer and no reason why is an error; a backend of no requests is one, too."""
    with pytest.raises(ValueError, match="no reason"):
        Route("model", None)
    Route("model", None, unavailable=Unavailable.DISABLED)
    with pytest.raises(ValueError, match="at least 1"):
        Backend("a", "/a.sock", "1.0.0", 0)


def test_shares():
    """Without weights all share equally; a backend with weight zero gets nothing and stays a member."""
    one, two = backend(1), backend(2)
    assert Route("m", None, (one, two)).shares == ((one, 1), (two, 1))
    canary = Route("m", None, (one, two), {one.instance_id: 100, two.instance_id: 0})
    assert canary.shares == ((one, 100),)
    assert canary.members == (one, two)


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        (None, None),
        ("https://Models.Example.com:8443/v1/x", Address("models.example.com", "/v1/x")),
        ("https://models.example.com", Address("models.example.com", "/")),
        ("http://[::1]:80/x", Address("[::1]", "/x")),
        ("urn:longshore:x", None),
    ],
)
def test_address_of_an_endpoint(endpoint, address):
    """Host and path are what a request is recognised by."""
    assert Route("m", endpoint, (backend(1),)).address == address


def test_endpoint_that_is_no_uri():
    """A broken endpoint is the manifest's fault, and says so."""
    with pytest.raises(LongshoreError, match="MANIFEST_INVALID"):
        Route("m", "http://[::1/x", (backend(1),))
