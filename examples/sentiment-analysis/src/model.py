"""Clean texts → VADER's scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer


class SentimentModel:
    """VADER's rules over the lexicon of this version."""

    def __init__(self, lexicon: dict[str, float]) -> None:
        self._analyzer = SentimentIntensityAnalyzer()
        self._analyzer.lexicon = lexicon

    def predict(self, batch: list[str]) -> list[dict[str, float]]:
        """Return for each text the shares `neg`, `neu`, `pos`, and `compound` from -1 to 1."""
        return [self._analyzer.polarity_scores(text) for text in batch]


def load(artifacts: Path, config: dict[str, Any]) -> SentimentModel:  # noqa: ARG001 (Longshore's contract)
    return SentimentModel(json.loads((artifacts / "lexicon.json").read_text(encoding="utf-8")))
