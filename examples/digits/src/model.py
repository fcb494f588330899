"""Rows of 64 numbers → ten probabilities each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib


class DigitsModel:
    def __init__(self, classifier: Any) -> None:
        self._classifier = classifier

    def predict(self, batch: list[list[float]]) -> list[list[float]]:
        """Return for each row the probabilities of the digits 0 to 9."""
        return self._classifier.predict_proba(batch).tolist()


def load(artifacts: Path, config: dict[str, Any]) -> DigitsModel:  # noqa: ARG001 (Longshore's contract)
    return DigitsModel(joblib.load(artifacts / "digits.joblib"))
