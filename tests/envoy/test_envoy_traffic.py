"""Traffic through a real Envoy: the first answer, flips under load, refusals."""

from __future__ import annotations

import asyncio

import pytest
from envoy_backends import until

from longshore.schemas.failures import LongshoreError
from longshore.xds.routing import Backend, Route, RoutingTable, Unavailable

pytestmark = pytest.mark.envoy


async def test_first_answer_comes_through_ads(plane):
    """A route that stands before Envoy starts is served once Envoy has started."""
    _, backend = await plane.runner("1.0.0")
    await plane.start(Route("sentiment", None, (backend,)))

    answer = await plane.ask("/infer/sentiment", json={})

    assert answer.status_code == 200
    assert answer.json() == {"version": "1.0.0"}
    assert answer.headers["x-model-version"] == "1.0.0"


async def test_flips_under_load_lose_no_request(plane):
    """Traffic goes to and fro between two versions while eight clients ask, and no request fails."""
    one, first = await plane.runner("1.0.0")
    await plane.start(Route("sentiment", None, (first,)))
    load = plane.load("/infer/sentiment")
    await load.beyond(100)

    for number in range(10):
        version = f"1.{number % 2}.{number}"
        runner, backend = await plane.runner(version)
        await plane.traffic.set_route(Route("sentiment", None, (backend,)))
        await load.beyond(100)
    await load.stop()

    assert load.failures == []
    assert set(load.seen) == {"200 1.0.0", *(f"200 1.{n % 2}.{n}" for n in range(10))}
    assert one.connections == 0, "Envoy closes its connections to a runner that left the routes"
    assert runner.connections > 0


async def test_requests_in_flight_finish_on_the_old_version(plane):
    """A request that the old runner holds is answered by it, although its cluster has been removed meanwhile."""
    old, first = await plane.runner("1.0.0")
    _, second = await plane.runner("2.0.0")
    await plane.start(Route("sentiment", None, (first,)))
    old.hold.clear()
    load = plane.load("/infer/sentiment", connections=1)
    await until(lambda: old.requests)

    await plane.traffic.set_route(Route("sentiment", None, (second,)))
    old.hold.set()
    await load.beyond(2)
    await load.stop()

    assert load.seen["200 1.0.0"] == 1
    assert load.failures == []


async def test_hook_runs_before_any_request_reaches_the_new_version(plane):
    """What `before_flip` raises is raised, and the old version keeps the traffic."""
    _, first = await plane.runner("1.0.0")
    new, second = await plane.runner("2.0.0")
    await plane.start(Route("sentiment", None, (first,)))

    async def lease_lost() -> None:
        raise LongshoreError("FENCED", "another attempt holds the lease")

    with pytest.raises(LongshoreError, match="FENCED"):
        await plane.traffic.set_route(Route("sentiment", None, (second,)), before_flip=lease_lost)

    assert (await plane.ask("/infer/sentiment", json={})).json() == {"version": "1.0.0"}
    assert new.requests == 0
    await plane.traffic.set_route(Route("sentiment", None, (second,)))
    assert (await plane.ask("/infer/sentiment", json={})).json() == {"version": "2.0.0"}


async def test_statistics_of_the_old_cluster_can_be_read_before_it_goes(plane):
    """`before_removal` still finds the old cluster's counts; afterwards they are gone."""
    _, first = await plane.runner("1.0.0")
    _, second = await plane.runner("2.0.0")
    await plane.start(Route("sentiment", None, (first,)))
    await plane.ask("/infer/sentiment", json={})
    last_reading = {}

    async def read() -> None:
        last_reading.update(await plane.envoy.stats())

    await plane.traffic.set_route(Route("sentiment", None, (second,)), before_removal=read)

    assert last_reading[first.cluster].requests == 1
    assert last_reading[first.cluster].errors == 0
    assert last_reading[first.cluster].in_flight == 0
    assert first.cluster not in await plane.envoy.stats()


async def test_refused_configuration_is_parked_and_the_last_good_one_serves(plane):
    """Envoy's reason reaches the caller, the old routes stand, and the same content is not sent a second time."""
    _, backend = await plane.runner("1.0.0")
    await plane.start(Route("sentiment", None, (backend,)))
    # A header name that Envoy does not accept: refused by the proxy, not by us.
    bad = Route("sentiment", None, (backend,), hash_on="no header\n")

    with pytest.raises(LongshoreError, match="HeaderName") as refused:
        await plane.traffic.set_route(bad)
    assert refused.value.code == "XDS_NACK"
    assert await plane.stat("http.ingress.rds.models.update_rejected") == 1

    with pytest.raises(LongshoreError, match="XDS_NACK"):
        await plane.traffic.set_route(bad)
    assert await plane.stat("http.ingress.rds.models.update_rejected") == 1
    assert plane.traffic.table == RoutingTable((Route("sentiment", None, (backend,)),))
    assert (await plane.ask("/infer/sentiment", json={})).status_code == 200

    _, second = await plane.runner("2.0.0")
    await plane.traffic.set_route(Route("sentiment", None, (second,)))
    assert (await plane.ask("/infer/sentiment", json={})).json() == {"version": "2.0.0"}


async def test_refused_cluster_leaves_everything_as_it_was(plane):
    """A cluster that Envoy refuses is taken back before any route changes."""
    _, backend = await plane.runner("1.0.0")
    await plane.start(Route("sentiment", None, (backend,)))
    called = []

    async def before_flip() -> None:
        called.append(1)

    bad = Backend("f" * 10, "", "2.0.0", 1)
    with pytest.raises(LongshoreError, match="XDS_NACK"):
        await plane.traffic.set_route(Route("sentiment", None, (bad,)), before_flip=before_flip)

    assert not called
    assert (await plane.ask("/infer/sentiment", json={})).status_code == 200


async def test_silent_envoy_is_reported_and_nothing_has_moved(plane):
    """Without an Envoy a move ends with a time-out, and the table is the old one."""
    traffic = plane.traffic = plane.new_traffic(ack_timeout=0.05)
    route = Route("sentiment", None, unavailable=Unavailable.NOT_LOADED)
    await traffic.start(RoutingTable((route,)))
    _, backend = await plane.runner("1.0.0")

    with pytest.raises(LongshoreError, match="not connected") as late:
        await traffic.set_route(Route("sentiment", None, (backend,)))

    assert late.value.code == "ENVOY_WARM_TIMEOUT"
    assert traffic.table == RoutingTable((route,))


async def test_shares_and_sticky_assignment(plane):
    """Weights split the traffic; with `hash_on` one value of the header always meets one version."""
    _, first = await plane.runner("1.0.0")
    _, second = await plane.runner("2.0.0")
    shares = {first.instance_id: 50, second.instance_id: 50}
    await plane.start(Route("sentiment", None, (first, second), shares, hash_on="x-user"))

    async def versions(user: str) -> set[str]:
        answers = [await plane.ask("/infer/sentiment", json={}, headers={"x-user": user}) for _ in range(4)]
        return {answer.headers["x-model-version"] for answer in answers}

    seen = [await versions(f"user-{number}") for number in range(16)]

    assert all(len(found) == 1 for found in seen)
    assert set.union(*seen) == {"1.0.0", "2.0.0"}


async def test_a_request_that_is_still_arriving_is_answered_by_the_version_it_came_for(plane):
    """A slow upload began before the flip and ends after it: its version takes it, and only then is let go."""
    _, first = await plane.runner("1.0.0")
    _, second = await plane.runner("2.0.0")
    await plane.start(Route("sentiment", None, (first,)))
    reader, writer = await asyncio.open_connection("127.0.0.1", plane.port)
    writer.write(b"POST /infer/sentiment HTTP/1.1\r\nhost: device\r\ncontent-length: 2\r\n\r\n{")
    await until(lambda: plane.stat("http.ingress.downstream_rq_active"))

    move = asyncio.create_task(plane.traffic.set_route(Route("sentiment", None, (second,))))
    await until(lambda: plane.serves("/infer/sentiment", "2.0.0"))
    writer.write(b"}")
    status = await reader.readline()
    writer.close()

    await move
    assert status == b"HTTP/1.1 200 OK\r\n"
