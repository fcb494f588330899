"""Envoy's statistics and its bootstrap: the pure halves of running it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from longshore.schemas.failures import LongshoreError
from longshore.worker_host.proxy.bootstrap import Bootstrap
from longshore.worker_host.proxy.stats import ClusterStats, parse_stats


def histogram(name: str, p50: float | None, p99: float | None) -> dict:
    values = [{"interval": value, "cumulative": value} for value in (0, p50, p99)]
    return {"name": name, "values": values}


def test_counts_and_latencies_by_cluster():
    """Only clusters are told apart; what was never used is zero, and latency is unknown until it was measured."""
    stats = parse_stats(
        {
            "stats": [
                {"name": "cluster.runner-a.upstream_rq_total", "value": 7},
                {"name": "cluster.runner-a.upstream_rq_5xx", "value": 2},
                {"name": "cluster.runner-a.upstream_rq_active", "value": 1},
                {"name": "cluster.runner-a.external.upstream_rq_total", "value": 99},
                {"name": "cluster.runner-b.upstream_rq_total", "value": 1},
                {"name": "http.ingress.downstream_rq_total", "value": 8},
                {
                    "histograms": {
                        "supported_quantiles": [0, 50, 99],
                        "computed_quantiles": [
                            histogram("cluster.runner-a.upstream_rq_time", 1.5, 9.5),
                            histogram("cluster.runner-b.upstream_rq_time", None, None),
                            histogram("http.ingress.downstream_rq_time", 2, 3),
                        ],
                    }
                },
            ]
        }
    )
    assert stats == {
        "runner-a": ClusterStats(requests=7, errors=2, in_flight=1, p50=1.5, p99=9.5),
        "runner-b": ClusterStats(requests=1),
    }


def test_envoy_without_traffic():
    """A fresh Envoy has no clusters in use."""
    assert parse_stats({"stats": [{"histograms": {"supported_quantiles": [], "computed_quantiles": []}}]}) == {}


def test_bootstrap_listens_on_unix_sockets_only():
    """The bootstrap opens no port, names the node, and reconnects quickly."""
    bootstrap = Bootstrap("worker-1", Path("/run/l/ads.sock"), Path("/run/l/admin.sock"))
    document = json.loads(bootstrap.text())

    assert document["node"] == {"id": "worker-1", "cluster": "longshore"}
    assert document["admin"]["address"] == {"pipe": {"path": "/run/l/admin.sock", "mode": 0o600}}
    assert "socket_address" not in bootstrap.text()
    [service] = document["dynamic_resources"]["ads_config"]["grpc_services"]
    back_off = service["envoy_grpc"]["retry_policy"]["retry_back_off"]
    assert back_off == {"base_interval": "0.1s", "max_interval": "1s"}


def test_bootstrap_with_a_path_that_is_too_long():
    """A socket that Envoy could not open is named before Envoy is started."""
    with pytest.raises(LongshoreError, match="SOCKET_PATH_TOO_LONG"):
        Bootstrap("worker-1", Path("/run/l/ads.sock"), Path("/" + "x" * 120))
