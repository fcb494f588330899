import json
from pathlib import Path

import pytest
from src.model import load
from src.postprocessing import scores_to_label
from train import build

CONFIG = {"labels": ["negative", "neutral", "positive"], "confidence_threshold": 0.05}


@pytest.fixture
def model(tmp_path: Path):
    (tmp_path / "lexicon.json").write_text(json.dumps(build({"laggy": -2.6})))
    return load(tmp_path, {})


@pytest.mark.parametrize(
    ("text", "sentiment"),
    [
        ("I love it, works great!", "positive"),
        ("Terrible. It broke.", "negative"),
        ("It is a box.", "neutral"),
        ("Laggy.", "negative"),
    ],
)
def test_sentences_get_their_label(model, text, sentiment):
    (scores,) = model.predict([text])
    assert scores_to_label(scores, CONFIG)["sentiment"] == sentiment
