"""The ADS server over its Unix socket, with a gRPC client in Envoy's place."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from envoy.service.discovery.v3.ads_pb2_grpc import AggregatedDiscoveryServiceStub
from xds_clients import ack, ask, snapshot

from longshore.schemas.failures import LongshoreError
from longshore.xds.cache import Cache
from longshore.xds.server import AdsServer
from longshore.xds.snapshot import ResourceType

CLUSTER, LISTENER, ROUTE = ResourceType


@pytest.fixture
async def directory():
    path = Path(tempfile.mkdtemp(prefix="ls-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def cache(directory):
    cache = Cache()
    cache.set("device", snapshot(1))
    server = AdsServer(cache, directory / "ads.sock")
    await server.start()
    yield cache
    await server.stop()


@asynccontextmanager
async def client(directory, **options):
    async with grpc.aio.insecure_channel(f"unix:{directory / 'ads.sock'}", **options) as channel:
        yield AggregatedDiscoveryServiceStub(channel)


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_complete_exchange(cache, directory, compression):
    """The usage of the whole room: set a snapshot, let a client follow it, change it, wait until it has followed."""
    async with client(directory, compression=compression) as stub:
        stream = stub.StreamAggregatedResources()
        for type_ in ResourceType:
            await stream.write(ask(type_))
            response = await stream.read()
            assert response.version_info == snapshot(1)[type_].version
            await stream.write(ack(response))
        await cache.accepted("device", ROUTE, snapshot(1).routes.version, within=10)

        cache.set("device", snapshot(1, 2))
        clusters = await stream.read()
        assert clusters.version_info == snapshot(1, 2).clusters.version
        await stream.write(ack(clusters))
        await cache.accepted("device", CLUSTER, clusters.version_info, within=10)
        stream.cancel()


@pytest.mark.parametrize("graceful", [True, False])
async def test_stream_leaves_no_watcher(cache, directory, graceful):
    """However a stream ends, nobody keeps calling it."""
    async with client(directory) as stub:
        stream = stub.StreamAggregatedResources()
        await stream.write(ask(CLUSTER))
        await stream.read()
        assert len(cache._sessions["device"]) == 1
        if graceful:
            await stream.done_writing()
            assert await stream.read() == grpc.aio.EOF
        else:
            stream.cancel()
        async with asyncio.timeout(10):
            while cache._sessions["device"]:  # noqa: ASYNC110 (there is no event for what must not be there)
                await asyncio.sleep(0.005)


@pytest.mark.usefixtures("cache")
async def test_incremental_variant_is_not_offered(directory):
    """Delta xDS is answered as gRPC answers any method that there is not."""
    async with client(directory) as stub:
        stream = stub.DeltaAggregatedResources()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stream.read()
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.usefixtures("cache")
async def test_living_socket_is_not_stolen(directory):
    """A second server on the path is refused, and the first goes on."""
    with pytest.raises(LongshoreError, match="SOCKET_IN_USE"):
        await AdsServer(Cache(), directory / "ads.sock").start()

    async with client(directory) as stub:
        stream = stub.StreamAggregatedResources()
        await stream.write(ask(CLUSTER))
        assert (await stream.read()).version_info == snapshot(1).clusters.version
        stream.cancel()


async def test_dead_socket_is_cleaned_up(directory):
    """What a killed server has left on the path is no obstacle."""
    path = directory / "ads.sock"
    leftover = await asyncio.start_unix_server(lambda *_: None, path)
    leftover.close()
    await leftover.wait_closed()
    assert path.exists()

    server = AdsServer(Cache(), path)
    await server.start()
    await server.stop()


def test_path_that_no_socket_can_have(directory):
    """The length of the path is checked before anything is bound."""
    with pytest.raises(LongshoreError, match="SOCKET_PATH_TOO_LONG"):
        AdsServer(Cache(), directory / ("x" * 120))
