"""JSON Schema and pydantic accept and refuse the same documents."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from longshore.schemas import patterns
from longshore.schemas.documents import DocumentKind, schema, validator

Path = tuple[str | int, ...]

KINDS = list(DocumentKind)


def accepted_by_pydantic(kind: DocumentKind, document: Any) -> bool:
    try:
        kind.model.model_validate_json(json.dumps(document))
    except ValidationError:
        return False
    return True


def verdicts(kind: DocumentKind, document: Any) -> dict[str, bool]:
    return {
        "jsonschema-rs": validator(kind).is_valid(document),
        "jsonschema": jsonschema.Draft202012Validator(schema(kind)).is_valid(document),
        "pydantic": accepted_by_pydantic(kind, document),
    }


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every value in a document, containers included."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in pairs:
        yield from places(child, (*path, key))


def replaced(document: Any, path: Path, change: Any) -> Any:
    """Return a copy in which `change(value)` stands at `path`; where `change` is None, the value is gone."""
    document = copy.deepcopy(document)
    if not path:
        return change(document) if change else {}
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    if change is None:
        del parent[path[-1]]
    else:
        parent[path[-1]] = change(parent[path[-1]])
    return document


@pytest.mark.parametrize("kind", KINDS)
def test_the_examples_of_the_prd_are_accepted(kind, examples):
    """PRD §4.1 to §4.3 pass all three validators."""
    assert set(verdicts(kind, examples[kind]).values()) == {True}


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_is_a_valid_2020_12_document(kind):
    """The published schemas are themselves valid."""
    jsonschema.Draft202012Validator.check_schema(schema(kind))
    assert schema(kind)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


STRANGE = [
    None,
    True,
    0,
    -1,
    1,
    3.0,
    0.05,
    1e30,
    10**30,
    1025,
    4097,
    10_001,
    2**50 + 1,
    "",
    "x",
    "main",
    "v1.2.3",
    "v1.2.3\n",
    "1.2.3",
    "\u0661.2.3",
    "1234e56",
    "v01.2.3",
    "01.2.3",
    "9999999999.0.0",
    "x" * 64,
    "x" * 257,
    "x-",
    "x; rm",
    "a@b.c",
    "https://x",
    "https://x\u00a0y",
    "16Gi",
    "2025-01-01T00:00:00Z",
    [],
    ["x"],
    ["torch==2.1.0+cpu"],
    ["ruamel.yaml==0.18.6"],
    ["--index-url==1.1.1"],
    [None],
    {},
    {"x": "y"},
    {"x": None},
    {"x": 1},
]


@pytest.mark.parametrize("kind", KINDS)
def test_one_strange_value_at_every_place_gets_one_verdict(kind, examples):
    """Whatever stands anywhere in an example, the three validators agree about it."""
    for path in places(examples[kind]):
        for strange in STRANGE:
            document = replaced(examples[kind], path, lambda _, value=strange: value)
            assert len(set(verdicts(kind, document).values())) == 1, (path, strange, verdicts(kind, document))


@pytest.mark.parametrize("kind", KINDS)
def test_one_missing_or_unknown_field_at_every_place_gets_one_verdict(kind, examples):
    """Leaving a field out, or adding one, is judged alike."""
    for path in places(examples[kind]):
        if path:
            document = replaced(examples[kind], path, None)
            assert len(set(verdicts(kind, document).values())) == 1, path
        document = replaced(
            examples[kind], path, lambda value: value | {"enbaled": "x"} if isinstance(value, dict) else value
        )
        assert len(set(verdicts(kind, document).values())) == 1, path


def node_at(kind: DocumentKind, path: Path) -> Any:
    """Return what the schema says about the value at `path`."""
    node: Any = schema(kind)
    for key in path:
        node = node.get("items", {}) if isinstance(key, int) else node.get("properties", {}).get(key, {})
    return node


def at_the_limits(node: Any, value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield for each limit of a node the last value that fits and the first that does not; None: no such value."""
    for keyword, step in (("maximum", 1), ("minimum", -1)):
        if keyword in node:
            yield node[keyword], node[keyword] + step
    if "maxLength" in node:
        longest = node["maxLength"]
        yield (None if "pattern" in node else "x" * longest), "x" * (longest + 1)
        yield None, (value if isinstance(value, str) else "x").ljust(longest + 1, "a")
    if "maxItems" in node:
        item = value[0] if value else "x"
        yield [item] * node["maxItems"], [item] * (node["maxItems"] + 1)
    if "maxProperties" in node:
        most = node["maxProperties"]
        yield (
            value | {f"x{number}": "y" for number in range(most - len(value))},
            value | {f"x{number}": "y" for number in range(most - len(value) + 1)},
        )
        longest = node["propertyNames"]["maxLength"]
        yield value | {"x" * longest: "y"}, value | {"x" * (longest + 1): "y"}
        yield value | {"x": "y" * longest}, value | {"x": "y" * (longest + 1)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_limit_is_the_same_number_in_both(kind, examples):
    """The largest value that a schema takes is taken by the model too, and one more by neither."""
    tried = 0
    for path in places(examples[kind]):
        value: Any = examples[kind]
        for key in path:
            value = value[key]
        for fits, breaks in at_the_limits(node_at(kind, path), value):
            tried += 1
            if fits is not None:
                document = replaced(examples[kind], path, lambda _, value=fits: value)
                assert set(verdicts(kind, document).values()) == {True}, (path, fits, verdicts(kind, document))
            document = replaced(examples[kind], path, lambda _, value=breaks: value)
            assert set(verdicts(kind, document).values()) == {False}, (path, breaks, verdicts(kind, document))
    assert tried >= 10


def test_every_field_has_a_limit():
    """A number has a largest value; a text, a list and a map have a length."""
    needed = {
        "number": "maximum",
        "integer": "maximum",
        "string": "maxLength",
        "array": "maxItems",
    }

    def unlimited(node: Any, path: str) -> Iterator[str]:
        # A pattern that repeats nothing without end is a limit of its own.
        known = "enum" in node or not re.search("[*+]", re.sub(r"\[[^]]*\]", "", node.get("pattern", "*")))
        limit = needed.get(node.get("type"))
        if limit is not None and limit not in node and not known:
            yield path
        for name, child in node.get("properties", {}).items():
            yield from unlimited(child, f"{path}.{name}")
        for name in ("items", "additionalProperties"):
            if isinstance(node.get(name), dict):
                yield from unlimited(node[name], f"{path}.{name}")

    assert [path for kind in KINDS for path in unlimited(schema(kind), kind)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_string_with_a_pattern_refuses_a_trailing_line_feed(kind, examples):
    """`v1.2.3` with a line feed passes nowhere, not even in Python's jsonschema, whose `$` would let it."""
    for path in places(examples[kind]):
        if "pattern" in node_at(kind, path):
            document = replaced(examples[kind], path, lambda text: f"{text}\n")
            assert set(verdicts(kind, document).values()) == {False}, path


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_changes_get_one_verdict(kind, examples, data):
    """One to three random changes at random places are judged alike."""
    document = examples[kind]
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(places(document))))
        value = data.draw(json_values)
        document = replaced(document, path, lambda _, value=value: value)
    assert len(set(verdicts(kind, document).values())) == 1, verdicts(kind, document)


def test_the_patterns_of_the_schemas_are_those_of_the_models():
    """The documents and `patterns.py` hold the same texts, and every one of them is used."""

    def found(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("type"), str) and "pattern" in node:
                assert node["not"] == {"pattern": r"\n"}
                yield node["pattern"]
            for child in node.values():
                yield from found(child)

    in_schemas = {text for kind in KINDS for text in found(schema(kind))}
    in_models = {text for name, text in vars(patterns).items() if name.isupper()}
    assert in_schemas == in_models


def test_objects_are_closed_but_where_the_prd_opens_a_map():
    """`additionalProperties: false` stands everywhere else."""

    def opened(node: Any, path: str) -> Iterator[str]:
        if isinstance(node, dict):
            if node.get("type") == "object" and node.get("additionalProperties") is not False:
                yield path
            for name, child in node.get("properties", {}).items():
                yield from opened(child, f"{path}.{name}")

    assert {path for kind in KINDS for path in opened(schema(kind), kind)} == {
        "model-card.preprocessing.config",
        "model-card.postprocessing.config",
        "model-card.interface.input_schema",
        "model-card.interface.output_schema",
        "registry.deployment_config.worker_selector",
        "worker-config.labels",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_reads_back_what_it_serialises(kind, examples):
    """An absent field stays absent on the way through a message, and is never turned into null."""
    document = kind.model.model_validate_json(json.dumps(examples[kind]))
    assert kind.model.model_validate_json(document.model_dump_json()) == document
    assert "null" not in document.model_dump_json()
