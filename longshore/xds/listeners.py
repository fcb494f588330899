"""The one listener that clients reach: HTTP/1.1 and HTTP/2, problem JSON for whatever Envoy answers by itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple

from envoy.config.accesslog.v3.accesslog_pb2 import (
    AccessLogFilter,
    AndFilter,
    ComparisonFilter,
    OrFilter,
    ResponseFlagFilter,
    StatusCodeFilter,
)
from envoy.config.core.v3.address_pb2 import Address, CidrRange, SocketAddress
from envoy.config.core.v3.base_pb2 import HeaderValueOption, RuntimeUInt32
from envoy.config.core.v3.config_source_pb2 import AggregatedConfigSource, ApiVersion, ConfigSource
from envoy.config.core.v3.substitution_format_string_pb2 import SubstitutionFormatString
from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.http.buffer.v3.buffer_pb2 import Buffer
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
    HttpFilter,
    LocalReplyConfig,
    Rds,
    ResponseMapper,
)
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from longshore.xds.problems import CONTENT_TYPE, OVERLOADED, PROXY, TIMEOUT, TOO_LARGE, UNREACHABLE, Problem
from longshore.xds.resources import REQUEST_TIMEOUT, ROUTES_NAME, header, packed, seconds

LISTENER_NAME = "ingress"
STAT_PREFIX = "ingress"

# Bytes. Envoy reads a request whole before it troubles a runner (a slow client then holds no place in its queue),
# so this much memory is at stake per request; a batch of images in base64 fits.
MAX_REQUEST_BYTES = 16 * 1024 * 1024

# How long a client may take to send its headers, and then the rest: nobody trickles for ever.
HEADERS_TIMEOUT = timedelta(seconds=10)
RECEIVE_TIMEOUT = timedelta(seconds=60)

# How long a stream may stay silent: longer than a request may take, so that the route's timeout speaks first.
STREAM_IDLE_TIMEOUT = REQUEST_TIMEOUT + timedelta(seconds=15)


class Listen(NamedTuple):
    """Where clients reach Envoy. `host` is an IP address, or `localhost` for 127.0.0.1."""

    host: str
    port: int


def listener(listen: Listen) -> Any:
    """Return the Listener; its routes come by RDS over the same stream."""
    host = "127.0.0.1" if listen.host == "localhost" else listen.host.strip("[]")
    manager = Filter(name="http", typed_config=packed(_connection_manager()))
    return Listener(
        name=LISTENER_NAME,
        address=Address(socket_address=SocketAddress(address=host, port_value=listen.port)),
        filter_chains=[FilterChain(filters=[manager])],
        # With SO_REUSEPORT a second device on the same port would take half of the requests without an error.
        enable_reuse_port=BoolValue(value=False),
        # Few long-lived connections: without this one worker thread may get them all.
        connection_balance_config=Listener.ConnectionBalanceConfig(
            exact_balance=Listener.ConnectionBalanceConfig.ExactBalance()
        ),
    )


def _connection_manager() -> Any:
    manager = HttpConnectionManager(
        stat_prefix=STAT_PREFIX,
        rds=Rds(
            route_config_name=ROUTES_NAME,
            config_source=ConfigSource(ads=AggregatedConfigSource(), resource_api_version=ApiVersion.V3),
        ),
        http_filters=[
            HttpFilter(
                name="buffer", typed_config=packed(Buffer(max_request_bytes=UInt32Value(value=MAX_REQUEST_BYTES)))
            ),
            HttpFilter(name="router", typed_config=packed(Router())),
        ],
        request_headers_timeout=seconds(HEADERS_TIMEOUT),
        request_timeout=seconds(RECEIVE_TIMEOUT),
        stream_idle_timeout=seconds(STREAM_IDLE_TIMEOUT),
        use_remote_address=BoolValue(value=True),
        # No client counts as internal, so that the routes' `internal_only_headers` are removed from every request.
        # Without a range Envoy would take all private addresses; nobody calls from the broadcast address.
        internal_address_config=HttpConnectionManager.InternalAddressConfig(
            cidr_ranges=[CidrRange(address_prefix="255.255.255.255", prefix_len=UInt32Value(value=32))]
        ),
        normalize_path=BoolValue(value=True),
        # An endpoint is recognised by its host and path, whatever the port.
        strip_any_host_port=True,
        local_reply_config=_local_replies(),
    )
    manager.common_http_protocol_options.idle_timeout.FromTimedelta(timedelta(hours=1))
    return manager


def _local_replies() -> Any:
    """Return what Envoy's own errors look like, by response flag first and then by status.

    The mappers see the routes' direct responses, too. Those have no flag and the statuses 404, 405 and 503, which is
    how the last mapper leaves them alone.
    """
    no_direct_response = _any_of(
        _status("LE", 403), _all_of(_status("GE", 406), _status("LE", 502)), _status("GE", 504)
    )
    return LocalReplyConfig(
        mappers=[
            _mapper(_flags("UO"), OVERLOADED),
            _mapper(_flags("UT"), TIMEOUT),
            _mapper(_flags("UF", "UC", "UH", "UR", "LR"), UNREACHABLE),
            _mapper(_status("EQ", TOO_LARGE.status), TOO_LARGE),
            ResponseMapper(
                filter=_any_of(_flags(), no_direct_response),
                body_format_override=_json(
                    PROXY.document(cause="%RESPONSE_CODE_DETAILS%")
                    | {"status": "%RESPONSE_CODE%", "detail": "%LOCAL_REPLY_BODY%"}
                ),
            ),
        ]
    )


def _mapper(condition: Any, problem: Problem) -> Any:
    mapper = ResponseMapper(
        filter=condition,
        status_code=UInt32Value(value=problem.status),
        body_format_override=_json(problem.document()),
    )
    if problem.retry_after is not None:
        mapper.headers_to_add.append(
            header("retry-after", str(problem.retry_after), HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD)
        )
    return mapper


def _json(document: dict[str, Any]) -> Any:
    body = Struct()
    body.update(document)
    return SubstitutionFormatString(json_format=body, content_type=CONTENT_TYPE)


def _flags(*flags: str) -> Any:
    """Match any of Envoy's response flags, or, without arguments, the presence of one."""
    return AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags=flags))


def _status(operation: str, status: int) -> Any:
    # Envoy demands a runtime key; nothing sets it.
    value = RuntimeUInt32(default_value=status, runtime_key="longshore.unset")
    comparison = ComparisonFilter(op=ComparisonFilter.Op.Value(operation), value=value)
    return AccessLogFilter(status_code_filter=StatusCodeFilter(comparison=comparison))


def _any_of(*filters: Any) -> Any:
    return AccessLogFilter(or_filter=OrFilter(filters=filters))


def _all_of(*filters: Any) -> Any:
    return AccessLogFilter(and_filter=AndFilter(filters=filters))
