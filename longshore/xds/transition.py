"""Make before break: the way from one snapshot to another on which no route ever leads nowhere.

    add      the clusters of both      the old routes     wait for CLUSTER
    flip     the clusters of both      the new routes     wait for ROUTE (and LISTENER, where it changed)
    remove   the new clusters          the new routes     wait for CLUSTER

Each step is a whole snapshot, so that an Envoy that connects in the middle gets something consistent. Envoy lets
requests finish on a cluster that is removed.
"""

from __future__ import annotations

from typing import NamedTuple

from longshore.xds.snapshot import Snapshot


class Transition(NamedTuple):
    """The three snapshots to show, each once the one before it has been accepted."""

    add: Snapshot
    flip: Snapshot
    remove: Snapshot


def transition(current: Snapshot, target: Snapshot) -> Transition:
    """Return the stages from `current`, which may hold clusters that no route uses, to `target`."""
    both = current.clusters.union(target.clusters)
    return Transition(add=current.with_clusters(both), flip=target.with_clusters(both), remove=target)
