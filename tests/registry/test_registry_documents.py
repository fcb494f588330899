"""What one document says that breaks its schema: the code that fits best, its place and line."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from longshore.registry.documents import reading
from longshore.registry.documents.reading import read_document
from longshore.registry.documents.yaml import describe
from longshore.schemas.documents import DocumentKind

CARD = DocumentKind.MODEL_CARD


def told(kind: DocumentKind, text: str) -> list[tuple[str, str]]:
    return [(finding.code, describe(finding.place)) for finding in read_document(kind, text.encode()).findings]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("--index-url==1.1.1", "DEPENDENCY_FORBIDDEN"),
        ("-r==1.2.3", "DEPENDENCY_FORBIDDEN"),
        ("-e .", "DEPENDENCY_FORBIDDEN"),
        (" -r x.txt", "DEPENDENCY_FORBIDDEN"),
        ("./wheels/x.whl", "DEPENDENCY_FORBIDDEN"),
        ("x-1.0-py3-none-any.whl", "DEPENDENCY_FORBIDDEN"),
        ("x @ https://host/x.whl", "DEPENDENCY_FORBIDDEN"),
        ("git+https://host/x", "DEPENDENCY_FORBIDDEN"),
        ("C:\\\\x", "DEPENDENCY_FORBIDDEN"),
        ("x==1.0\\n", "DEPENDENCY_FORBIDDEN"),
        ("x==1.0\\n--index-url=y", "DEPENDENCY_FORBIDDEN"),
        ("x", "DEPENDENCY_UNPINNED"),
        ("x>=1.0", "DEPENDENCY_UNPINNED"),
        ("x==1.*", "DEPENDENCY_UNPINNED"),
        ("x===1.0", "DEPENDENCY_UNPINNED"),
        ("x==1.0; python_version<'3.9'", "DEPENDENCY_UNPINNED"),
        ("x==\u0661.0", "DEPENDENCY_UNPINNED"),
        ("", "DEPENDENCY_UNPINNED"),
    ],
)
def test_a_dependency_is_a_name_and_a_version(make_card, line, code):
    """What an installer would take for something else is told apart from what merely lacks its version."""
    text = make_card("https://host/x", **{"[vaderSentiment==3.3.2]": f'[vaderSentiment==3.3.2, "{line}"]'})
    assert told(CARD, text) == [(code, "runtime.dependencies[1]")]


def test_a_package_has_one_version(make_card):
    """Two spellings of a name are one name; one version twice does no harm."""
    lines = "[Ruamel_Yaml==0.18.6, ruamel.yaml==0.18.7, torch==2.1, 'torch[x]==2.1.0']"
    text = make_card("https://host/x", **{"[vaderSentiment==3.3.2]": lines})
    assert told(CARD, text) == [("DEPENDENCIES_INVALID", "runtime.dependencies[1]")]


@pytest.mark.parametrize(
    "name", ["x; rm", "-y", "x-", "x=1", "x:amd64", "x/stable", "x*", "../x", "a" * 129, "x\\n", ""]
)
def test_a_system_package_is_a_name(make_card, name):
    """No option, no removal, no version, no release, no architecture, no search, no path."""
    lines = f'[vaderSentiment==3.3.2]\n  system_packages: ["{name}"]'
    text = make_card("https://host/x", **{"[vaderSentiment==3.3.2]": lines})
    assert told(CARD, text) == [("SYSTEM_PACKAGE_FORBIDDEN", "runtime.system_packages[0]")]


@pytest.mark.parametrize("name", ["libgomp1", "g++", "libstdc++6", "python3.11-dev", "ImageMagick", "mod_ssl", "R"])
def test_names_of_both_worlds_are_system_packages(make_card, name):
    """Debian's and RPM's."""
    lines = f"[vaderSentiment==3.3.2]\n  system_packages: [{name}]"
    assert told(CARD, make_card("https://host/x", **{"[vaderSentiment==3.3.2]": lines})) == []


@pytest.mark.parametrize(
    ("old", "new", "code", "place"),
    [
        ("cpu: 0.5", "cpu: 1e12", "VALUE_OUT_OF_RANGE", "resources.cpu"),
        ("cpu: 0.5", "cpu: .inf", "VALUE_OUT_OF_RANGE", "resources.cpu"),
        ("cpu: 0.5", "cpu: 0", "VALUE_OUT_OF_RANGE", "resources.cpu"),
        ("cpu: 0.5", "cpu: 0.5, gpu: 1000000000000", "VALUE_OUT_OF_RANGE", "resources.gpu"),
        ("memory: 512Mi", "memory: 1000000000Gi", "CARD_INVALID", "resources.memory"),
        ("version: 1.0.0", "version: 01.0.0", "CARD_INVALID", "metadata.version"),
        ("ref: v1.0.0", "ref: v01.0.0", "REF_UNPINNED", "code.ref"),
        ("ref: v1.0.0", 'ref: "v1.0.0\\n"', "REF_UNPINNED", "code.ref"),
        ("ref: v1.0.0", "ref: v1.\u0660.0", "REF_UNPINNED", "code.ref"),
        ("ref: v1.0.0", "ref: main", "REF_UNPINNED", "code.ref"),
        ("name: sentiment-analysis", "name: " + "a" * 64, "CARD_INVALID", "metadata.name"),
        ("schemaVersion", "a" * 200 + ": 1\nschemaVersion", "UNKNOWN_FIELD", "a" * 200),
    ],
)
def test_what_is_out_of_range_is_told_at_its_place(make_card, old, new, code, place):
    """Numbers beyond any machine, versions in a second spelling, refs that are none."""
    assert told(CARD, make_card("https://host/x", **{old: new})) == [(code, place)]


def test_what_only_the_model_refuses_is_a_finding(monkeypatch, make_card):
    """Should the schema and the model ever disagree, the commit is rejected with a reason and nothing raises."""

    class Stricter:
        model_validate_json = TypeAdapter(dict[str, int]).validate_json

    monkeypatch.setattr(reading.DocumentKind, "model", Stricter)
    read_document.cache_clear()
    try:
        findings = read_document(CARD, make_card("https://host/stricter").encode()).findings
    finally:
        read_document.cache_clear()
    assert ("CARD_INVALID", ("schemaVersion",), 1) in {(each.code, each.place, each.line) for each in findings}


@pytest.mark.parametrize(
    "text",
    [
        "code: {repository: 'ssh://" + ":" * 200_000 + "'}",
        "code: {repository: '" + "a." * 100_000 + "'}",
        "{" + ", ".join(f"enabledd{number}: 1" for number in range(4_000)) + "}",
        "x" * 250_000,
        "runtime: {dependencies: [" + ", ".join(["'" + "a." * 1000 + "'"] * 120) + "]}",
        "runtime: {dependencies: [" + ", ".join(["x"] * 9_000) + "]}",
        "metadata: {tags: [" + ", ".join(["1"] * 9_000) + "]}",
    ],
)
def test_large_nonsense_is_told_in_few_words(text):
    """Neither a finding nor the time for it grows with what someone has pasted."""
    findings = read_document(CARD, text.encode()).findings
    assert findings
    assert max(len(finding.message) for finding in findings) < 600
