"""Which Envoy should hold what, who is to be woken when that changes, and who waits for an Envoy to follow.

A node's entry outlives its streams. All calls belong on the event loop's thread; none blocks.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from longshore.schemas.failures import LongshoreError
from longshore.xds.conversation import Accepted, Event, Offer, Refused
from longshore.xds.node import Identity, Node
from longshore.xds.snapshot import ResourceType, Snapshot

_log = structlog.get_logger()


class _Awaited(NamedTuple):
    node_id: str
    type: ResourceType
    version: str


class Cache:
    """Snapshots by node id; the meeting point of whoever sets them and the streams that carry them."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._sessions: dict[str, list[Session]] = defaultdict(list)
        self._waiters: dict[_Awaited, list[asyncio.Future[None]]] = defaultdict(list)

    def set(self, node_id: str, snapshot: Snapshot) -> None:
        """Replace what a node should hold, all types at once, and wake its streams."""
        if node_id in self._nodes:
            self._nodes[node_id].snapshot = snapshot
        else:
            self._nodes[node_id] = Node(snapshot)
            if self._sessions[node_id]:
                self._nodes[node_id].connected(self._sessions[node_id][-1].identity)
        for session in self._sessions[node_id]:
            session.wake()

    def get(self, node_id: str) -> Snapshot | None:
        node = self._nodes.get(node_id)
        return node.snapshot if node else None

    async def accepted(self, node_id: str, type_: ResourceType, version: str, *, within: float) -> None:
        """Return when the node has acknowledged this version on its present stream.

        Raises LongshoreError: XDS_NACK with Envoy's own words when it refuses the version or has refused it before,
        ENVOY_WARM_TIMEOUT when there was neither `within` so many seconds (Envoy may be starting, or gone).
        """
        node = self._nodes[node_id]
        if node.holds.get(type_) == version:
            return
        refusal = node.refusal(type_, version)
        if refusal is not None:
            raise _refused(type_, version, refusal)
        key = _Awaited(node_id, type_, version)
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[key].append(waiter)
        try:
            async with asyncio.timeout(within):
                await waiter
        except TimeoutError as error:
            connected = "connected" if self._sessions[node_id] else "not connected"
            raise LongshoreError(
                "ENVOY_WARM_TIMEOUT",
                f"Envoy {node_id} ({connected}) did not accept {type_.name.lower()}s {version} within {within:g} s",
            ) from error
        finally:
            self._waiters[key].remove(waiter)
            if not self._waiters[key]:
                del self._waiters[key]

    def connect(self, identity: Identity, wake: Callable[[], None]) -> Session:
        """Register one stream; `wake` is called when there may be something new to send. Close what is returned."""
        session = Session(self, identity, wake)
        if identity.node_id in self._nodes:
            self._nodes[identity.node_id].connected(identity)
        self._sessions[identity.node_id].append(session)
        return session

    def _offer(self, session: Session) -> Offer:
        node = self._nodes.get(session.identity.node_id)
        return node.offer() if node and self._is_present(session) else {}

    def _record(self, session: Session, event: Event) -> None:
        node_id = session.identity.node_id
        if node_id not in self._nodes or not self._is_present(session):
            return
        self._nodes[node_id].record(event)
        if not isinstance(event, Accepted | Refused):
            return
        for waiter in self._waiters.get(_Awaited(node_id, event.type, event.resources.version), []):
            if waiter.done():
                continue
            if isinstance(event, Accepted):
                waiter.set_result(None)
            else:
                waiter.set_exception(_refused(event.type, event.resources.version, event.message))

    def _disconnect(self, session: Session) -> None:
        node_id = session.identity.node_id
        present = self._is_present(session)
        self._sessions[node_id].remove(session)
        if present and node_id in self._nodes:
            self._nodes[node_id].disconnected()

    def _is_present(self, session: Session) -> bool:
        """Whether this is the node's latest stream; one that lingers half-dead beside it has no say."""
        return self._sessions[session.identity.node_id][-1] is session


@dataclass(eq=False)
class Session:
    """One stream's place in the cache."""

    cache: Cache
    identity: Identity
    wake: Callable[[], None]

    def offer(self) -> Offer:
        """Return what this stream's client should get."""
        return self.cache._offer(self)  # noqa: SLF001 (two halves of one thing)

    def record(self, event: Event) -> None:
        """Tell the cache what the client has said."""
        self.cache._record(self, event)  # noqa: SLF001
        if isinstance(event, Refused):
            _log.warning(
                "xds_nack", node_id=self.identity.node_id, type=event.type.name, version=event.resources.version,
                error=event.message,
            )  # fmt: skip

    def close(self) -> None:
        """Remove the stream; what its node has accepted and refused stays known."""
        self.cache._disconnect(self)  # noqa: SLF001


def _refused(type_: ResourceType, version: str, message: str) -> LongshoreError:
    return LongshoreError("XDS_NACK", f"Envoy refused {type_.name.lower()}s {version}: {message}")
