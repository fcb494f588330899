"""One Envoy as it is known beyond a single stream: what it should hold, what it accepted last, what it has refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from longshore.xds.conversation import Accepted, Event, Offer, Refused
from longshore.xds.snapshot import Resources, ResourceType, Snapshot


@dataclass(frozen=True)
class Identity:
    """Who speaks on a stream, from the `node` of its first request."""

    node_id: str
    build: str
    """The Envoy build, as text without meaning: what one build refuses another may accept."""

    @classmethod
    def of(cls, request: Any) -> Identity:
        build = request.node.user_agent_build_version
        return cls(request.node.id, build.SerializeToString(deterministic=True).hex())


class Node:
    """Decides what to offer.

    A NACK is a state, not an event to answer by sending the same again: what this build has refused is parked, and
    until the snapshot changes the last accepted resources are offered in its place. What was accepted last is not
    parked when it is refused later: a restarted Envoy did not find its port, say, and the next stream tries again.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.build = ""
        """The build that spoke last."""
        self._accepted: dict[ResourceType, Resources] = {}
        self._parked: dict[tuple[str, ResourceType, str], str] = {}

    def offer(self) -> Offer:
        """Return what the client should get of each type. A type is absent if all that there is was refused."""
        parked = {type_ for type_ in ResourceType if self.refusal(type_, self.snapshot[type_].version) is not None}
        if ResourceType.CLUSTER in parked:
            # Routes go with their clusters: the new ones would lead to clusters that the client does not have.
            parked.add(ResourceType.ROUTE)
        offer = {}
        for type_ in ResourceType:
            resources = self._accepted.get(type_) if type_ in parked else self.snapshot[type_]
            if resources is not None:
                offer[type_] = resources
        return offer

    def record(self, event: Event) -> None:
        """Remember what the client has said."""
        if isinstance(event, Accepted):
            self._accepted[event.type] = event.resources
        elif isinstance(event, Refused):
            last_good = self._accepted.get(event.type)
            if last_good is None or last_good.version != event.resources.version:
                self._parked[self.build, event.type, event.resources.version] = event.message

    def refusal(self, type_: ResourceType, version: str) -> str | None:
        """Return why the present build refuses a version, or None if it is not known to."""
        return self._parked.get((self.build, type_, version))
