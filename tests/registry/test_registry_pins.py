"""The file of remembered tags: what it looks like, what is added, and that nobody slips something in."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from longshore.registry.records.pins import PINS_FILE, merge_pins, parse_pins, render_pins

NOW = datetime(2025, 10, 28, 10, 45, tzinfo=UTC)
MODEL = "https://git.acme.com/sentiment-model.git"
ONE, TWO = "1" * 40, "2" * 40

FILE = f"""\
# This file is managed by the broker - DO NOT EDIT MANUALLY
# The commit with which each tag was first used. A tag that leads elsewhere is refused: TAG_MOVED.
resolved_refs:
  - {{"repository":"{MODEL}","ref":"v1.0.0","commit":"{ONE}","first_seen":"2025-10-28T10:45:00Z"}}
  - {{"repository":"{MODEL}","ref":"v1.1.0","commit":"{TWO}","first_seen":"2025-10-28T10:45:00Z"}}
"""


def test_the_file_has_a_line_per_tag_and_is_yaml():
    """In order, so that a diff shows what came; and any program can read it."""
    pins = merge_pins({}, {(MODEL, "v1.1.0"): TWO, (MODEL, "v1.0.0"): ONE}, NOW)
    assert render_pins(pins).decode() == FILE
    document = YAML(typ="safe", pure=True).load(FILE)
    assert [(entry["ref"], entry["commit"]) for entry in document["resolved_refs"]] == [
        ("v1.0.0", ONE),
        ("v1.1.0", TWO),
    ]


def test_what_is_written_is_read():
    """As it stands, under whatever comment; and where there is no file yet, nothing is known."""
    read = parse_pins(FILE.encode())
    assert (read.commits, read.issue) == ({(MODEL, "v1.0.0"): ONE, (MODEL, "v1.1.0"): TWO}, None)
    assert parse_pins(FILE.replace("DO NOT", "PLEASE DO NOT").encode()).issue is None
    assert parse_pins(render_pins({})).commits == {}
    assert (parse_pins(None).commits, parse_pins(None).issue) == ({}, None)


def test_an_entry_is_never_rewritten():
    """Of two brokers that saw one tag differently the earlier one is right."""
    known = parse_pins(FILE.encode()).by_tag
    later = datetime(2026, 1, 1, tzinfo=UTC)
    merged = merge_pins(known, {(MODEL, "v1.0.0"): TWO, (MODEL, "v2.0.0"): TWO}, later)
    assert render_pins(merged).decode() == FILE + (
        f'  - {{"repository":"{MODEL}","ref":"v2.0.0","commit":"{TWO}","first_seen":"2026-01-01T00:00:00Z"}}\n'
    )


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("", 1, "`resolved_refs:` must stand here"),
        ("# only a comment\n", None, "`resolved_refs:` is missing"),
        ("resolved_refs: []\n", 1, "`resolved_refs:` must stand here"),
        (FILE.replace("v1.1.0", "v1.0.0"), 5, f"{MODEL} v1.0.0 stands here a second time"),
        (FILE.replace("v1.1.0", "main"), 5, "this line is not as the broker writes it"),
        (FILE.replace(TWO, TWO[:39]), 5, "this line is not as the broker writes it"),
        (FILE.replace(f'"commit":"{TWO}"', f'"commit":"{ONE}","commit":"{TWO}"'), 5, "this line is not as"),
        (FILE.replace('"ref":"v1.1.0"', '"ref":"v1.1.0","note":"x"'), 5, "this line is not as"),
        (FILE.replace('"ref":"v1.1.0"', '"ref": "v1.1.0"'), 5, "this line is not as"),
        (FILE.replace("\n", "\r\n"), 3, "`resolved_refs:` must stand here"),
        (FILE.replace("  - ", "<<<<<<< HEAD\n  - ", 1), 4, "this line is not as"),
        (FILE.replace("resolved_refs:\n", ""), 3, "`resolved_refs:` must stand here"),
        (FILE + "\n", 6, "this line is not as"),
        (FILE + "other: &a {}\n", 6, "this line is not as"),
        (FILE[:-20], 5, "this line is not as"),
        (FILE.encode("utf-16").decode("latin-1"), 1, "`resolved_refs:` must stand here"),
    ],
)
def test_a_file_that_the_broker_did_not_write_is_no_authority(content, line, message):
    """The first line that is not the broker's is named; who must act is Ops."""
    issue = parse_pins(content.encode("latin-1")).issue
    assert (issue.code, issue.file, issue.line) == ("PINS_INVALID", PINS_FILE, line)
    assert issue.message.startswith(message)


def test_a_file_without_end_is_not_read():
    """It costs a message, not the broker's memory."""
    assert "the limit is" in parse_pins(b"resolved_refs:\n" + b"x" * 9_000_000).issue.message


@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda tail: FILE.encode() + tail))
def test_whatever_stands_there_is_read_exactly_or_refused(data):
    """Nothing raises, and what is accepted reads back from what it means."""
    read = parse_pins(data)
    if read.issue is None:
        assert parse_pins(render_pins(read.by_tag)).by_tag == read.by_tag
