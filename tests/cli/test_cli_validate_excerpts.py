"""Which line a finding shows, and which part of it is marked."""

from __future__ import annotations

import pytest

from longshore.cli.validate.excerpts import excerpt, printable


@pytest.mark.parametrize(
    ("line", "place", "meant"),
    [
        ("  ref: main", "model_card_ref.ref", "ref: main"),
        ("  ref: main # for now", "model_card_ref.ref", "ref: main"),
        ("  ref: 'a # b'", "model_card_ref.ref", "ref: 'a"),
        ('  "ref": main', "model_card_ref.ref", '"ref": main'),
        ("labels:", "labels", "labels:"),
        ("labels: {pool: staging, region: mars}", "labels.region", "region"),
        ("  - numpy", "runtime.dependencies[0]", "- numpy"),
        ("- name: x", "things[0].name", "name: x"),
        ("preref: main", "model_card_ref.ref", "preref: main"),
        ("id: hello", "", "id: hello"),
    ],
)
def test_the_place_is_marked(line, place, meant):
    """The key with its value; the key alone among others; the whole line where the place is not in it."""
    found = excerpt(f"first: 1\n{line}\n".encode(), 2, place)
    assert found.text[found.start : found.end] == meant


@pytest.mark.parametrize("line", [0, 2, 4])
def test_a_line_that_says_nothing_is_not_shown(line):
    """A blank one, or one that is not there."""
    assert excerpt(b"a: 1\n\nb: 2", line, "a") is None


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\u2028"])
def test_lines_are_counted_as_yaml_counts_them(end):
    """Line 2 is line 2 whatever ends a line."""
    assert excerpt(f"a: 1{end}b: 2{end}".encode(), 2, "b").text == "b: 2"


def test_what_is_shown_has_a_width():
    """Of a line of a megabyte the part around the place is shown."""
    line = f"x: {{{'a: 1, ' * 100_000}ref: main}}"
    found = printable(line.encode(), 1, "x.ref")
    assert len(found.text) == 120
    assert found.text[found.start : found.end] == "ref"


def test_wide_characters_and_bytes_that_are_no_text_do_not_matter():
    """Nothing in a file can make its excerpt fail."""
    assert printable(b"\xff\xfe: \x00", 1, "x").text == "\ufffd\ufffd: \ufffd"
