"""docs/registry.md cannot rot: its examples validate."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from longshore.registry.documents.reading import read_document
from longshore.schemas.documents import DocumentKind

PAGE = (Path(__file__).parents[2] / "docs/registry.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("Deployment manifest", DocumentKind.MANIFEST),
        ("Worker configuration", DocumentKind.WORKER_CONFIG),
        ("Model card", DocumentKind.MODEL_CARD),
    ],
)
def test_the_examples_of_the_page_are_valid(heading, kind):
    """What the page shows is accepted."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    (example,) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    assert read_document(kind, example.encode()).findings == ()
