"""Deliveries of a webhook: whatever arrives, forged or signed, ends in a delivery or in a failure with a code."""

from __future__ import annotations

import hashlib
import hmac
import json

from fuzzing import instrumented, run

with instrumented():
    from longshore.broker.deliveries import new_head, read_delivery, refuse_unread
    from longshore.broker.payloads import repository_path
    from longshore.schemas.failures import Failure, LongshoreError

SECRETS = {"current": b"a secret", "before": b"the one before"}


def judge(data: bytes) -> None:
    """The first line is the headers as JSON, the rest the body, which is judged as it came and signed."""
    first, _, body = data.partition(b"\n")
    try:
        given = json.loads(first)
    except (ValueError, RecursionError):
        given = {}
    headers = {str(k).lower(): str(v) for k, v in given.items()} if isinstance(given, dict) else {}
    headers = {name: value.encode("latin-1", "replace").decode("latin-1") for name, value in headers.items()}
    signature = hmac.new(SECRETS["current"], body, hashlib.sha256).hexdigest()
    for some in (headers, {**headers, "x-hub-signature-256": f"sha256={signature}"}):
        failure = refused(some, body)
        assert failure is None or failure.message
    repository_path(body[:300].decode("utf-8", "replace"))


def refused(headers: dict[str, str], body: bytes) -> Failure | None:
    try:
        refuse_unread(headers, SECRETS)
        new_head(read_delivery(headers, body, SECRETS), "main", "ops/model-registry")
    except LongshoreError as error:
        return error.failure
    return None


if __name__ == "__main__":
    run(judge)
