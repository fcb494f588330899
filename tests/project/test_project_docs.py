"""What people read must be true: generated pages are current, commands and links in the documents exist."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from longshore.cli.main import VERBS
from longshore.schemas.failures import FAILURES

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *ROOT.glob("*/README.md"),
]


def _load(path: str):
    spec = importlib.util.spec_from_file_location(Path(path).stem + "_of_the_project", ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("name", ["errors.md", "settings.md", "log-events.md", "metrics.md"])
def test_reference_pages_are_current(name):
    """Every setting, log event, metric and failure code is documented; if not, run `python3 dev.py docs`."""
    assert (ROOT / "docs" / "reference" / name).read_text() == _load("docs/generate.py").pages()[name]


def test_every_failure_code_is_in_the_reference():
    """An operator who meets a code finds it, with its remedy."""
    page = (ROOT / "docs" / "reference" / "errors.md").read_text()
    assert [code for code in FAILURES if f"| `{code}` |" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """No document links to a file that is not there."""
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_documents_exist(page):
    """Every `longshore VERB` and `dev.py COMMAND` that a document names is one."""
    text = page.read_text()
    assert set(re.findall(r"(?:^    |`|/bin/)longshore ([a-z-]+)", text, re.MULTILINE)) <= set(VERBS)
    assert set(re.findall(r"dev\.py ([a-z]+)", text)) <= set(_load("dev.py").COMMANDS)


def test_no_file_names_a_package_index_or_a_place_of_one_machine():
    """Locks and documents work behind any index, and on any machine."""
    unwanted = re.compile(
        r"pypi\.org|pythonhosted|registry\.npmjs|--(extra-)?index-url[ =]h|/roo[t]/|/wor[k]/(main|shared)|/tmp/lv"
    )
    allowed = {Path(__file__)}
    found = {
        str(file.relative_to(ROOT)): match[0]
        for file in _tracked()
        if file not in allowed and (match := unwanted.search(file.read_text(errors="ignore")))
    }
    assert found == {}


def test_every_locked_package_has_a_hash():
    """What is installed is what was locked."""
    for lock in (ROOT / "requirements").glob("*.txt"):
        entries = re.split(r"^(?=[a-z0-9])", lock.read_text(), flags=re.MULTILINE)
        assert [entry.split()[0] for entry in entries if "==" in entry and "--hash=sha256:" not in entry] == []


def test_everything_that_is_declared_is_locked():
    """A dependency that was added to pyproject.toml is in the locks; if not, run `python3 dev.py lock`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"].values()
    declared = [*project["project"]["dependencies"], *(line for extra in extras for line in extra)]
    locked = "".join((ROOT / "requirements" / name).read_text() for name in ("runtime.txt", "dev.txt"))
    names = {re.match(r"[A-Za-z0-9._-]+", line)[0] for line in [*declared, *project["dependency-groups"]["dev"]]}
    pinned = set(re.findall(r"^([a-z0-9._-]+)==", locked, re.MULTILINE))
    assert {re.sub(r"[._]", "-", name.lower()) for name in names} - pinned - {"longshore"} == set()
