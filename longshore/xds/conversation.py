"""One ADS stream without any I/O: requests in, responses out (xDS protocol, state of the world, aggregated).

Rules
- Each resource type is one subscription on the stream, in one of three states (`_Status`); `_NEXT` has every move.
- The first request for a type is always answered, whatever version it claims: a version outlives streams, and only
  an answer that is acknowledged on *this* stream proves what the client holds. The client recognises equal content
  and changes nothing.
- An up-to-date client is left waiting until there is something else to offer.
- At most one answer per type is unacknowledged. A request belongs to it if it carries its nonce; any other nonce is
  stale and ignored. Nonces are per stream.
- A request with that nonce is an ACK, or a NACK if it carries `error_detail`. What was refused is not sent again on
  this stream; `node` remembers it beyond the stream.
- Types go in the order of `ResourceType`, one waiting for the ACK of the other, and routes are held back until the
  clusters of the same offer are acknowledged: Envoy refuses routes to clusters that it does not know.
- A type that we do not serve is answered once, with nothing. Only clients refuse.

Theory: the client's state is (per type) the last answer that it acknowledged; ours is (per type) the offer. The stream
drives the first to the second and says how far it is. It keeps no opinion about what *should* be offered: that
comes in with each `respond`, so the whole conversation is a function of what it was given.

    conversation = Conversation()
    event = conversation.receive(request)          # what the client has just told us
    responses = conversation.respond(offer)        # what to send now, in this order; often nothing
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from envoy.service.discovery.v3.discovery_pb2 import DiscoveryResponse

from longshore.xds.snapshot import Resources, ResourceType


@dataclass(frozen=True)
class Subscribed:
    """The client asks for a type for the first time on this stream, or for other names of it."""

    type: ResourceType


@dataclass(frozen=True)
class Accepted:
    """The client acknowledged an answer (ACK)."""

    type: ResourceType
    resources: Resources


@dataclass(frozen=True)
class Refused:
    """The client kept what it had (NACK); `message` is its reason."""

    type: ResourceType
    resources: Resources
    message: str


@dataclass(frozen=True)
class Ignored:
    """Nothing to act upon: a stale nonce, a repeated ACK, a type that we do not serve."""

    reason: str


Event = Subscribed | Accepted | Refused | Ignored
Offer = Mapping[ResourceType, Resources]


class _Status(Enum):
    OWED = auto()
    """The client has asked and not been answered."""
    SENT = auto()
    """An answer is on its way, or its ACK is."""
    SETTLED = auto()
    """The client has acknowledged or refused the last answer."""


class _Move(Enum):
    ASK = auto()
    SEND = auto()
    ANSWER = auto()


_NEXT = {
    (_Status.OWED, _Move.ASK): _Status.OWED,  # asked again, for other names, before there was anything to offer
    (_Status.OWED, _Move.SEND): _Status.SENT,
    (_Status.SENT, _Move.ANSWER): _Status.SETTLED,
    (_Status.SETTLED, _Move.ASK): _Status.OWED,
    (_Status.SETTLED, _Move.SEND): _Status.SENT,
}


@dataclass
class _Subscription:
    names: frozenset[str]
    """The names asked for; empty means all."""
    status: _Status = _Status.OWED
    nonce: str = ""
    sent: Resources | None = None
    """The last answer, acknowledged or not."""
    accepted: str | None = None
    """The version that the client acknowledged on this stream."""
    refused: set[str] = field(default_factory=set)

    def move(self, move: _Move) -> None:
        self.status = _NEXT[self.status, move]

    def wants(self, version: str) -> bool:
        if version in self.refused or self.status is _Status.SENT:
            return False
        return self.status is _Status.OWED or version != self.accepted


class Conversation:
    """See the head of this file. No input raises: whatever a client sends, the stream goes on."""

    def __init__(self) -> None:
        self._subscriptions: dict[ResourceType, _Subscription] = {}
        self._unserved: dict[str, bool] = {}
        """Type URLs that we do not serve → whether they have been answered."""
        self._nonces = 0

    def receive(self, request: Any) -> Event:
        """Take in a DiscoveryRequest and return what it means."""
        type_ = ResourceType.of_url(request.type_url)
        if type_ is None:
            self._unserved.setdefault(request.type_url, False)
            return Ignored(f"type {request.type_url} is not served")
        names = frozenset(request.resource_names)
        subscription = self._subscriptions.get(type_)
        if subscription is None:
            self._subscriptions[type_] = _Subscription(names)
            return Subscribed(type_)
        if subscription.sent is None:
            subscription.names = names
            return Subscribed(type_)
        if request.response_nonce != subscription.nonce:
            return Ignored(f"stale nonce {request.response_nonce!r}")
        event: Event = Ignored("repeated acknowledgement")
        if subscription.status is _Status.SENT:
            event = self._acknowledged(type_, subscription, request)
        if names != subscription.names:
            subscription.names = names
            subscription.move(_Move.ASK)
            event = Subscribed(type_) if isinstance(event, Ignored) else event
        return event

    @staticmethod
    def _acknowledged(type_: ResourceType, subscription: _Subscription, request: Any) -> Accepted | Refused:
        assert subscription.sent is not None  # noqa: S101 (receive() has looked)
        subscription.move(_Move.ANSWER)
        if request.HasField("error_detail"):
            subscription.refused.add(subscription.sent.version)
            return Refused(type_, subscription.sent, request.error_detail.message)
        subscription.accepted = subscription.sent.version
        return Accepted(type_, subscription.sent)

    def respond(self, offer: Offer) -> list[Any]:
        """Return the DiscoveryResponses to send now; they count as sent."""
        responses = []
        for url, answered in self._unserved.items():
            if not answered:
                self._unserved[url] = True
                responses.append(DiscoveryResponse(type_url=url, nonce=self._nonce()))
        for type_ in ResourceType:
            subscription = self._subscriptions.get(type_)
            if subscription is None or type_ not in offer:
                continue
            if type_ is ResourceType.ROUTE and self._lacks_clusters(offer):
                break
            if subscription.wants(offer[type_].version):
                responses.append(self._answer(type_, subscription, offer[type_]))
            if subscription.status is _Status.SENT:
                break
        return responses

    def holds(self, type_: ResourceType) -> str | None:
        """Return the version that the client certainly has: None while an answer is open, since it may have that."""
        subscription = self._subscriptions.get(type_)
        return subscription.accepted if subscription and subscription.status is not _Status.SENT else None

    def _lacks_clusters(self, offer: Offer) -> bool:
        """Whether the client asked for clusters and does not have the offered ones."""
        if ResourceType.CLUSTER not in self._subscriptions:
            return False
        clusters = offer.get(ResourceType.CLUSTER)
        return clusters is None or self.holds(ResourceType.CLUSTER) != clusters.version

    def _answer(self, type_: ResourceType, subscription: _Subscription, resources: Resources) -> Any:
        subscription.move(_Move.SEND)
        subscription.nonce = self._nonce()
        subscription.sent = resources
        return DiscoveryResponse(
            version_info=resources.version,
            resources=[
                item for name, item in resources.items.items() if not subscription.names or name in subscription.names
            ],
            type_url=type_.url,
            nonce=subscription.nonce,
        )

    def _nonce(self) -> str:
        self._nonces += 1
        return str(self._nonces)
