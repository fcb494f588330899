"""YAML by schema: what a scalar means, what is refused, and where it stands."""

from __future__ import annotations

import pytest

from longshore.registry.yaml import describe, parse

TEXTS = {"additionalProperties": {"type": "string"}}


@pytest.mark.parametrize(
    "text", ["1234e56", "1234567", "3.10", "1.10", "true", "2025-10-15", "2025-10-15T10:30:00Z", ".inf", "0x1f"]
)
def test_a_text_is_what_was_written(text):
    """Where the schema says string, an unquoted scalar is that string."""
    assert parse(f"a: {text}\n".encode(), TEXTS).value == {"a": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-7", -7),
        ("007", 7),
        ("0x1F", 31),
        ("0o17", 15),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("true", True),
        ("FALSE", False),
        ("yes", "yes"),
        ("null", None),
        ("~", None),
        ("", None),
        ("2025-10-15", "2025-10-15"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("1_000", "1_000"),
    ],
)
def test_elsewhere_the_core_schema_of_yaml_1_2_holds(text, value):
    """Numbers, booleans and null; no dates, no `yes`, no underscores."""
    read = parse(f"a: {text}\n".encode(), {}).value["a"]
    assert (read, type(read)) == (value, type(value))


def test_a_null_is_no_text():
    """An empty value of a text field is a null, which the schema then refuses."""
    assert parse(b"a:\n", TEXTS).value == {"a": None}


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("a: 1\nb: &x 2\n", 2, "anchors"),
        ("a: 1\nb: *x\n", 2, "anchors"),
        ("a: !!python/object:os.system 1\n", 1, "tag"),
        ("a: !mine 1\n", 1, "tag"),
        ("&a a: 1\n", 1, "anchors"),
        ('a: "\\ud800"\n', 1, "surrogate"),
        ('"\\udfff": 1\n', 1, "surrogate"),
        ("a: .nan\n", 1, "finite"),
        ("a: 1e999\n", 1, "finite"),
        ("a: " + "9" * 5000 + "\n", 1, "finite"),
        ("a: 1\n---\nb: 2\n", 2, "one document"),
        ("? [a]\n: 1\n", 1, "key"),
        ("a: [1,\n", 2, "expected"),
        ("a:\n\t- 1\n", 2, "tab|character"),
        ("a: " + "[" * 1000 + "]" * 1000, 1, "deep"),
    ],
)
def test_what_is_refused_has_its_line(text, line, part):
    """Nothing raises, and nothing is built from it."""
    (fault,) = parse(text.encode(), {}).faults
    assert (fault.code, fault.line) == ("YAML_INVALID", line)
    assert any(word in fault.message for word in part.split("|"))


@pytest.mark.parametrize("data", [b"\xff\xfea\x00", b"a: \xe9", b"a: \x00", b"", b"# only a comment\n"])
def test_what_is_no_text_is_refused(data):
    """Other encodings, control characters, nothing at all."""
    (fault,) = parse(data, {}).faults
    assert fault.code == "YAML_INVALID"


def test_every_duplicate_key_is_told_with_both_lines():
    """In nested mappings too, and all of them."""
    document = parse(b"a: 1\nb:\n  c: 1\n  c: 2\na: 3\n", {})
    assert [(fault.code, fault.line, describe(fault.place)) for fault in document.faults] == [
        ("YAML_DUPLICATE_KEY", 4, "b.c"),
        ("YAML_DUPLICATE_KEY", 5, "a"),
    ]
    assert "line 1" in document.faults[1].message


def test_every_place_has_its_line():
    """Keys and items know where they stand; a place that is missing has the line of what it is missing from."""
    document = parse(b"a:\n  - x\n  - b: 1\n    c: 2\n", {})
    assert document.line_of(("a", 1, "c")) == 4
    assert document.line_of(("a", 1, "missing", "deeper")) == 3
    assert describe(("a", 1, "c")) == "a[1].c"
