"""`POST /webhooks/git`: a hint to look now, never a source (FAULTS R5): the commit comes from the configured URL.

`GET /healthz` tells whether the broker serves, `GET /metrics` what it has counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from longshore.broker.deliveries import MAX_BODY, Delivery, new_head, read_delivery, refuse_unread, shown
from longshore.broker.payloads import repository_path
from longshore.broker.settings import ControlSettings
from longshore.schemas.failures import FAILURES, LongshoreError
from longshore.telemetry.metrics import BrokerMetrics

log = structlog.get_logger()

# Every git host gives up on a delivery after 10 s, so nobody waits for the answer to a slower one.
BODY_SECONDS = 10.0

# A host repeats a delivery within minutes, an operator within days: at 100 bytes each, this costs 1 MB.
DELIVERIES_REMEMBERED = 10_000

# Temporal is back within seconds of a restart; the poll finds the commit in any case.
RETRY_AFTER_SECONDS = 10

_STATUS = {
    "WEBHOOK_REPLAY": 200,
    "WEBHOOK_IGNORED": 202,
    "WEBHOOK_BAD_JSON": 400,
    "WEBHOOK_UNSIGNED": 401,
    "WEBHOOK_BAD_SIGNATURE": 401,
    "WEBHOOK_TOO_SLOW": 408,
    "WEBHOOK_TOO_LARGE": 413,
    "TEMPORAL_UNAVAILABLE": 503,
}
_REFUSED = 400


class Webhook:
    """Takes deliveries, and remembers those that it has taken.

    `look_now` is given the commit that should be there, where the host tells it, and must return at once: the git host
    waits for our answer. `require_temporal` raises LongshoreError TEMPORAL_UNAVAILABLE where nothing could be started.
    """

    def __init__(
        self,
        settings: ControlSettings,
        look_now: Callable[[str | None], None],
        require_temporal: Callable[[], Awaitable[None]],
        metrics: BrokerMetrics,
        *,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self._branch = settings.branch
        self._repository = repository_path(settings.registry)
        self._secrets = settings.webhook_secrets
        self._look_now = look_now
        self._require_temporal = require_temporal
        self._metrics = metrics
        self._body_seconds = body_seconds
        self._taken: dict[str, None] = {}

    async def push(self, request: Request) -> Response:
        """Answer one delivery, and count how it ended."""
        try:
            await self._take(request)
        except LongshoreError as error:
            self._metrics.delivered(error.code)
            return _answer(error)
        self._metrics.delivered("accepted")
        return JSONResponse({"status": "accepted"}, status_code=202)

    async def _take(self, request: Request) -> None:
        refuse_unread(request.headers, self._secrets)
        delivery = read_delivery(request.headers, await _body(request, self._body_seconds), self._secrets)
        head = new_head(delivery, self._branch, self._repository)
        await self._require_temporal()
        # From here on nothing waits: of a hundred copies at once, one is the first.
        self._remember(delivery)
        header, secret = delivery.proof
        log.info("webhook_accepted", scheme=header, secret=secret, delivery=delivery.id, commit_sha=head)
        self._look_now(head)

    def _remember(self, delivery: Delivery) -> None:
        """Raise LongshoreError WEBHOOK_REPLAY where the delivery was taken before; one that failed was not taken."""
        if delivery.id is None:
            return
        if delivery.id in self._taken:
            message = f"the delivery {shown(delivery.id)} was taken before; the poll finds what it may have missed"
            raise LongshoreError("WEBHOOK_REPLAY", message)
        self._taken[delivery.id] = None
        if len(self._taken) > DELIVERIES_REMEMBERED:
            del self._taken[next(iter(self._taken))]


def webhook_app(webhook: Webhook, metrics: BrokerMetrics) -> Starlette:
    """Return the broker's HTTP application."""

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def counted(_: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/webhooks/git", webhook.push, methods=["POST"]),
            Route("/healthz", health),
            Route("/metrics", counted),
        ]
    )


async def _body(request: Request, seconds: float) -> bytes:
    """Return the raw body, reading no more and waiting no longer than the limits.

    Raises LongshoreError WEBHOOK_TOO_LARGE, WEBHOOK_TOO_SLOW.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise LongshoreError("WEBHOOK_TOO_LARGE", f"a delivery has at most {MAX_BODY:,} bytes")
    except TimeoutError as error:
        raise LongshoreError("WEBHOOK_TOO_SLOW", f"the body did not arrive within {seconds:g} s") from error
    except ClientDisconnect as error:
        raise LongshoreError("WEBHOOK_TOO_SLOW", "the sender hung up before the body had arrived") from error
    return bytes(body)


def _answer(error: LongshoreError) -> Response:
    """Return what the sender hears: that nothing was started and why, or a refusal as problem JSON (RFC 9457)."""
    status = _STATUS[error.code]
    reason = error.failure.message
    if status < _REFUSED:
        log.info("webhook_ignored", code=error.code, reason=reason)
        return JSONResponse({"status": "ignored", "code": error.code, "reason": reason}, status_code=status)
    log.warning("webhook_refused", code=error.code, error=reason)
    document = {
        "type": f"urn:longshore:problem:{error.code}",
        "title": reason,
        "status": status,
        "code": error.code,
        "remedy": FAILURES[error.code].remedy,
    }
    # What was refused may not have been read: the rest of it is not waited for.
    headers = {"connection": "close"}
    if error.code == "TEMPORAL_UNAVAILABLE":
        headers["retry-after"] = str(RETRY_AFTER_SECONDS)
    return JSONResponse(document, status, headers, "application/problem+json")
