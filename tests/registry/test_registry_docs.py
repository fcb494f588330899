"""docs/registry.md cannot rot: its examples validate, its codes are those that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import longshore.registry
from longshore.registry.documents import read_document
from longshore.schemas.documents import DocumentKind
from longshore.schemas.failures import FAILURES

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


def test_the_page_has_every_code_with_its_remedy():
    """Every failure code that the registry's code names, in order, with the remedy of the failure table."""
    folder = Path(longshore.registry.__file__).parent
    source = "".join(file.read_text("utf-8") for file in folder.glob("*.py"))
    codes = sorted(code for code in set(re.findall(r'"([A-Z_]{6,})"', source)) if code in FAILURES)
    table = re.findall(r"^\| `([A-Z_]+)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert table == [(code, FAILURES[code].remedy) for code in codes]
