"""How traffic moves, stage by stage, and what happens when a stage fails: with a scripted client in Envoy's place."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import grpc
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.service.discovery.v3.ads_pb2_grpc import AggregatedDiscoveryServiceStub
from xds_clients import LISTEN, ack, ask, backend, nack, table

from longshore.schemas.failures import LongshoreError
from longshore.worker_host.proxy.traffic import Traffic
from longshore.xds.routing import Route, RoutingTable, Unavailable
from longshore.xds.snapshot import ResourceType

CLUSTER, LISTENER, ROUTE = ResourceType


class FakeEnvoy:
    """Follows its control plane as Envoy does, unless it is told to refuse a type or to be silent about it."""

    def __init__(self, socket: Path) -> None:
        self.log: list[str] = []
        self.refuse: ResourceType | None = None
        self.silent: ResourceType | None = None
        self.clusters: set[str] = set()
        self.leads_to: set[str] = set()
        self._withheld: list = []
        self._socket = socket

    async def run(self) -> None:
        async with grpc.aio.insecure_channel(f"unix:{self._socket}") as channel:
            self._stream = AggregatedDiscoveryServiceStub(channel).StreamAggregatedResources()
            for type_ in ResourceType:
                await self._stream.write(ask(type_))
            while (response := await self._stream.read()) != grpc.aio.EOF:
                await self._take(response)

    async def _take(self, response) -> None:
        type_ = ResourceType.of_url(response.type_url)
        if type_ is self.refuse:
            self.log.append(f"refuse {type_.name}")
            await self._stream.write(nack(response))
            return
        if type_ is CLUSTER:
            self.clusters = {Cluster.FromString(item.value).name for item in response.resources}
        elif type_ is ROUTE:
            entries = RouteConfiguration.FromString(response.resources[0].value).virtual_hosts[0].routes
            self.leads_to = {share.name for entry in entries for share in entry.route.weighted_clusters.clusters}
        assert self.leads_to <= self.clusters, "a route leads nowhere"
        self.log.append(f"take {type_.name}")
        if type_ is self.silent:
            self._withheld.append(response)
        else:
            await self._stream.write(ack(response))

    async def speak(self) -> None:
        """Be silent no longer, and acknowledge what was taken in silence."""
        self.silent = None
        for response in self._withheld:
            await self._stream.write(ack(response))
        self._withheld.clear()

    async def took(self, entry: str) -> None:
        async with asyncio.timeout(10):
            while entry not in self.log:  # noqa: ASYNC110 (the log is all there is to see)
                await asyncio.sleep(0.005)


@pytest.fixture
async def directory():
    path = Path(tempfile.mkdtemp(prefix="ls-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def new_traffic(directory: Path) -> Traffic:
    return Traffic(directory / "ads.sock", node_id="device", listen=LISTEN, arriving=nobody, ack_timeout=10.0)


async def nobody() -> int:
    """No request is on its way."""
    return 0


@pytest.fixture
async def traffic(directory):
    traffic = new_traffic(directory)
    await traffic.start(table(1))
    yield traffic
    await traffic.stop()


@pytest.fixture
async def envoy(traffic, directory):
    envoy = FakeEnvoy(directory / "ads.sock")
    task = asyncio.create_task(envoy.run())
    await traffic.settled()
    envoy.log.clear()
    yield envoy
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def to(number: int) -> Route:
    return Route("model-1", None, (backend(number),))


def names(*numbers: int) -> set[str]:
    return {backend(number).cluster for number in numbers}


async def test_stages_of_a_move(traffic, envoy):
    """New clusters, then the hook, then the routes, then the other hook, then the old clusters go."""

    async def before_flip() -> None:
        envoy.log.append("before flip")

    async def before_removal() -> None:
        envoy.log.append("before removal")
        assert envoy.clusters == names(1, 2)

    await traffic.set_route(to(2), before_flip=before_flip, before_removal=before_removal)

    assert envoy.log == ["take CLUSTER", "before flip", "take ROUTE", "before removal", "take CLUSTER"]
    assert (envoy.clusters, envoy.leads_to) == (names(2), names(2))
    assert traffic.table.get("model-1") == to(2)


async def test_route_that_is_there_already_is_no_move(traffic, envoy):
    """Setting the same route again sends nothing."""
    await traffic.set_route(to(1))
    assert envoy.log == []


async def test_unload_and_forget(traffic, envoy):
    """A route without backends takes the traffic off its cluster, a removal its address away."""
    await traffic.set_route(Route("model-1", None, unavailable=Unavailable.DRAINING))
    assert envoy.log == ["take ROUTE", "take CLUSTER"]
    assert (envoy.clusters, envoy.leads_to) == (set(), set())

    await traffic.remove("model-1")
    assert traffic.table == RoutingTable()
    await traffic.remove("model-1")


async def test_refused_flip_takes_the_new_cluster_back(traffic, envoy):
    """Envoy refuses the routes: the old ones stand, and no cluster is left over."""
    envoy.refuse = ROUTE
    with pytest.raises(LongshoreError, match="XDS_NACK"):
        await traffic.set_route(to(2))
    assert traffic.table == table(1)

    envoy.refuse = None
    await traffic.settled()
    assert (envoy.clusters, envoy.leads_to) == (names(1), names(1))


async def test_silence_about_a_flip_leaves_both_clusters(traffic, envoy):
    """Nobody knows whether a silent Envoy followed: it is called back with both clusters in place; only then does the
    new one go.
    """
    traffic._ack_timeout = 0.2
    envoy.silent = ROUTE
    with pytest.raises(LongshoreError, match="ENVOY_WARM_TIMEOUT"):
        await traffic.set_route(to(2))
    assert envoy.leads_to == names(2), "it had followed"
    assert traffic.table == table(1)

    traffic._ack_timeout = 10.0
    envoy.log.clear()
    await envoy.speak()
    await traffic.settled()
    assert envoy.log == ["take ROUTE", "take CLUSTER"]
    assert (envoy.clusters, envoy.leads_to) == (names(1), names(1))


async def test_what_must_not_be_reached_is_not_shown_to_an_envoy_that_is_away(traffic, directory):
    """An UNLOAD succeeds while Envoy is down, and Envoy comes back to the new table."""
    traffic._ack_timeout = 0.1
    await traffic.set_route(Route("model-1", None, unavailable=Unavailable.DISABLED))
    assert traffic.table.get("model-1").unavailable is Unavailable.DISABLED

    traffic._ack_timeout = 10.0
    envoy = FakeEnvoy(directory / "ads.sock")
    task = asyncio.create_task(envoy.run())
    await traffic.settled()
    assert (envoy.clusters, envoy.leads_to) == (set(), set())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_new_control_plane_breaks_nothing_that_the_former_had_begun(directory):
    """A control plane was killed right after a flip: its successor calls Envoy back with both clusters in place."""
    former, successor = (new_traffic(directory) for _ in range(2))
    await former.start(table(2))
    envoy = FakeEnvoy(directory / "ads.sock")
    task = asyncio.create_task(envoy.run())
    await former.settled()
    await former.stop()
    await asyncio.gather(task, return_exceptions=True)

    await successor.start(table(1), spare=[backend(1), backend(2)])
    envoy.log.clear()
    task = asyncio.create_task(envoy.run())  # it follows 2, and asserts that no route ever leads nowhere
    await successor.settled()
    assert (envoy.clusters, envoy.leads_to) == (names(1), names(1))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await successor.stop()


async def test_removal_that_nobody_confirms_is_no_failure(traffic, envoy):
    """The traffic has moved: a late confirmation of the rest is only logged, and comes when Envoy is back."""

    async def fall_silent() -> None:
        traffic._ack_timeout = 0.2
        envoy.silent = CLUSTER

    await traffic.set_route(to(2), before_removal=fall_silent)
    assert traffic.table.get("model-1") == to(2)

    traffic._ack_timeout = 10.0
    await envoy.speak()
    await traffic.settled()
    assert envoy.clusters == names(2)


async def test_hook_that_fails_after_the_flip_stops_nothing(traffic, envoy):
    """A reading of statistics that fails does not leave a move half done."""

    async def fail() -> None:
        raise RuntimeError("no statistics")

    await traffic.set_route(to(2), before_removal=fail)
    assert (envoy.clusters, envoy.leads_to) == (names(2), names(2))


async def test_cancelled_before_the_flip(traffic, envoy):
    """A move that is cancelled early leaves the old routes, and takes the new cluster back."""
    reached = asyncio.Event()

    async def wait_for_ever() -> None:
        reached.set()
        await asyncio.Event().wait()

    move = asyncio.create_task(traffic.set_route(to(2), before_flip=wait_for_ever))
    await reached.wait()
    move.cancel()
    with pytest.raises(asyncio.CancelledError):
        await move

    await traffic.settled()
    assert (envoy.clusters, envoy.leads_to) == (names(1), names(1))


async def test_cancelled_after_the_flip(traffic, envoy):
    """Past its point of no return a move completes, and only then is the cancellation delivered."""
    envoy.silent = ROUTE
    move = asyncio.create_task(traffic.set_route(to(2)))
    await envoy.took("take ROUTE")
    move.cancel()
    await envoy.speak()

    with pytest.raises(asyncio.CancelledError):
        await move
    assert traffic.table.get("model-1") == to(2)
    assert (envoy.clusters, envoy.leads_to) == (names(2), names(2))


async def test_moves_go_one_after_the_other(traffic, envoy):
    """Moves of several deployments at once all arrive."""
    await asyncio.gather(
        *(traffic.set_route(Route(f"other-{number}", None, (backend(number),))) for number in range(10, 20)),
        traffic.set_route(to(2)),
    )
    assert envoy.clusters == envoy.leads_to == names(2, *range(10, 20))


async def test_a_request_on_its_way_keeps_its_cluster_and_holds_up_no_other_move(traffic, envoy):
    """Its cluster stays until it has reached its runner; meanwhile other deployments move."""
    on_their_way = 1

    async def arriving() -> int:
        return on_their_way

    traffic._arriving = arriving
    move = asyncio.create_task(traffic.set_route(to(2)))
    await envoy.took("take ROUTE")
    await traffic.set_route(Route("other", None, (backend(7),)))
    assert (envoy.clusters, envoy.leads_to) == (names(1, 2, 7), names(2, 7))
    on_their_way = 0
    await move
    assert envoy.clusters == names(2, 7)
