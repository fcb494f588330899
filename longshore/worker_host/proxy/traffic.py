"""The one way in which traffic moves on a device: Envoy is shown the next table stage by stage (DESIGN §5 Traffic)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import structlog

from longshore.schemas.failures import LongshoreError
from longshore.worker_host.processes import uninterrupted
from longshore.xds.cache import Cache
from longshore.xds.listeners import RECEIVE_TIMEOUT, Listen
from longshore.xds.resources import cluster
from longshore.xds.routing import Backend, Route, RoutingTable
from longshore.xds.server import AdsServer
from longshore.xds.snapshot import Resources, ResourceType, Snapshot
from longshore.xds.transition import Transition, transition

_log = structlog.get_logger()

Hook = Callable[[], Awaitable[None]]

# How often, and how often running, no request may be arriving before a cluster goes.
_LOOK_SECONDS = 0.02
_QUIET_LOOKS = 2


class Traffic:
    """Owns the ADS socket and the routing table of this device. `ack_timeout` is in seconds, for each stage.

    `arriving` says how many requests Envoy has that have not reached their runner yet.
    """

    def __init__(
        self,
        ads_socket: Path,
        *,
        node_id: str,
        listen: tuple[str, int],
        arriving: Callable[[], Awaitable[int]],
        ack_timeout: float = 15.0,
    ) -> None:
        self._node_id = node_id
        self._listen = Listen(*listen)
        self._arriving = arriving
        self._ack_timeout = ack_timeout
        self._cache = Cache()
        self._server = AdsServer(self._cache, ads_socket)
        self._lock = asyncio.Lock()
        self._table = RoutingTable()
        self._shown: Snapshot
        self._retiring: set[str] = set()
        """Clusters without a route that are kept for the requests that are on their way there."""

    @property
    def table(self) -> RoutingTable:
        """The table whose routes Envoy was last known to follow."""
        return self._table

    async def start(self, table: RoutingTable, spare: Iterable[Backend] = ()) -> None:
        """Bind the ADS socket with `table` as what an Envoy is told first. Call it when the table is true.

        `spare`: backends that the table does not use, and to which a former control plane may have sent Envoy just
        before it was killed. Envoy keeps their clusters until it follows the table: see `settled`.
        Raises LongshoreError SOCKET_IN_USE where another control plane serves, SOCKET_PATH_TOO_LONG.
        """
        self._table = table
        target = Snapshot.of(table, self._listen)
        self._show(target.with_clusters(Resources.of(map(cluster, spare)).union(target.clusters)))
        await self._server.start()

    async def stop(self) -> None:
        """Close the ADS socket. A running Envoy goes on serving with what it has."""
        await self._server.stop()

    async def listening(self) -> None:
        """Return when Envoy has its listener. Raises LongshoreError XDS_NACK ("cannot bind"), ENVOY_WARM_TIMEOUT."""
        await self._accepted(ResourceType.LISTENER)

    async def settled(self) -> None:
        """Return when Envoy serves the present table, and knows no cluster beyond it.

        Raises LongshoreError XDS_NACK or ENVOY_WARM_TIMEOUT.
        """
        async with self._lock:
            for type_ in ResourceType:
                await self._accepted(type_)
            left = self._left()
        if left:
            await self._retire(left, None)

    async def set_route(
        self, route: Route, *, before_flip: Hook | None = None, before_removal: Hook | None = None
    ) -> None:
        """Move one deployment's traffic to `route`, and return when Envoy no longer knows the clusters it came from.

        `before_flip` runs when the new clusters are known and no request can have reached them yet; what it raises is
        raised here. `before_removal` runs when new requests go the new way and the old clusters still have their
        statistics; what it raises is logged.

        Raises LongshoreError XDS_NACK or ENVOY_WARM_TIMEOUT; the old routes then stay. After a time-out that came when
        `before_flip` had run, a silent Envoy may follow the new route for a moment yet: leave its backend alive.
        Once Envoy has the new routes the rest is carried through: a cancellation is delivered when it is done (`table`
        tells), and an Envoy that does not confirm the removal is only logged, since it gets the right clusters whenever
        it comes back.

        A route to nobody needs no Envoy: what must not be reached any more is no longer shown, whoever is silent.
        """
        withdrawn = route.unavailable is not None
        await self._move(lambda table: table.with_route(route), before_flip, before_removal, insist=withdrawn)

    async def remove(self, deployment_id: str, *, before_removal: Hook | None = None) -> None:
        """Forget a deployment: its callers get 404. Raises LongshoreError XDS_NACK."""
        await self._move(lambda table: table.without(deployment_id), None, before_removal, insist=True)

    async def _move(
        self,
        change: Callable[[RoutingTable], RoutingTable],
        before_flip: Hook | None,
        before_removal: Hook | None,
        *,
        insist: bool,
    ) -> None:
        await self._lock.acquire()
        current = self._shown
        try:
            table = change(self._table)
            stages = transition(current, Snapshot.of(table, self._listen))
            self._show(stages.add)
            if not insist:
                await self._accepted(ResourceType.CLUSTER)
            if before_flip is not None:
                await before_flip()
        except BaseException:  # cancellation included: no route has moved, so the way back is free of risk
            self._show(current)
            self._lock.release()
            raise
        await uninterrupted(self._finish(table, stages, current, before_removal, insist=insist))

    async def _finish(
        self, table: RoutingTable, stages: Transition, before: Snapshot, before_removal: Hook | None, *, insist: bool
    ) -> None:
        try:
            await self._flip(stages, before, insist=insist)
            self._table = table
            left = self._left()
        finally:
            self._lock.release()
        await self._retire(left, before_removal)

    async def _flip(self, stages: Transition, before: Snapshot, *, insist: bool) -> None:
        self._show(stages.flip)
        try:
            await self._accepted(ResourceType.LISTENER)
            await self._accepted(ResourceType.ROUTE)
        except LongshoreError as error:
            refused = error.code == "XDS_NACK"
            if refused or not insist:
                # A refusal proves that the old routes stand. Silence proves nothing: an Envoy that did follow still
                # needs the new clusters until it has been called back, and the next move removes them.
                self._show(before if refused else stages.add)
                raise
            _log.warning("xds_withdrawal_unconfirmed", code=error.code, error=str(error))

    def _left(self) -> set[str]:
        """Return the clusters that Envoy is shown, that no route leads to, and that nobody is retiring yet."""
        used = Snapshot.of(self._table, self._listen).clusters.items
        return set(self._shown.clusters.items) - set(used) - self._retiring

    async def _retire(self, names: set[str], before_removal: Hook | None) -> None:
        """Let Envoy forget clusters, once every request that was routed there has been handed on to its runner."""
        self._retiring |= names
        try:
            if names:
                await self._all_arrived()
            if before_removal is not None:
                try:
                    await before_removal()
                except Exception:  # noqa: BLE001 (whatever a hook does, it must not leave the move half done)
                    _log.exception("traffic_hook_failed")
        finally:
            self._retiring -= names
        async with self._lock:
            gone = names & self._left()
            clusters = {name: item for name, item in self._shown.clusters.items.items() if name not in gone}
            self._show(self._shown.with_clusters(Resources(clusters)))
            try:
                await self._accepted(ResourceType.CLUSTER)
            except LongshoreError as error:
                _log.warning("xds_removal_unconfirmed", code=error.code, error=str(error))

    async def _all_arrived(self) -> None:
        """Wait for the requests that are still arriving: Envoy looks for the cluster of a route when it has the body.

        Two looks running, since one may fall between a request's end and another's beginning.
        """
        deadline = time.monotonic() + RECEIVE_TIMEOUT.total_seconds()
        quiet = 0
        while quiet < _QUIET_LOOKS and time.monotonic() < deadline:
            quiet = 0 if await self._arriving() else quiet + 1
            await asyncio.sleep(_LOOK_SECONDS)

    def _show(self, snapshot: Snapshot) -> None:
        self._shown = snapshot
        self._cache.set(self._node_id, snapshot)

    async def _accepted(self, type_: ResourceType) -> None:
        version: Any = self._shown[type_].version
        await self._cache.accepted(self._node_id, type_, version, within=self._ack_timeout)
