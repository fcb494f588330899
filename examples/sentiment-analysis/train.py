"""Write the artifact: VADER's lexicon with our own words. Usage: python train.py OUTPUT."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

CONFIG = Path(__file__).parent / "config" / "model-config.json"


def build(words: dict[str, float]) -> dict[str, float]:
    """Return VADER's lexicon with `words` added."""
    return {**SentimentIntensityAnalyzer().lexicon, **words}


def main() -> None:
    lexicon = build(json.loads(CONFIG.read_text(encoding="utf-8"))["words"])
    Path(sys.argv[1]).write_text(json.dumps(lexicon, sort_keys=True), encoding="utf-8")
    print(f"{len(lexicon)} words")


if __name__ == "__main__":
    main()
