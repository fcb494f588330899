"""Envoy's `/stats?format=json&usedonly` → what each cluster has done. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Of Envoy's percentiles of `upstream_rq_time`, the two that we report.
_P50, _P99 = 50, 99


@dataclass(frozen=True)
class ClusterStats:
    """Counts since the cluster was added (they vanish with it) and latencies of the running interval in ms."""

    requests: int = 0
    """Requests sent to the runner, those in flight included."""
    errors: int = 0
    """Answers with a 5xx status, Envoy's own on behalf of this cluster included."""
    in_flight: int = 0
    p50: float | None = None
    """None until Envoy has flushed an interval with a request in it (every 5 s)."""
    p99: float | None = None


_COUNTS = {"upstream_rq_total": "requests", "upstream_rq_5xx": "errors", "upstream_rq_active": "in_flight"}


def parse_stats(document: Mapping[str, Any]) -> dict[str, ClusterStats]:
    """Return the statistics by cluster name. Clusters that were never used are absent. Raises KeyError, TypeError
    or ValueError for a document of another form.
    """
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    latencies: dict[str, tuple[float | None, float | None]] = {}
    for entry in document["stats"]:
        if "histograms" in entry:
            latencies |= _latencies(entry["histograms"])
            continue
        cluster, name = _split(entry["name"])
        if cluster and name in _COUNTS:
            counts[cluster][_COUNTS[name]] = int(entry["value"])
    return {cluster: ClusterStats(**found, **_percentiles(latencies.get(cluster))) for cluster, found in counts.items()}


def _split(name: str) -> tuple[str, str]:
    """Return cluster and statistic of `cluster.<cluster>.<statistic>`; cluster names hold no dots."""
    prefix, _, rest = name.partition(".")
    cluster, _, statistic = rest.partition(".")
    return (cluster, statistic) if prefix == "cluster" else ("", name)


def _latencies(histograms: Mapping[str, Any]) -> dict[str, tuple[float | None, float | None]]:
    quantiles = [float(quantile) for quantile in histograms["supported_quantiles"]]
    found = {}
    for histogram in histograms["computed_quantiles"]:
        cluster, name = _split(histogram["name"])
        if cluster and name == "upstream_rq_time":
            intervals = dict(zip(quantiles, (value["interval"] for value in histogram["values"]), strict=True))
            found[cluster] = (intervals.get(_P50), intervals.get(_P99))
    return found


def _percentiles(pair: Iterable[float | None] | None) -> dict[str, Any]:
    return dict(zip(("p50", "p99"), pair, strict=True)) if pair else {}
