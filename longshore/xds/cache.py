"""Which Envoy should hold what, who is to be woken when that changes, and who waits for an Envoy to follow.

A node's entry outlives its streams. All calls belong on the event loop's thread; none blocks.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog

from longshore.schemas.failures import LongshoreError
from longshore.xds.conversation import Accepted, Conversation, Event, Offer, Refused
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
        for session in self._sessions[node_id]:
            self._nodes[node_id].build = session.identity.build
            session.wake()

    def get(self, node_id: str) -> Snapshot | None:
        node = self._nodes.get(node_id)
        return node.snapshot if node else None

    async def accepted(self, node_id: str, type_: ResourceType, version: str, *, within: float) -> None:
        """Return when the node has acknowledged this version on its present stream.

        Raises LongshoreError: XDS_NACK with Envoy's own words when it refuses the version or has refused it before,
        ENVOY_WARM_TIMEOUT when there was neither `within` so many seconds (Envoy may be starting, or gone).
        """
        sessions = self._sessions[node_id]
        if sessions and sessions[-1].conversation.holds(type_) == version:
            return
        refusal = self._nodes[node_id].refusal(type_, version)
        if refusal is not None:
            raise _refused(type_, version, refusal)
        key = _Awaited(node_id, type_, version)
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[key].append(waiter)
        try:
            async with asyncio.timeout(within):
                await waiter
        except TimeoutError as error:
            connected = "connected" if sessions else "not connected"
            raise LongshoreError(
                "ENVOY_WARM_TIMEOUT",
                f"Envoy {node_id} ({connected}) did not accept {type_.name.lower()}s {version} within {within:g} s",
            ) from error
        finally:
            self._waiters[key].remove(waiter)
            if not self._waiters[key]:
                del self._waiters[key]

    def connect(self, identity: Identity, conversation: Conversation, wake: Callable[[], None]) -> Session:
        """Register one stream; `wake` is called when there may be something new to send. Close what is returned."""
        session = Session(self, identity, conversation, wake)
        if identity.node_id in self._nodes:
            self._nodes[identity.node_id].build = identity.build
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
        if isinstance(event, Refused):
            version = event.resources.version
            for waiter in self._pending(node_id, event.type, version):
                waiter.set_exception(_refused(event.type, version, event.message))
        # A refusal also makes certain again what the client holds instead.
        if isinstance(event, Accepted | Refused) and (held := session.conversation.holds(event.type)):
            for waiter in self._pending(node_id, event.type, held):
                waiter.set_result(None)

    def _pending(self, node_id: str, type_: ResourceType, version: str) -> list[asyncio.Future[None]]:
        waiters = self._waiters.get(_Awaited(node_id, type_, version), [])
        return [waiter for waiter in waiters if not waiter.done()]

    def _disconnect(self, session: Session) -> None:
        self._sessions[session.identity.node_id].remove(session)

    def _is_present(self, session: Session) -> bool:
        """Whether this is the node's latest stream; one that lingers half-dead beside it has no say."""
        return self._sessions[session.identity.node_id][-1] is session


@dataclass(eq=False)
class Session:
    """One stream's place in the cache."""

    cache: Cache
    identity: Identity
    conversation: Conversation
    wake: Callable[[], None]

    def receive(self, request: Any) -> None:
        """Take in what the client says, and tell whoever waits for it."""
        event = self.conversation.receive(request)
        self.cache._record(self, event)  # noqa: SLF001 (two halves of one thing)
        if isinstance(event, Refused):
            _log.warning(
                "xds_nack", node_id=self.identity.node_id, type=event.type.name, version=event.resources.version,
                error=event.message,
            )  # fmt: skip

    def respond(self) -> list[Any]:
        """Return the DiscoveryResponses to send now."""
        return self.conversation.respond(self.cache._offer(self))  # noqa: SLF001

    def close(self) -> None:
        """Remove the stream; what its node has accepted and refused stays known."""
        self.cache._disconnect(self)  # noqa: SLF001


def _refused(type_: ResourceType, version: str, message: str) -> LongshoreError:
    return LongshoreError("XDS_NACK", f"Envoy refused {type_.name.lower()}s {version}: {message}")
