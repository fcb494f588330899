"""Sample inputs: whatever is returned conforms, and for the schemas that people write there is one."""

from __future__ import annotations

import json
import re
from random import Random

import jsonschema
import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longshore.schemas.failures import LongshoreError
from longshore.worker_host.runners.sample_texts import FORMATS, matching
from longshore.worker_host.runners.samples import breaking, conforming

SENTIMENT = {
    "type": "object",
    "required": ["text"],
    "properties": {"text": {"type": "string", "minLength": 1, "maxLength": 5000}},
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "required": ["value"],
            "properties": {
                "value": {"type": "integer"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
        }
    },
    "$ref": "#/$defs/node",
}

SCHEMAS = [
    {},
    SENTIMENT,
    TREE,
    {"type": "object", "additionalProperties": False},
    {"type": "object", "required": ["anything"]},
    {"type": "object", "minProperties": 3, "additionalProperties": {"type": "integer", "minimum": 7}},
    {"type": "object", "minProperties": 1, "propertyNames": {"pattern": "^[a-z]{3}$"}},
    {"minProperties": 2, "patternProperties": {"^x-[0-9]+$": {"type": "null"}}, "additionalProperties": False},
    {"type": "object", "maxProperties": 1, "properties": {"a": {"const": 1}, "b": {"const": 2}}},
    {"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}}, "dependentRequired": {"a": ["c"]}},
    {"type": "object", "properties": {"a": {"type": "integer"}}, "not": {"required": ["a"]}},
    {"type": "array", "minItems": 64, "maxItems": 64, "items": {"type": "number", "minimum": 0, "maximum": 16}},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False, "minItems": 2},
    {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}], "minItems": 1},
    {"type": "array", "uniqueItems": True, "minItems": 4, "items": {"type": "integer", "minimum": 0, "maximum": 9}},
    {"type": "array", "uniqueItems": True, "minItems": 3, "items": {"type": "string", "maxLength": 4}},
    {"type": "array", "uniqueItems": True, "minItems": 3, "items": {"enum": ["a", "b", "c"]}},
    {"type": "array", "contains": {"const": "needle"}, "items": {"type": "string"}},
    {"type": ["null", "integer"], "minimum": 10},
    {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
    {"type": "integer", "multipleOf": 7, "minimum": 50, "maximum": 60},
    {"type": "integer", "maximum": -5},
    {"type": "integer", "multipleOf": 0.5, "minimum": 3},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.001},
    {"type": "number", "minimum": 2.5, "maximum": 2.5},
    {"type": "number", "multipleOf": 0.25, "minimum": 0.3},
    {"type": "number", "exclusiveMaximum": -1e9},
    {"type": "string", "minLength": 200, "maxLength": 201},
    {"type": "string", "maxLength": 0},
    {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4,6}$"},
    {"type": "string", "pattern": "^(?:red|green|#[0-9a-fA-F]{6})$", "minLength": 7},
    {"type": "string", "pattern": "\\.(png|jpe?g)$"},
    {"type": "string", "pattern": "^\\w+@\\w+\\.[a-z]{2,}$", "maxLength": 30},
    {"type": "string", "pattern": "^[^0-9]+$", "minLength": 4},
    {"enum": ["only", "these"]},
    {"const": {"exactly": ["this"]}},
    {"default": {"x": 1}, "type": "object", "required": ["x"]},
    {"allOf": [SENTIMENT, {"required": ["language"], "properties": {"language": {"enum": ["de", "en"]}}}]},
    {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 4, "multipleOf": 2}]},
    {"allOf": [{"type": ["string", "number"]}, {"type": ["integer", "null"]}]},
    {"anyOf": [{"type": "string", "pattern": "^\\p{Lu}nderstood$"}, {"type": "integer"}]},
    {"oneOf": [{"type": "number"}, {"type": "integer"}]},
    {"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "properties": {"a": {"type": "string"}, "b": True}},
    {"if": {"properties": {"kind": {"const": "a"}}}, "then": {"required": ["a"]}, "else": False, "required": ["kind"]},
    {"$defs": {"name": {"$anchor": "n", "type": "string"}}, "required": ["n"], "properties": {"n": {"$ref": "#n"}}},
    {"$defs": {"a/b": {"type": "boolean"}}, "$ref": "#/$defs/a~1b"},
    {"$id": "https://example.com/s", "$defs": {"n": {"type": "integer"}}, "$ref": "https://example.com/s#/$defs/n"},
    {"type": "object", "properties": {"self": {"$ref": "#"}, "other": {"$ref": "#"}, "third": {"$ref": "#"}}},
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:60])
def test_a_sample_conforms_by_two_implementations(schema):
    """What is returned satisfies jsonschema-rs and jsonschema alike, and is always the same."""
    sample = conforming(schema)
    jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)(schema).validate(sample)
    assert conforming(schema) == sample
    json.dumps(sample, allow_nan=False)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_known_format_is_met(name):
    """Formats are checked, and each has a text."""
    schema = {"type": "string", "format": name}
    assert jsonschema_rs.validator_for(schema, validate_formats=True).is_valid(conforming(schema))


def test_the_authors_examples_come_first():
    """The first example that conforms is taken; one that does not is passed over."""
    schema = {"type": "object", "required": ["text"], "examples": [{"txt": "typo"}, {"text": "Lovely!"}]}
    assert conforming(schema) == {"text": "Lovely!"}
    nested = {"type": "object", "required": ["a"], "properties": {"a": {"type": "string", "examples": ["theirs"]}}}
    assert conforming(nested) == {"a": "theirs"}


@pytest.mark.parametrize(
    "schema",
    [
        {"not": {}},
        {"type": "object", "required": ["a"], "properties": {"a": False}},
        {"type": "string", "pattern": "^\\p{Lu}y$"},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "array", "minItems": 10**9},
        {"type": "string", "minLength": 10**12},
        {"type": "object", "minProperties": 10**9},
        {"type": "string", "pattern": "^a{20000}$"},
        {"type": "object", "required": ["s"], "properties": {"s": {"$ref": "#"}}},
    ],
    ids=lambda schema: json.dumps(schema)[:60],
)  # fmt: skip
def test_no_sample_is_an_error_not_a_guess(schema):
    """What cannot be met, or is not understood, is NO_SAMPLE_INPUT, soon."""
    with pytest.raises(LongshoreError) as caught:
        conforming(schema)
    assert caught.value.code == "NO_SAMPLE_INPUT"


@pytest.mark.parametrize(
    "schema",
    [{"type": 3}, {"$ref": "http://127.0.0.1:9/schema"}, {"pattern": "^(a)\\1$"}, {"pattern": "^(?=x)y$"}],
)
def test_a_schema_that_cannot_be_used_is_the_cards_fault(schema):
    """Neither guessed at, nor fetched, nor matched by an engine that backtracks."""
    with pytest.raises(LongshoreError) as caught:
        conforming(schema)
    assert caught.value.code == "CARD_INVALID"


@pytest.mark.parametrize("schema", [s for s in SCHEMAS if s], ids=lambda schema: json.dumps(schema)[:60])
def test_a_breaking_document_is_refused(schema):
    """Every schema that refuses something gets a document that it refuses."""
    document = breaking(schema)
    if document is None:
        assert schema == {"type": "object", "properties": {}}
    assert not jsonschema_rs.validator_for(schema, validate_formats=True).is_valid(document)


def test_a_breaking_document_is_near_to_a_conforming_one():
    """An object with one fault, as a client would send it."""
    assert breaking(SENTIMENT) == {}
    optional = {"type": "object", "properties": {"n": {"type": "integer"}}}
    assert isinstance(breaking(optional), dict)


@pytest.mark.parametrize(
    "schema", [{}, {"title": "anything"}, {"type": ["object", "array", "string", "number", "boolean", "null"]}]
)
def test_a_schema_that_takes_everything_has_no_breaking_document(schema):
    """None: there is nothing to refuse."""
    assert breaking(schema) is None


_bounded = st.tuples(st.integers(-100, 100), st.integers(0, 50)).map(
    lambda pair: {"type": "integer", "minimum": pair[0], "maximum": pair[0] + pair[1]}
)
_lengths = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(
    lambda pair: {"type": "string", "minLength": pair[0], "maxLength": pair[0] + pair[1]}
)
_leaves = st.one_of(
    _bounded,
    _lengths,
    st.floats(-1e6, 1e6).map(lambda low: {"type": "number", "minimum": low, "maximum": low + 1}),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"enum": [1, "a", None]}, {"const": [1]}, True, {}]),
    st.sampled_from([{"type": "string", "format": name} for name in FORMATS]),
    st.sampled_from([{"$ref": "#/$defs/shared"}]),
)
_names = st.sampled_from("abcdef")


def _nested(inner):
    objects = st.tuples(st.dictionaries(_names, inner, max_size=4), st.lists(_names, unique=True, max_size=3)).map(
        lambda pair: {"type": "object", "properties": pair[0], "required": pair[1]}
    )
    arrays = st.tuples(inner, st.integers(0, 4), st.integers(0, 4)).map(
        lambda t: {"type": "array", "items": t[0], "minItems": t[1], "maxItems": t[1] + t[2]}
    )
    return st.one_of(
        objects,
        arrays,
        st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches}),
        inner.map(lambda schema: {"allOf": [schema, {"title": "the same"}]}),
        inner.map(lambda schema: {"if": schema, "then": True}),
    )


_documents = st.recursive(_leaves, _nested, max_leaves=12).map(
    lambda schema: {
        "$defs": {"shared": {"type": "integer", "multipleOf": 3, "minimum": 4}},
        "type": "object",
        "required": ["it"],
        "properties": {"it": schema},
    }
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_documents)
def test_satisfiable_schemas_get_a_sample_and_a_breaking_document(schema):
    """Built so that something conforms, they always get a document that does, and one that does not."""
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(conforming(schema))
    refused = breaking(schema)
    assert refused is not None
    assert not validator.is_valid(refused)


@settings(max_examples=200, deadline=None)
@given(st.from_regex(r"\A(?:[a-c]|\[[a-c0-9]\]|\\d|\(a\|b\))(?:[a-c]|[?*+]|\{1,3\}|\\w|\.){0,8}\Z"), st.integers(0, 50))
def test_texts_match_the_patterns_they_are_made_for(pattern, seed):
    """Either the pattern is given up, or the text matches it."""
    try:
        compiled = re.compile(pattern)
    except re.error:
        return
    for least in (True, False):
        text = matching(pattern, Random(seed), least=least)
        assert text is None or compiled.fullmatch(text)
