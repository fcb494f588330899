"""The deployments that the demo asks, what it asks them, and how."""

from __future__ import annotations

from typing import Any

import httpx2

from longshore.cli.demo.processes import DemoFailed
from longshore.cli.demo.stage import client

SENTIMENT, DIGITS = "sentiment-prod", "digits-prod"
OLD, NEW = "1.0.0", "1.1.0"
REVIEW = {"text": "The new release is laggy, but support was quick."}
FIVE = {
    "pixels": [
        *(0, 0, 12, 8, 8, 7, 0, 0, 0, 3, 16, 16, 11, 7, 0, 0, 0, 2, 14, 1, 0, 0, 0, 0, 0, 5, 14, 5, 0, 0, 0, 0),
        *(0, 2, 15, 16, 9, 0, 0, 0, 0, 0, 0, 2, 16, 2, 0, 0, 0, 0, 4, 8, 16, 4, 0, 0, 0, 0, 11, 14, 9, 0, 0, 0),
    ]
}
"""A handwritten five of scikit-learn's data set, row by row."""
CONNECTIONS = 3  # per device
PAUSE = 0.005  # seconds between two requests of a connection: a load, not a benchmark
AROUND = 200  # requests before the change begins and after it has ended
OK, UNAVAILABLE = 200, 503


async def ask(base: str, deployment: str, document: dict[str, Any]) -> httpx2.Response:
    async with client() as http:
        return await http.post(f"{base}/infer/{deployment}", json=document)


def expect(answer: httpx2.Response, status: int, version: str | None) -> None:
    """Raise DemoFailed unless the answer has this status and, where one is given, comes from this version."""
    told = answer.headers.get("x-model-version")
    if answer.status_code != status or (version is not None and told != version):
        raise DemoFailed(
            f"{answer.url} answered {answer.status_code} by version {told}, not {status} by {version}: {answer.text}"
        )
