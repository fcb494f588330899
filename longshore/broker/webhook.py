"""`POST /webhooks/git`: a hint to look now, never a source (FAULTS R5): the commit comes from the configured URL.

`GET /healthz` tells whether the broker serves.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from longshore.broker.signatures import authenticate
from longshore.schemas.failures import FAILURES, LongshoreError

log = structlog.get_logger()

# GitHub caps its payloads at 25 MB and sends far less for a push; what is larger is found by the poll.
MAX_BODY = 1024 * 1024

# Every git host gives up on a delivery after 10 s, so nobody waits for the answer to a slower one.
BODY_SECONDS = 10.0

# The push events by the header that names them; any other event is none of our business.
_PUSHES = {
    "x-github-event": {"push"},
    "x-gitea-event": {"push"},
    "x-forgejo-event": {"push"},
    "x-gitlab-event": {"Push Hook"},
    "x-event-key": {"repo:push", "repo:refs_changed"},  # Bitbucket Cloud and Data Center
}
_STATUS = {
    "WEBHOOK_UNSIGNED": 401,
    "WEBHOOK_BAD_SIGNATURE": 401,
    "WEBHOOK_TOO_LARGE": 413,
    "WEBHOOK_TOO_SLOW": 408,
    "WEBHOOK_BAD_JSON": 400,
}


def webhook_app(
    branch: str, secrets: tuple[bytes, ...], look_now: Callable[[], None], *, body_seconds: float = BODY_SECONDS
) -> Starlette:
    """Return the HTTP application. `look_now` must return at once: the git host waits for our answer."""

    async def push(request: Request) -> Response:
        try:
            body = await _body(request, body_seconds)
            scheme = authenticate(request.headers, body, secrets)
            document = _document(body, request.headers.get("content-type", ""))
        except LongshoreError as error:
            log.warning("webhook_refused", code=error.code, error=error.failure.message)
            return _problem(error)
        reason = _not_ours(request, document, branch)
        if reason is not None:
            log.info("webhook_ignored", scheme=scheme, reason=reason)
            return JSONResponse({"status": "ignored", "reason": reason}, status_code=202)
        log.info("webhook_accepted", scheme=scheme)
        look_now()
        return JSONResponse({"status": "accepted"}, status_code=202)

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(routes=[Route("/webhooks/git", push, methods=["POST"]), Route("/healthz", health)])


async def _body(request: Request, seconds: float) -> bytes:
    """Return the raw body, reading no more and waiting no longer than the limits.

    Raises LongshoreError WEBHOOK_TOO_LARGE, WEBHOOK_TOO_SLOW.
    """
    too_large = LongshoreError("WEBHOOK_TOO_LARGE", f"a delivery has at most {MAX_BODY:,} bytes")
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced) > MAX_BODY:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise too_large
    except TimeoutError as error:
        raise LongshoreError("WEBHOOK_TOO_SLOW", f"the body did not arrive within {seconds:g} s") from error
    return bytes(body)


def _document(body: bytes, content_type: str) -> dict[str, Any]:
    """Return the payload. GitHub sends it as a form unless the hook's content type is changed to JSON."""
    try:
        if content_type.startswith("application/x-www-form-urlencoded"):
            body = "".join(parse_qs(body.decode(), max_num_fields=10).get("payload", ())).encode()
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise LongshoreError("WEBHOOK_BAD_JSON", "the body is not JSON") from error
    if not isinstance(document, dict):
        raise LongshoreError("WEBHOOK_BAD_JSON", "the body is no JSON object")
    return document


def _not_ours(request: Request, document: dict[str, Any], branch: str) -> str | None:
    """Return why a delivery starts nothing, or None for a push to the watched branch."""
    named = {header: request.headers[header] for header in _PUSHES if header in request.headers}
    if not any(event in _PUSHES[header] for header, event in named.items()):
        return f"not a push: {', '.join(named.values()) or 'no event is named'}"
    branches = _branches(document)
    if branch not in branches:
        return f"not a push to {branch}: {', '.join(sorted(branches)) or 'no branch is named'}"
    return None


def _branches(document: dict[str, Any]) -> set[str]:
    """Return the branches that a push names: `ref` of GitHub, GitLab and Gitea, or Bitbucket's two lists."""
    refs = {document.get("ref")}
    push = document.get("push")
    changes = push.get("changes") if isinstance(push, dict) else document.get("changes")
    for change in changes if isinstance(changes, list) else ():
        if not isinstance(change, dict):
            continue
        new, ref = change.get("new"), change.get("ref")
        if isinstance(new, dict) and new.get("type") == "branch":
            refs.add(f"refs/heads/{new.get('name')}")
        if isinstance(ref, dict):
            refs.add(ref.get("id"))
    return {ref.removeprefix("refs/heads/") for ref in refs if isinstance(ref, str) and ref.startswith("refs/heads/")}


def _problem(error: LongshoreError) -> Response:
    """Return the error as problem JSON (RFC 9457)."""
    status = _STATUS[error.code]
    document = {
        "type": f"urn:longshore:problem:{error.code}",
        "title": error.failure.message,
        "status": status,
        "code": error.code,
        "remedy": FAILURES[error.code].remedy,
    }
    return JSONResponse(document, status_code=status, media_type="application/problem+json")
