"""What a JSON Schema of a card may not ask, seen without compiling it (FAULTS 43, 44). Pure.

A schema is one document: a reference leads nowhere outside it, and nothing in it has a base of its own. What one value
costs is bounded: the subschemas that apply to *one* place of a document are counted with all references followed.
Recursion over the parts of a document (a tree of nodes) is fine: documents end.
"""

from __future__ import annotations

import graphlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from longshore.registry.documents.yaml_gate import Place, shortened

# As JSON. The schemas of the PRD have 400 characters; one with the 1,000 classes of ImageNet has 30,000.
MAX_CHARACTERS = 128 * 1024
MAX_DEPTH = 32

# Subschemas that one value is held against. The metaschema of JSON Schema, as large as interfaces get, has about 60.
MAX_APPLIED = 2_000

MAX_PATTERNS = 100
MAX_PATTERN = 1_000  # characters: the longest that we know, of e-mail addresses, has 430
MAX_CHOICES = 5_000  # of an `enum`: five times ImageNet

# What `minLength`, `minItems` and their like may demand: a request of 1 MB has that many characters.
MAX_DEMAND = 1_000_000

# Of `multipleOf`: below it, doubles of usual size have no whole multiple.
MIN_STEP = 1e-9

# Later than draft 4, which names its base `id`; what says nothing is 2020-12.
DIALECTS = frozenset(
    {
        "https://json-schema.org/draft/2020-12/schema",
        "https://json-schema.org/draft/2019-09/schema",
        "http://json-schema.org/draft-07/schema",
        "http://json-schema.org/draft-06/schema",
    }
)

_DEMANDS = ("minLength", "minItems", "minProperties", "minContains")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")

# Keywords that hold subschemas, by their shape: one, a list, a map. The first three apply to the same value.
_SAME_ONE = ("not", "if", "then", "else")
_SAME_LIST = ("allOf", "anyOf", "oneOf")
_SAME_MAP = ("dependentSchemas", "dependencies")
_PART_ONE = (
    *("additionalProperties", "propertyNames", "unevaluatedProperties"),
    *("items", "additionalItems", "unevaluatedItems", "contains", "contentSchema"),
)
_PART_LIST = ("prefixItems", "items")
_PART_MAP = ("properties", "patternProperties", "$defs", "definitions")


@dataclass(frozen=True)
class SchemaFault:
    """One reason to refuse a schema. `place` is within it."""

    code: str
    message: str
    place: Place = ()


@dataclass(frozen=True)
class StaticVerdict:
    faults: tuple[SchemaFault, ...]
    patterns: tuple[tuple[Place, str], ...] = ()
    """Every regular expression, for whoever compiles them."""
    readable: bool = True
    """False where the schema is too large to be looked at any further."""


def inspect_schema(schema: Any) -> StaticVerdict:
    """Judge a schema, which may be any value that JSON has, without compiling it."""
    too_large = _too_large(schema)
    if too_large is not None:
        return StaticVerdict((too_large,), readable=False)
    inspection = _Inspection(schema)
    faults = sorted(inspection.faults(), key=lambda fault: [str(part) for part in fault.place])
    return StaticVerdict(tuple(faults), tuple(inspection.patterns))


def _too_large(schema: Any) -> SchemaFault | None:
    level, depth = [schema], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            return SchemaFault("SCHEMA_TOO_COSTLY", f"nested more than {MAX_DEPTH} deep")
        containers = [value.values() if isinstance(value, dict) else value for value in level if _holds(value)]
        level = [child for container in containers for child in container]
    length = len(json.dumps(schema, ensure_ascii=False))
    if length > MAX_CHARACTERS:
        message = f"{length} characters as JSON; a schema has at most {MAX_CHARACTERS}"
        return SchemaFault("SCHEMA_TOO_COSTLY", message)
    return None


def _holds(value: Any) -> bool:
    return isinstance(value, (dict, list))


class _Inspection:
    """A walk over every subschema, those included that only a reference makes one."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._anchors: dict[str, Place] = {}
        self._applied: dict[Place, list[Place]] = {}
        """For each subschema those that apply to the same value."""
        self._references: list[tuple[Place, str]] = []
        self.patterns: list[tuple[Place, str]] = []

    def faults(self) -> Iterator[SchemaFault]:
        waiting: list[Place] = [()]
        while waiting:
            yield from self._walk(waiting)
            # Anchors are known only now; a target that was no subschema until now is walked in turn.
            references, self._references = self._references, []
            for place, reference in references:
                target = self._target(reference)
                if isinstance(target, str):
                    yield SchemaFault(target, self._complaint(target, reference), place)
                else:
                    self._applied[place[:-1]].append(target)
                    waiting.append(target)
        if len(self.patterns) > MAX_PATTERNS:
            message = f"{len(self.patterns)} patterns; a schema has at most {MAX_PATTERNS}"
            yield SchemaFault("SCHEMA_TOO_COSTLY", message)
        yield from self._cost()

    def _walk(self, waiting: list[Place]) -> Iterator[SchemaFault]:
        while waiting:
            place = waiting.pop()
            if place in self._applied:
                continue
            self._applied[place] = []
            node = _at(self._root, place)
            if not isinstance(node, dict):
                continue
            yield from self._bases(node, place)
            yield from self._demands(node, place)
            for name in ("$anchor", "$dynamicAnchor"):
                if isinstance(anchor := node.get(name), str):
                    self._anchors.setdefault(anchor, place)
            for name in _REFERENCES:
                if isinstance(reference := node.get(name), str):
                    self._references.append(((*place, name), reference))
            same = list(_subschemas(node, place, _SAME_ONE, _SAME_LIST, _SAME_MAP))
            self._applied[place] += same
            waiting += [*same, *_subschemas(node, place, _PART_ONE, _PART_LIST, _PART_MAP)]

    def _bases(self, node: Mapping[str, Any], place: Place) -> Iterator[SchemaFault]:
        dialect, identity = node.get("$schema"), node.get("$id")
        if isinstance(dialect, str) and (place or dialect.removesuffix("#") not in DIALECTS):
            known = f"only {' or '.join(sorted(DIALECTS))} are known, and only the whole schema may name one"
            yield SchemaFault(
                "SCHEMA_REF_FORBIDDEN", shortened(f"$schema is {dialect[:100]!r}: {known}"), (*place, "$schema")
            )
        if isinstance(identity, str) and place:
            message = "only the whole schema may have an $id: references would lead elsewhere"
            yield SchemaFault("SCHEMA_REF_FORBIDDEN", message, (*place, "$id"))

    def _demands(self, node: Mapping[str, Any], place: Place) -> Iterator[SchemaFault]:
        for name, most in (*((name, MAX_DEMAND) for name in _DEMANDS), ("maxItems", MAX_DEMAND)):
            if (name != "maxItems" or node.get("uniqueItems") is True) and _number(node.get(name)) > most:
                yield SchemaFault("SCHEMA_TOO_COSTLY", f"{name} is more than {most}", (*place, name))
        if 0 < _number(node.get("multipleOf"), 1) < MIN_STEP:
            yield SchemaFault("SCHEMA_TOO_COSTLY", f"multipleOf is less than {MIN_STEP}", (*place, "multipleOf"))
        if isinstance(choices := node.get("enum"), list) and len(choices) > MAX_CHOICES:
            message = f"{len(choices)} values; an enum has at most {MAX_CHOICES}"
            yield SchemaFault("SCHEMA_TOO_COSTLY", message, (*place, "enum"))
        here = [((*place, "pattern"), node.get("pattern"))]
        by_name = node.get("patternProperties")
        here += [((*place, "patternProperties", name), name) for name in by_name] if isinstance(by_name, dict) else []
        for where, pattern in here:
            if isinstance(pattern, str) and len(pattern) > MAX_PATTERN:
                message = f"{len(pattern)} characters; a pattern has at most {MAX_PATTERN}"
                yield SchemaFault("SCHEMA_TOO_COSTLY", message, where)
            elif isinstance(pattern, str):
                self.patterns.append((where, pattern))

    def _target(self, reference: str) -> Place | str:
        """Return the place that a reference leads to, or the code of what is wrong with it."""
        base, _, fragment = reference.partition("#")
        identity = self._root.get("$id") if isinstance(self._root, dict) else None
        if base and not (isinstance(identity, str) and base == identity.removesuffix("#")):
            return "SCHEMA_REF_FORBIDDEN"
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            return self._anchors.get(fragment, "CARD_INVALID")
        place: Place = ()
        for step in fragment.split("/")[1:]:
            found = _at(self._root, place)
            name: str | int = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and step.isdecimal() and step.isascii():
                name = int(step[:9])
            if not (name in found if isinstance(found, dict) else isinstance(name, int) and name < len(found)):
                return "CARD_INVALID"
            place = (*place, name)
        return place if isinstance(_at(self._root, place), (dict, bool)) else "CARD_INVALID"

    @staticmethod
    def _complaint(code: str, reference: str) -> str:
        if code == "SCHEMA_REF_FORBIDDEN":
            return f"{shortened(reference)!r} leads outside the schema: only what begins with # is followed"
        return f"{shortened(reference)!r} leads to no subschema"

    def _cost(self) -> Iterator[SchemaFault]:
        try:
            order = list(graphlib.TopologicalSorter(self._applied).static_order())
        except graphlib.CycleError as error:
            shallowest = min(error.args[1], key=len)
            yield SchemaFault(
                "SCHEMA_TOO_COSTLY", "refers to itself for one and the same value, without end", shallowest
            )
            return
        cost: dict[Place, int] = {}
        for place in order:
            cost[place] = 1 + sum(cost[target] for target in self._applied.get(place, ()))
            if cost[place] > MAX_APPLIED:
                message = f"more than {MAX_APPLIED} subschemas apply to one value, references followed"
                yield SchemaFault("SCHEMA_TOO_COSTLY", message, place)
                return


def _subschemas(
    node: Mapping[str, Any], place: Place, ones: tuple[str, ...], lists: tuple[str, ...], maps: tuple[str, ...]
) -> Iterator[Place]:
    for name in ones:
        if isinstance(node.get(name), (dict, bool)):
            yield (*place, name)
    for name in lists:
        if isinstance(children := node.get(name), list):
            yield from ((*place, name, index) for index in range(len(children)))
    for name in maps:
        if isinstance(children := node.get(name), dict):
            yield from ((*place, name, key) for key in children)


def _at(root: Any, place: Place) -> Any:
    for part in place:
        root = root[part]
    return root


def _number(value: Any, otherwise: float = 0) -> float:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else otherwise
