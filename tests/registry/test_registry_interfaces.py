"""The JSON Schemas inside cards: what they may refer to, what they may cost, and who compiles them."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from longshore.registry.documents import schema_checks, schema_program
from longshore.registry.documents.interface_schemas import inspect_schema
from longshore.registry.documents.reading import read_document
from longshore.registry.documents.schema_checks import check_interfaces
from longshore.registry.documents.yaml import describe
from longshore.schemas.documents import DocumentKind
from longshore.worker_host.runners.runner import Schema, StartFailed

HARMLESS: dict[str, Any] = {"type": "object"}


def card_with(schema: Any, output: Any = HARMLESS):
    text = json.dumps({"interface": {"input_schema": schema, "output_schema": output}})
    return read_document(DocumentKind.MODEL_CARD, text.encode())


async def told(schema: Any) -> list[tuple[str, str]]:
    found = (await check_interfaces({"card": card_with(schema)}))["card"]
    prefix = "interface.input_schema"
    return [(finding.code, describe(finding.place).removeprefix(prefix).lstrip(".")) for finding in found]


def doubling(levels: int) -> dict[str, Any]:
    """Return a schema of a few hundred bytes that holds one value against 2^levels subschemas."""
    twice = {f"a{level}": {"allOf": [{"$ref": f"#/$defs/a{level - 1}"}] * 2} for level in range(1, levels)}
    return {"$defs": {"a0": {"type": "string"}, **twice}, "$ref": f"#/$defs/a{levels - 1}"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"text": {"type": "string", "pattern": "^[a-z]+$"}}, "required": ["text"]},
        {"$defs": {"node": {"properties": {"children": {"items": {"$ref": "#/$defs/node"}}}}}, "$ref": "#/$defs/node"},
        {
            "$defs": {"a/b": {"$anchor": "x"}},
            "allOf": [{"$ref": "#/$defs/a~1b"}, {"$ref": "#x"}, {"$ref": "#/%24defs/a~1b"}],
        },
        {"$id": "https://host/x.json", "items": {"$ref": "https://host/x.json#/$defs/a"}, "$defs": {"a": {}}},
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "items": [{"type": "string"}],
            "definitions": {"a": True},
        },
        {
            "const": {"$ref": "https://host/x"},
            "properties": {"$ref": {"type": "string"}, "$id": {"default": {"$id": "x"}}},
        },
        {"$dynamicRef": "#x", "$defs": {"a": {"$dynamicAnchor": "x", "type": "object"}}},
        {"prefixItems": [{}, True], "allOf": [{"$ref": "#/prefixItems/0"}, {"$ref": "#/prefixItems/1"}]},
        {"type": "array", "uniqueItems": True, "items": {"enum": list(range(5000))}},
        {"properties": {"price": {"multipleOf": 0.01, "maximum": 1e300}}},
        doubling(8),
    ],
)
async def test_what_models_promise_is_accepted(schema):
    """Recursive data, local references of each kind, older dialects, data that only looks like a reference."""
    assert await told(schema) == []


@pytest.mark.parametrize(
    ("schema", "code", "place"),
    [
        ({"$ref": "https://host/x.json"}, "SCHEMA_REF_FORBIDDEN", "$ref"),
        ({"items": {"$ref": "file:///etc/passwd"}}, "SCHEMA_REF_FORBIDDEN", "items.$ref"),
        ({"items": {"$ref": "x.json#/a"}}, "SCHEMA_REF_FORBIDDEN", "items.$ref"),
        ({"$dynamicRef": "//host/x#a"}, "SCHEMA_REF_FORBIDDEN", "$dynamicRef"),
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, "SCHEMA_REF_FORBIDDEN", "$ref"),
        ({"$defs": {"a": {"$id": "https://host/a"}}}, "SCHEMA_REF_FORBIDDEN", "$defs.a.$id"),
        ({"$schema": "https://host/dialect"}, "SCHEMA_REF_FORBIDDEN", "$schema"),
        (
            {"$defs": {"a": {"$schema": "http://json-schema.org/draft-07/schema"}}},
            "SCHEMA_REF_FORBIDDEN",
            "$defs.a.$schema",
        ),
        ({"x": {"y": {"$ref": "https://host"}}, "$ref": "#/x/y"}, "SCHEMA_REF_FORBIDDEN", "x.y.$ref"),
        ({"$ref": "#/$defs/a"}, "CARD_INVALID", "$ref"),
        ({"$ref": "#a"}, "CARD_INVALID", "$ref"),
        ({"$ref": "#/required/0", "required": ["a"]}, "CARD_INVALID", "$ref"),
        ({"$ref": "#/allOf/1", "allOf": [{}]}, "CARD_INVALID", "$ref"),
        ({"properties": {"a": {"type": "strin"}}}, "CARD_INVALID", "properties.a.type"),
        ({"properties": []}, "CARD_INVALID", "properties"),
        ({"minLength": -1}, "CARD_INVALID", "minLength"),
        ({"properties": {"a": {"pattern": "("}}}, "CARD_INVALID", "properties.a.pattern"),
        ({"properties": {"a": {"pattern": "(?=a)b"}}}, "SCHEMA_TOO_COSTLY", "properties.a.pattern"),
        ({"patternProperties": {"(?<!a)b": {}}}, "SCHEMA_TOO_COSTLY", "patternProperties.(?<!a)b"),
        ({"pattern": "(a)\\1"}, "SCHEMA_TOO_COSTLY", "pattern"),
        ({"pattern": "(a{1,1000}){1,1000}"}, "SCHEMA_TOO_COSTLY", "pattern"),
        ({"pattern": "a" * 1001}, "SCHEMA_TOO_COSTLY", "pattern"),
        ({"properties": {f"a{number}": {"pattern": "a"} for number in range(101)}}, "SCHEMA_TOO_COSTLY", ""),
        ({"$ref": "#"}, "SCHEMA_TOO_COSTLY", ""),
        ({"items": {"allOf": [{"not": {"$ref": "#/items"}}]}}, "SCHEMA_TOO_COSTLY", "items"),
        ({"dependentSchemas": {"a": {"$ref": "#"}}}, "SCHEMA_TOO_COSTLY", ""),
        ({"$dynamicAnchor": "x", "if": {"$dynamicRef": "#x"}}, "SCHEMA_TOO_COSTLY", ""),
        (doubling(40), "SCHEMA_TOO_COSTLY", "$defs.a9"),
        ({"minLength": 10**9}, "SCHEMA_TOO_COSTLY", "minLength"),
        ({"items": {"minItems": 10**9}}, "SCHEMA_TOO_COSTLY", "items.minItems"),
        ({"uniqueItems": True, "maxItems": 10**9}, "SCHEMA_TOO_COSTLY", "maxItems"),
        ({"multipleOf": 1e-300}, "SCHEMA_TOO_COSTLY", "multipleOf"),
        ({"enum": list(range(5001))}, "SCHEMA_TOO_COSTLY", "enum"),
        ({"description": "x" * 140_000}, "SCHEMA_TOO_COSTLY", ""),
    ],
)
async def test_what_would_lead_elsewhere_or_cost_too_much_is_told_at_its_place(schema, code, place):
    """One finding, with the way to it inside the schema."""
    assert await told(schema) == [(code, place)]


async def test_a_finding_has_the_line_of_the_card():
    """And all faults of both schemas come at once."""
    card = b"""\
interface:
  input_schema:
    properties:
      a: {$ref: "https://host/x"}
      b: {pattern: "(?=x)"}
      c: {type: strin}
  output_schema:
    minLength: -1
"""
    found = (await check_interfaces({1: read_document(DocumentKind.MODEL_CARD, card)}))[1]
    assert [(finding.code, finding.line) for finding in found] == [
        ("SCHEMA_REF_FORBIDDEN", 4),
        ("SCHEMA_TOO_COSTLY", 5),
        ("CARD_INVALID", 6),
        ("CARD_INVALID", 8),
    ]


@pytest.mark.parametrize("text", ["", "x", "[]", "interface: 1", "interface: {input_schema: x}", "interface: {}"])
async def test_a_card_without_schemas_has_nothing_wrong_with_them(text):
    """What is missing or of another type is a finding of the card's own schema."""
    card = read_document(DocumentKind.MODEL_CARD, text.encode())
    assert card.findings
    assert await check_interfaces({"card": card}) == {"card": ()}


async def test_no_process_is_started_for_what_is_known(monkeypatch):
    """A second validation of the same schemas costs nothing, whatever card they stand in."""
    schema = {"properties": {"known": {"type": "string"}, "wrong": {"type": "strin"}}}
    first = await told(schema)

    async def refuse(*_args: Any, **_kwargs: Any):
        raise AssertionError("a process was started")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
    assert await told(schema) == first == [("CARD_INVALID", "properties.wrong.type")]


@pytest.fixture
def deadly(monkeypatch, tmp_path):
    """A compiler that a schema with a certain description ends: by CPU time, by memory, by a crash, by sleeping."""
    program = tmp_path / "program.py"
    program.write_text(
        f"import os, sys, time; sys.path.insert(0, {str(Path(schema_program.__file__).parent)!r})\n"
        "import schema_program as program\n"
        "program.CPU_SECONDS, judge = 0.2, program.judge\n"
        "def deadly(schema, *args, **options):\n"
        "    match schema.get('description'):\n"
        "        case 'endless':\n"
        "            while True: pass\n"
        "        case 'greedy': bytearray(2 * program.MEMORY)\n"
        "        case 'crash': os.abort()\n"
        "        case 'asleep': time.sleep(1000)\n"
        "    return judge(schema, *args, **options)\n"
        "program.judge = deadly\n"
        "program.main()\n"
    )
    monkeypatch.setattr(schema_program, "__file__", str(program))
    return monkeypatch


@pytest.mark.usefixtures("deadly")
@pytest.mark.parametrize("way", ["endless", "greedy", "crash"])
async def test_a_schema_that_kills_its_compiler_is_refused_alone(way):
    """Those before it and after it in the batch are judged as if it were not there."""
    schemas = [{"title": way}, {"description": way}, {"type": "strin", "title": way}, {"description": way, "title": ""}]
    found = await check_interfaces({number: card_with(schema) for number, schema in enumerate(schemas)})
    codes = [[finding.code for finding in findings] for findings in found.values()]
    assert codes == [[], ["SCHEMA_TOO_COSTLY"], ["CARD_INVALID"], ["SCHEMA_TOO_COSTLY"]]


async def test_a_compiler_that_sleeps_is_given_up(deadly):
    """By the clock, and without remembering it: the next commit tries again."""
    deadly.setattr(schema_checks, "_PATIENCE_SECONDS", 1.0)
    assert await told({"description": "asleep"}) == [("SCHEMA_TOO_COSTLY", "")]
    assert json.dumps({"description": "asleep"}) not in schema_checks._compiled


async def test_a_compiler_that_cannot_start_is_no_fault_of_a_schema(monkeypatch, tmp_path):
    """The commit is not rejected for it."""
    (tmp_path / "program.py").write_text("raise SystemExit('no such package')")
    monkeypatch.setattr(schema_program, "__file__", str(tmp_path / "program.py"))
    with pytest.raises(Exception, match="INTERNAL_ERROR"):
        await told({"title": "never seen"})


PATTERNS = [
    "^a+$",
    "(a+)+$",
    "(?=a)",
    "(?!a)",
    "(?<=a)b",
    "(?<!a)b",
    r"(a)\1",
    r"\p{L}",
    "(?i)a",
    "(",
    "[",
    r"\d{1,9}",
    r"a\/b",
    "a{2000}",
]


@pytest.mark.parametrize("pattern", PATTERNS)
async def test_the_gate_promises_what_the_runner_does(pattern):
    """A pattern that is accepted here compiles on the device, and one that is refused does not."""
    schema = {"properties": {"a": {"pattern": pattern}}}
    try:
        Schema("input_schema", schema)
    except StartFailed:
        runs = False
    else:
        runs = True
    assert (await told(schema) == []) == runs


def test_patterns_that_would_backtrack_are_fast_in_the_runner():
    """An engine that backtracks would not come back from these within the age of the universe."""
    for pattern, text in itertools.product(
        ["^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "(x+x+)+y"], ["a" * 5000 + "!", "x" * 5000]
    ):
        assert Schema("input_schema", {"pattern": pattern}).breach(text)


def test_the_static_check_takes_any_value():
    """Not only objects: it is asked about what someone wrote."""
    for value in (
        None,
        True,
        1,
        "x",
        [],
        [{"$ref": "#"}],
        {"allOf": 1, "$ref": 1, "$id": 1, "$schema": 1, "pattern": 1},
    ):
        assert inspect_schema(value).faults == ()
