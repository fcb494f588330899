"""What Envoy must know before it can ask: who it is, where its control plane and its admin socket are. Pure.

Everything else, the listener included, comes over ADS.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longshore.xds.routing import check_socket_path

ADS_CLUSTER = "ads"

# The xDS reconnect pauses; Envoy's default goes up to 30 s, which a daemon's restart should not cost (DESIGN §5).
RETRY_BASE = "0.1s"
RETRY_CAP = "1s"

_HTTP2 = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@dataclass(frozen=True)
class Bootstrap:
    """Raises LongshoreError SOCKET_PATH_TOO_LONG for a socket that Envoy could not open."""

    node_id: str
    ads_socket: Path
    admin_socket: Path
    node_cluster: str = "longshore"

    def __post_init__(self) -> None:
        check_socket_path(self.ads_socket)
        check_socket_path(self.admin_socket)

    def text(self) -> str:
        """Return the bootstrap file: equal settings give equal text."""
        return json.dumps(self.document(), indent=2, sort_keys=True) + "\n"

    def document(self) -> dict[str, Any]:
        ads: dict[str, Any] = {"ads": {}, "resource_api_version": "V3"}
        back_off = {"base_interval": RETRY_BASE, "max_interval": RETRY_CAP}
        grpc = {"cluster_name": ADS_CLUSTER, "retry_policy": {"retry_back_off": back_off}}
        return {
            "node": {"id": self.node_id, "cluster": self.node_cluster},
            # Readable by this user alone: the admin interface can stop Envoy.
            "admin": {"address": {"pipe": {"path": str(self.admin_socket), "mode": 0o600}}},
            "dynamic_resources": {
                "ads_config": {
                    "api_type": "GRPC",
                    "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": grpc}],
                    "set_node_on_first_message_only": True,
                },
                "cds_config": ads,
                "lds_config": ads,
            },
            "static_resources": {"clusters": [self._ads_cluster()]},
        }

    def _ads_cluster(self) -> dict[str, Any]:
        return {
            "name": ADS_CLUSTER,
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": _HTTP2,
                    "explicit_http_config": {"http2_protocol_options": {}},
                }
            },
            "load_assignment": {
                "cluster_name": ADS_CLUSTER,
                "endpoints": [
                    {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(self.ads_socket)}}}}]},
                ],
            },
        }
