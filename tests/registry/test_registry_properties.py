"""Whatever order a document is written in it means the same, and whatever breaks its schema is found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from longshore.registry.documents.reading import read_document
from longshore.registry.documents.yaml import dump, parse
from longshore.registry.validation.verdict import content_digest
from longshore.schemas.cards import ModelCard
from longshore.schemas.documents import DocumentKind, schema, validator

Path = tuple[str | int, ...]

KINDS = list(DocumentKind)

# The properties are about documents, not about how many of them a slow machine gets through.
PROPERTY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def valid(make_card, manifest, worker) -> dict[DocumentKind, Any]:
    texts = {
        DocumentKind.MODEL_CARD: make_card("https://host/model"),
        DocumentKind.MANIFEST: manifest,
        DocumentKind.WORKER_CONFIG: worker,
    }
    return {kind: parse(text.encode(), schema(kind)).value for kind, text in texts.items()}


def reordered(value: Any, data: st.DataObject) -> Any:
    """Return the same value with the keys of every mapping in another order."""
    if isinstance(value, dict):
        return {key: reordered(value[key], data) for key in data.draw(st.permutations(list(value)))}
    return [reordered(item, data) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("kind", KINDS)
@PROPERTY
@given(data=st.data())
def test_the_order_of_keys_means_nothing(kind, valid, data):
    """The same model, and for a card the same digest: moving lines about makes no RELOAD."""
    first = read_document(kind, dump(valid[kind]))
    second = read_document(kind, dump(reordered(valid[kind], data)))
    assert first.findings == second.findings == ()
    assert first.model == second.model
    if isinstance(first.model, ModelCard) and isinstance(second.model, ModelCard):
        assert content_digest(first.model, "c", None) == content_digest(second.model, "c", None)


WRONG: dict[str, list[Any]] = {
    "string": [None, [], {}],  # a number in a file would be read as that text
    "integer": ["1", 1.5, None, True],
    "number": ["1", None, True],
    "boolean": ["yes", 1, None],
    "array": ["x", None, {}],
    "object": ["x", None, []],
}


def broken(node: dict[str, Any], value: Any) -> list[Any]:
    """Return what may stand in place of `value` to break exactly this node."""
    found = list(WRONG[node["type"]])
    if "enum" in node:
        found.append("no such value")
    if "pattern" in node:
        found += [value + end for end in ("\n", " ", "\u0661", "\u00e9")]
    if "maxLength" in node:
        found.append(value.ljust(node["maxLength"] + 1, "a"))
    found += [node[name] + step for name, step in (("minimum", -1), ("maximum", 1)) if name in node]
    if "maxItems" in node and value:
        found.append(value[:1] * (node["maxItems"] + 1))
    found += [{key: child for key, child in value.items() if key != name} for name in node.get("required", ())]
    if node.get("additionalProperties") is False:
        found.append({**value, "enbaled": True})
    return found


def breakages(node: dict[str, Any], value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every single mutation of `value` that breaks `node`: where, and what then stands there."""
    yield from ((path, other) for other in broken(node, value))
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        inner = node.get("items") or node.get("properties", {}).get(key) or node.get("additionalProperties")
        if isinstance(inner, dict):
            yield from breakages(inner, child, (*path, key))


def put(document: Any, path: Path, value: Any) -> Any:
    if not path:
        return value
    changed = dict(document) if isinstance(document, dict) else list(document)
    changed[path[0]] = put(document[path[0]], path[1:], value)
    return changed


@pytest.mark.parametrize("kind", KINDS)
@PROPERTY
@given(data=st.data())
def test_one_mutation_that_breaks_the_schema_is_always_found(kind, valid, data):
    """By the JSON Schema, by the model, and as a finding with a line; in any order of keys."""
    path, value = data.draw(st.sampled_from(list(breakages(schema(kind), valid[kind]))))
    document = reordered(put(valid[kind], path, value), data)
    assert not validator(kind).is_valid(document), path
    with pytest.raises(ValidationError):
        kind.model.model_validate_json(json.dumps(document))
    read = read_document(kind, dump(document))
    assert read.model is None
    assert any(finding.place[: len(path)] == path for finding in read.findings), (path, read.findings)
    assert all(finding.line for finding in read.findings)
