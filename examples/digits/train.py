"""Train on scikit-learn's bundled digits and write the artifact. Usage: python train.py OUTPUT."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import joblib
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

CONFIG = Path(__file__).parent / "config" / "model-config.json"
BRIGHTEST = 16


def train(config: dict[str, Any]) -> tuple[LogisticRegression, float]:
    """Return the classifier and its accuracy on the quarter of the data that it has not seen."""
    pixels, digits = load_digits(return_X_y=True)
    seen, unseen, answers, expected = train_test_split(pixels / BRIGHTEST, digits, random_state=config["seed"])
    classifier = LogisticRegression(C=config["C"], max_iter=config["max_iter"]).fit(seen, answers)
    return classifier, classifier.score(unseen, expected)


def main() -> None:
    classifier, accuracy = train(json.loads(CONFIG.read_text(encoding="utf-8")))
    joblib.dump(classifier, sys.argv[1])
    print(f"accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
