"""The problem documents (RFC 9457) that Envoy answers by itself: one table, so that `type` never varies.

A `type` is an opaque URN, for programs to compare; `detail` is for people.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from longshore.xds.routing import Unavailable

CONTENT_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:longshore:problem:"


@dataclass(frozen=True)
class Problem:
    """One kind of error. `retry_after` is in seconds; None where waiting does not help."""

    name: str
    status: int
    title: str
    detail: str
    retry_after: int | None = None

    @property
    def type(self) -> str:
        return TYPE_PREFIX + self.name

    def document(self, **members: str) -> dict[str, Any]:
        """Return the JSON document, with `members` as RFC 9457 extension members."""
        return {"type": self.type, "title": self.title, "status": self.status, "detail": self.detail, **members}


UNAVAILABLE = {
    Unavailable.DISABLED: Problem(
        Unavailable.DISABLED, 503, "Deployment disabled", "An operator has disabled this deployment."
    ),
    # A load takes seconds to minutes: a client that asks every five seconds is neither late nor a burden.
    Unavailable.NOT_LOADED: Problem(
        Unavailable.NOT_LOADED, 503, "Model not loaded", "No version of this model is loaded on this device.", 5
    ),
    Unavailable.DRAINING: Problem(
        Unavailable.DRAINING, 503, "Model draining", "This model is being unloaded from this device.", 5
    ),
}
UNKNOWN_DEPLOYMENT = Problem(
    "unknown-deployment", 404, "No such deployment", "This device has no deployment at this address."
)
METHOD_NOT_ALLOWED = Problem("method-not-allowed", 405, "Method not allowed", "Inferences are asked for with POST.")

OVERLOADED = Problem("overloaded", 503, "Model overloaded", "The model has as many requests waiting as it may hold.", 1)
TIMEOUT = Problem("timeout", 504, "Model too slow", "The model did not answer in time.")
UNREACHABLE = Problem(
    "unreachable", 503, "Model unreachable", "The model's process ended or refused the connection.", 1
)
TOO_LARGE = Problem("too-large", 413, "Request too large", "The request's body is larger than this device accepts.")
PROXY = Problem("proxy", 500, "Request not handled", "The proxy could not handle the request.")
"""Whatever else Envoy answers by itself; status and detail are then Envoy's own."""
