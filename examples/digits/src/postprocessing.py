"""Ten probabilities → digit and confidence."""

from __future__ import annotations

from typing import Any


def most_likely(value: list[float], config: dict[str, Any]) -> dict[str, Any]:
    """Return the most likely digit and its probability, rounded to `decimals`."""
    confidence = max(value)
    return {"digit": value.index(confidence), "confidence": round(confidence, config["decimals"])}
