"""The ADS server: Envoy's one gRPC stream over a Unix socket, driven by a `Conversation` and the `Cache`.

A complete control plane in a few lines:

    cache = Cache()
    cache.set("device-1", Snapshot.of(RoutingTable(), Listen("127.0.0.1", 8080)))
    server = AdsServer(cache, Path("/run/longshore/ads.sock"))
    await server.start()
    ...
    cache.set("device-1", other)    # connected Envoys are told at once
    await cache.accepted("device-1", ResourceType.ROUTE, other.routes.version, within=15)
    await server.stop()
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import structlog
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse

from longshore.schemas.failures import LongshoreError
from longshore.xds.cache import Cache, Session
from longshore.xds.conversation import Conversation
from longshore.xds.node import Identity
from longshore.xds.routing import check_socket_path

_log = structlog.get_logger()

_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"

# Bits by grpc_compression_algorithm: identity (0) and gzip (2), as row A21 asks; never deflate (1).
_CODECS = 1 << 0 | 1 << 2


class AdsServer:
    """Serves `StreamAggregatedResources`. The incremental variant is answered UNIMPLEMENTED, as gRPC does by itself."""

    def __init__(self, cache: Cache, socket: Path) -> None:
        self._cache = cache
        self._socket = check_socket_path(socket)
        self._server: Any = None

    async def start(self) -> None:
        """Bind the socket and serve.

        Raises LongshoreError SOCKET_IN_USE where another server answers on the path: gRPC would replace its socket
        without a word, and two control planes would then feed one Envoy in turns. A dead socket is removed.
        """
        await self._refuse_live_socket()
        self._remove_dead_socket()
        self._server = grpc.aio.server(options=[("grpc.compression_enabled_algorithms_bitset", _CODECS)])
        stream = grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=DiscoveryRequest.FromString,
            response_serializer=DiscoveryResponse.SerializeToString,
        )
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(_SERVICE, {"StreamAggregatedResources": stream})]
        )
        self._server.add_insecure_port(f"unix:{self._socket}")
        await self._server.start()

    async def stop(self) -> None:
        """Close all streams and the socket. Envoy keeps its configuration and goes on serving."""
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None

    async def _refuse_live_socket(self) -> None:
        try:
            _, writer = await asyncio.open_unix_connection(self._socket)
        except (FileNotFoundError, ConnectionRefusedError):
            return
        writer.close()
        raise LongshoreError("SOCKET_IN_USE", f"another control plane serves on {self._socket}")

    def _remove_dead_socket(self) -> None:
        Path(self._socket).unlink(missing_ok=True)

    async def _stream(self, requests: AsyncIterator[Any], context: Any) -> None:
        # What to act upon, in order: a request, True for "the offer may have changed", None for the stream's end.
        inbox: asyncio.Queue[Any] = asyncio.Queue()
        reader = asyncio.create_task(_read(requests, inbox), name="ads-reader")
        session: Session | None = None
        try:
            while (item := await inbox.get()) is not None:
                if item is not True:
                    if session is None:
                        session = self._connect(Identity.of(item), inbox)
                    session.receive(item)
                if session is not None:
                    for response in session.respond():
                        await context.write(response)
            # The end by an error ends the call with that error: nothing is swallowed.
            await reader
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError, grpc.RpcError):
                await reader
            if session is not None:
                session.close()
                _log.info("xds_stream_closed", node_id=session.identity.node_id)

    def _connect(self, identity: Identity, inbox: asyncio.Queue[Any]) -> Session:
        session = self._cache.connect(identity, Conversation(), lambda: inbox.put_nowait(True))
        if self._cache.get(identity.node_id) is None:
            _log.warning("xds_unknown_node", node_id=identity.node_id)
        else:
            _log.info("xds_stream_opened", node_id=identity.node_id)
        return session


async def _read(requests: AsyncIterator[Any], inbox: asyncio.Queue[Any]) -> None:
    try:
        async for request in requests:
            inbox.put_nowait(request)
    finally:
        inbox.put_nowait(None)
