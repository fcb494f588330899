"""VADER's scores → label, confidence, scores."""

from __future__ import annotations

from typing import Any


def scores_to_label(value: dict[str, float], config: dict[str, Any]) -> dict[str, Any]:
    """Label by the compound score; what is weaker than `confidence_threshold` is neutral."""
    negative, neutral, positive = config["labels"]
    compound = value["compound"]
    strength = abs(compound)
    if strength < config["confidence_threshold"]:
        sentiment, confidence = neutral, 1 - strength
    else:
        sentiment, confidence = (positive if compound > 0 else negative), strength
    return {
        "sentiment": sentiment,
        "confidence": round(confidence, 4),
        "scores": {negative: value["neg"], neutral: value["neu"], positive: value["pos"]},
    }
