"""YAML by schema: what a scalar means, what is refused, and where it stands."""

from __future__ import annotations

import pytest

from longshore.registry.documents.yaml import describe, parse
from longshore.registry.documents.yaml_gate import OUR_OWN

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
    ("text", "line", "code", "part"),
    [
        ("a: 1\nb: &x 2\n", 2, "YAML_ALIAS_FORBIDDEN", "anchors"),
        ("a: 1\nb: *x\n", 2, "YAML_ALIAS_FORBIDDEN", "anchors"),
        ("&a a: 1\n", 1, "YAML_ALIAS_FORBIDDEN", "anchors"),
        ("*a : 1\n", 1, "YAML_ALIAS_FORBIDDEN", "anchors"),
        ("a: 1\n<<: {b: 1}\n", 2, "YAML_ALIAS_FORBIDDEN", "merge keys"),
        ("a: !!python/object:os.system 1\n", 1, "YAML_TAG_FORBIDDEN", "tag"),
        ("a: !mine 1\n", 1, "YAML_TAG_FORBIDDEN", "tag"),
        ("a: ! 1\n", 1, "YAML_TAG_FORBIDDEN", "tag"),
        ("a: !e!mine 1\n", 1, "YAML_TAG_FORBIDDEN", "tag"),
        ("!!map {a: 1}\n", 1, "YAML_TAG_FORBIDDEN", "tag"),
        ('a: "\\ud800"\n', 1, "YAML_ENCODING", "U+D800"),
        ('"\\udfff": 1\n', 1, "YAML_ENCODING", "U+DFFF"),
        ('a: 1\nb: "x\\u202ey"\n', 2, "YAML_ENCODING", "U+202E"),
        ('a: "\\0"\n', 1, "YAML_ENCODING", "U+0000"),
        ('a: "\\x7f"\n', 1, "YAML_ENCODING", "U+007F"),
        ('a: "\\N"\n', 1, "YAML_ENCODING", "U+0085"),
        ('a: "\\P"\n', 1, "YAML_ENCODING", "U+2029"),
        ('a: "\\r"\n', 1, "YAML_ENCODING", "U+000D"),
        ('a: "\\U00110000"\n', None, "YAML_INVALID", "parsed"),
        ('a: "\\UFFFFFFFF"\n', None, "YAML_INVALID", "parsed"),
        ("a: .nan\n", 1, "VALUE_OUT_OF_RANGE", "finite"),
        ("a: -.inf\n", 1, "VALUE_OUT_OF_RANGE", "finite"),
        ("a: 1e999\n", 1, "VALUE_OUT_OF_RANGE", "finite"),
        ("a: " + "9" * 5000 + "\n", 1, "VALUE_OUT_OF_RANGE", "finite"),
        ("a: 18446744073709551616\n", 1, "VALUE_OUT_OF_RANGE", "64 bits"),
        ("a: 0x10000000000000000\n", 1, "VALUE_OUT_OF_RANGE", "64 bits"),
        ("a: 0." + "0" * 100 + "1\n", 1, "VALUE_OUT_OF_RANGE", "64 bits"),
        ("a: 1\n---\nb: 2\n", 2, "YAML_INVALID", "one document"),
        ("%YAML 1.1\n---\na: yes\n", 1, "YAML_INVALID", "directives"),
        ("# x\n\n%TAG ! tag:x,2000:\n---\na: 1\n", 3, "YAML_INVALID", "directives"),
        ("- a\n%YAML 1." + "1" * 5000 + "\n", None, "YAML_INVALID", "parsed"),
        ("? [a]\n: 1\n", 1, "YAML_INVALID", "key"),
        ("? " + "a" * 300 + "\n: 1\n", 1, "YAML_TOO_DEEP", "key"),
        ("a: [1,\n", 2, "YAML_INVALID", "expected"),
        ("a:\n\t- 1\n", 2, "YAML_ENCODING", "tab"),
        ("a: @b\n", 1, "YAML_INVALID", "cannot start"),
        ("a: " + "[" * 33 + "]" * 33, 1, "YAML_TOO_DEEP", "deep"),
        ("a: " + "[" * 100_000, 1, "YAML_TOO_DEEP", "deep"),
        ("- " * 33 + "x", 1, "YAML_TOO_DEEP", "deep"),
        ("[" + "1," * 10_000 + "]", 1, "YAML_TOO_DEEP", "10000"),
        ("\ufeffa: 1\n", 1, "YAML_ENCODING", "byte order mark"),
        ("a: 1\nb: x\u202ey\n", 2, "YAML_ENCODING", "U+202E"),
        ("a: 1 # x\u2067y\n", 1, "YAML_ENCODING", "U+2067"),
        ("a: x\u200by\n", 1, "YAML_ENCODING", "U+200B"),
        ("a: x\u2028b\n", 1, "YAML_ENCODING", "U+2028"),
        ("a: 'x\x85y'\n", 1, "YAML_ENCODING", "U+0085"),
        ("a: x\x1by\n", 1, "YAML_ENCODING", "U+001B"),
        ("a: x\ry\n", 1, "YAML_ENCODING", "U+000D"),
        ("a: x\x00\n", 1, "YAML_ENCODING", "U+0000"),
        ("a: x\U000e0041\n", 1, "YAML_ENCODING", "U+E0041"),
    ],
)
def test_what_is_refused_has_its_line(text, line, code, part):
    """Nothing raises, and nothing is built from it."""
    (fault,) = parse(text.encode(), {}).faults
    assert (fault.code, fault.line) == (code, line)
    assert part in fault.message


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff\xfea\x00", "YAML_ENCODING"),
        ("a: 1".encode("utf-16-be"), "YAML_ENCODING"),
        ("a: 1".encode("utf-32"), "YAML_ENCODING"),
        (b"a: \xe9", "YAML_ENCODING"),
        (b"a: \xc0\xaf", "YAML_ENCODING"),
        (b"a: \xed\xa0\x80", "YAML_ENCODING"),
        (b"", "YAML_INVALID"),
        (b"# only a comment\n", "YAML_INVALID"),
        (b"#" * (256 * 1024 + 1), "FILE_TOO_LARGE"),
    ],
)
def test_what_is_no_text_is_refused(data, code):
    """Other encodings, too much, nothing at all."""
    (fault,) = parse(data, {}).faults
    assert fault.code == code


def test_all_that_is_forbidden_is_told_at_once():
    """An anchor, an alias, a tag and a hidden character stop nothing: what else is wrong is found too."""
    document = parse(b"a: &x 1\nb: *x\nc: !t 1\nd: x\xe2\x80\x8by\ne: .inf\ne: 1\n", {})
    assert [(fault.code, fault.line) for fault in sorted(document.faults, key=lambda fault: fault.line or 0)] == [
        ("YAML_ALIAS_FORBIDDEN", 1),
        ("YAML_ALIAS_FORBIDDEN", 2),
        ("YAML_TAG_FORBIDDEN", 3),
        ("YAML_ENCODING", 4),
        ("VALUE_OUT_OF_RANGE", 5),
        ("YAML_DUPLICATE_KEY", 6),
    ]
    assert document.complete


def test_hundreds_of_hidden_characters_are_told_once_a_line():
    """A file in which an editor has put them everywhere does not bury everything else."""
    document = parse("a: 1 # \u200b\u200b\n".encode() + "#\u202e\n".encode() * 500, {})
    assert len(document.faults) == 20
    assert document.value == {"a": 1}


@pytest.mark.parametrize("text", ["a: 1\r\nb: 2\r\n", "---\na: 1\nb: 2\n...\n", "{a: 1, b: 2}"])
def test_what_editors_write_is_accepted(text):
    """Line ends of Windows, the markers of a document, JSON."""
    document = parse(text.encode(), {})
    assert (document.value, document.faults) == ({"a": 1, "b": 2}, [])


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
    assert describe(("labels", "a.b", "c d\n")) == 'labels["a.b"]["c d\\n"]'


def test_our_own_files_may_be_larger():
    """The state of a large fleet is read back, though a person could not have written that much."""
    document = parse(b"- [a, 1]\n" * 10_000, {}, OUR_OWN)
    assert (len(document.value), document.faults) == (10_000, [])
