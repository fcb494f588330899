"""What is known of an Envoy beyond one stream, and who waits for it."""

from __future__ import annotations

import asyncio

import pytest
from xds_clients import ack, ask, nack, snapshot

from longshore.schemas.failures import LongshoreError
from longshore.xds.cache import Cache
from longshore.xds.conversation import Conversation
from longshore.xds.node import Identity
from longshore.xds.snapshot import ResourceType

CLUSTER, LISTENER, ROUTE = ResourceType


class Stream:
    """A stream without gRPC: conversation and session, driven by hand."""

    def __init__(self, cache: Cache, build: int = 40) -> None:
        self.wakes = 0
        self.build = build
        self.session = cache.connect(Identity.of(ask(CLUSTER, build=build)), Conversation(), self._wake)

    def _wake(self) -> None:
        self.wakes += 1

    def subscribe(self, *types: ResourceType) -> Stream:
        for type_ in types or ResourceType:
            self.session.receive(ask(type_, build=self.build))
        return self

    def exchange(self, refuse: ResourceType | None = None) -> list[tuple[ResourceType, str]]:
        """Answer until nothing more comes; return what came."""
        came = []
        while responses := self.session.respond():
            for response in responses:
                type_ = ResourceType.of_url(response.type_url)
                came.append((type_, response.version_info))
                self.session.receive(nack(response, "bad") if type_ is refuse else ack(response))
        return came


def versions(snapshot_, *types):
    return [(type_, snapshot_[type_].version) for type_ in types or ResourceType]


@pytest.fixture
def cache():
    cache = Cache()
    cache.set("device", snapshot(1))
    return cache


async def test_waiter_resolves_on_acknowledgement(cache):
    """Who waits for a version is called when the client has acknowledged it, not when it was sent."""
    stream = Stream(cache).subscribe()
    waiting = asyncio.create_task(cache.accepted("device", ROUTE, snapshot(1).routes.version, within=10))
    await asyncio.sleep(0)
    assert not waiting.done()

    stream.exchange()
    await waiting
    await cache.accepted("device", ROUTE, snapshot(1).routes.version, within=0)


async def test_waiter_fails_on_refusal_with_the_reason(cache):
    """A refusal reaches who waits, and who asks for the same later, in the client's own words."""
    stream = Stream(cache).subscribe()
    version = snapshot(1).clusters.version
    waiting = asyncio.create_task(cache.accepted("device", CLUSTER, version, within=10))
    await asyncio.sleep(0)

    stream.exchange(refuse=CLUSTER)

    with pytest.raises(LongshoreError, match="bad") as refused:
        await waiting
    assert refused.value.code == "XDS_NACK"
    with pytest.raises(LongshoreError, match="bad"):
        await cache.accepted("device", CLUSTER, version, within=10)


async def test_refusal_makes_certain_what_is_held(cache):
    """While an answer is open nobody knows what the client has; its refusal proves that it has the former."""
    stream = Stream(cache).subscribe()
    stream.exchange()
    cache.set("device", snapshot(2))
    [clusters] = stream.session.respond()
    cache.set("device", snapshot(1))
    waiting = asyncio.create_task(cache.accepted("device", CLUSTER, snapshot(1).clusters.version, within=10))
    await asyncio.sleep(0)
    assert not waiting.done()

    stream.session.receive(nack(clusters))
    await waiting


async def test_waiter_gives_up(cache):
    """Without an answer the wait ends, and says whether anybody was there."""
    with pytest.raises(LongshoreError, match="not connected") as late:
        await cache.accepted("device", CLUSTER, "v", within=0)
    assert late.value.code == "ENVOY_WARM_TIMEOUT"
    Stream(cache)
    with pytest.raises(LongshoreError, match=r"\(connected\)"):
        await cache.accepted("device", CLUSTER, "v", within=0)


def test_refused_version_stays_parked_beyond_the_stream(cache):
    """The next stream of the same build gets the last good content; another build is tried with the new one."""
    Stream(cache).subscribe().exchange()
    cache.set("device", snapshot(2))
    first = Stream(cache).subscribe()
    assert first.exchange(refuse=CLUSTER)[0] == (CLUSTER, snapshot(2).clusters.version)
    first.session.close()

    again = Stream(cache).subscribe()
    assert again.exchange() == versions(snapshot(1)), "clusters, and the routes that go with them"
    again.session.close()

    upgraded = Stream(cache, build=41).subscribe()
    assert upgraded.exchange() == versions(snapshot(2))


def test_refused_routes_keep_their_clusters(cache):
    """Only what was refused is replaced: the accepted clusters stand beside the old routes."""
    stream = Stream(cache).subscribe()
    stream.exchange()
    cache.set("device", snapshot(1, 2))
    stream.exchange(refuse=ROUTE)
    stream.session.close()

    came = Stream(cache).subscribe().exchange()

    assert came == [
        *versions(snapshot(1, 2), CLUSTER, LISTENER),
        *versions(snapshot(1), ROUTE),
    ]


def test_refused_listener_does_not_stop_the_routes(cache):
    """A port in use concerns the listener alone."""
    came = Stream(cache).subscribe().exchange(refuse=LISTENER)
    assert came == versions(snapshot(1))


def test_good_content_is_tried_again_by_the_next_stream(cache):
    """What this Envoy accepted last and its successor refuses, a port in use for instance, is not parked."""
    first = Stream(cache).subscribe()
    first.exchange()
    first.session.close()
    second = Stream(cache).subscribe()
    second.exchange(refuse=LISTENER)
    second.session.close()

    assert Stream(cache).subscribe().exchange() == versions(snapshot(1))


async def test_what_an_envoy_holds_is_proven_by_each_stream(cache):
    """After a disconnect nothing is taken for held until the next stream has acknowledged it."""
    stream = Stream(cache).subscribe()
    stream.exchange()
    stream.session.close()

    version = snapshot(1).clusters.version
    with pytest.raises(LongshoreError, match="ENVOY_WARM_TIMEOUT"):
        await cache.accepted("device", CLUSTER, version, within=0)
    Stream(cache).subscribe().exchange()
    await cache.accepted("device", CLUSTER, version, within=0)


async def test_older_stream_has_no_say(cache):
    """Of two streams of one node only the later counts; the end of the older one changes nothing."""
    old, new = Stream(cache).subscribe(), Stream(cache).subscribe()

    assert old.exchange() == []
    new.exchange()
    old.session.close()

    await cache.accepted("device", ROUTE, snapshot(1).routes.version, within=0)


def test_wakes_go_to_the_streams_of_the_node_until_they_close(cache):
    """A change wakes the node's streams and no others; a closed stream is woken no more."""
    stream = Stream(cache)
    cache.set("other", snapshot(3))
    assert stream.wakes == 0
    cache.set("device", snapshot(2))
    assert stream.wakes == 1
    stream.session.close()
    cache.set("device", snapshot(1))
    assert stream.wakes == 1
    assert cache.get("device") == snapshot(1)
    assert cache.get("nobody") is None


def test_unknown_node_waits_until_it_is_known():
    """An Envoy that connects before anybody has set its snapshot gets it when it is set."""
    cache = Cache()
    stream = Stream(cache).subscribe()
    assert stream.exchange() == []

    cache.set("device", snapshot(1))

    assert stream.wakes == 1
    assert stream.exchange() == versions(snapshot(1))
