"""The webhook's application in one process, and deliveries as the git hosts shape and sign them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from longshore.broker.settings import ControlSettings
from longshore.broker.webhook import Webhook, webhook_app
from longshore.schemas.failures import LongshoreError
from longshore.telemetry.metrics import BrokerMetrics

SECRET = b"a secret of the tests"
HEAD = "1" * 40

# The shapes of real push deliveries, cut down to what tells them apart.
GITHUB = {
    "ref": "refs/heads/main",
    "before": "0" * 40,
    "after": HEAD,
    "repository": {"full_name": "ops/model-registry", "clone_url": "https://git.example/ops/model-registry.git"},
    "pusher": {"name": "olga"},
    "commits": [],
}
GITLAB = {
    "object_kind": "push",
    "event_name": "push",
    "ref": "refs/heads/main",
    "after": HEAD,
    "checkout_sha": HEAD,
    "project": {
        "path_with_namespace": "ops/model-registry",
        "git_http_url": "https://git.example/ops/model-registry.git",
    },
}
GITEA = {
    "ref": "refs/heads/main",
    "after": HEAD,
    "repository": {"clone_url": "https://git.example/ops/model-registry.git"},
}
BITBUCKET_CLOUD = {
    "push": {"changes": [{"new": {"type": "branch", "name": "main", "target": {"hash": HEAD}}, "old": None}]},
    "repository": {"full_name": "ops/model-registry"},
}
BITBUCKET_DATA_CENTER = {
    "eventKey": "repo:refs_changed",
    "repository": {"slug": "model-registry", "project": {"key": "OPS"}},
    "changes": [{"ref": {"id": "refs/heads/main", "displayId": "main", "type": "BRANCH"}, "toHash": HEAD}],
}


def digest(body: bytes, secret: bytes = SECRET) -> str:
    return hmac.new(secret, body, hashlib.sha256).hexdigest()


def standard(body: bytes, key: bytes, identity: str = "msg-1", timestamp: str = "1795326397") -> dict[str, str]:
    """The headers of Standard Webhooks, as GitLab sends them with a signing token."""
    signed = f"{identity}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {"webhook-id": identity, "webhook-timestamp": timestamp, "webhook-signature": f"v1,{signature}"}


async def temporal_answers() -> None:
    """Raise nothing."""


async def temporal_is_away() -> None:
    raise LongshoreError("TEMPORAL_UNAVAILABLE", "connection refused")


class Door:
    """The application with its hints kept."""

    def __init__(
        self,
        *secrets: bytes,
        temporal: Callable[[], Awaitable[None]] = temporal_answers,
        body_seconds: float = 20,
    ) -> None:
        current, before = (*(secret.decode() for secret in secrets), None, None)[:2]
        settings = ControlSettings(
            registry="https://git.example/ops/model-registry.git", webhook_secret=current, webhook_secret_before=before
        )
        self.heads: list[str | None] = []
        self.temporal = temporal
        metrics = BrokerMetrics()
        self.webhook = Webhook(settings, self.heads.append, self._require_temporal, metrics, body_seconds=body_seconds)
        self.app = webhook_app(self.webhook, metrics)
        self.client = TestClient(self.app)

    async def _require_temporal(self) -> None:
        await self.temporal()

    @property
    def hints(self) -> int:
        return len(self.heads)

    def post(self, body: bytes, **headers: str | bytes) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post("/webhooks/git", content=body, headers=named)

    def push(self, payload: dict[str, Any] = GITHUB, **headers: str) -> Any:
        """Deliver a signed push as GitHub does."""
        body = json.dumps(payload).encode()
        return self.post(body, **{"x_github_event": "push", **headers}, x_hub_signature_256=f"sha256={digest(body)}")

    def counted(self) -> dict[str, float]:
        """What `GET /metrics` says of deliveries, by outcome."""
        families = text_string_to_metric_families(self.client.get("/metrics").text)
        return {
            sample.labels["outcome"]: sample.value
            for family in families
            for sample in family.samples
            if sample.name == "broker_webhook_deliveries_total"
        }
