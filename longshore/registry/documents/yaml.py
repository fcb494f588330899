"""YAML in and out: one plain document, its scalars read as the schema says, every value with its line.

Three properties that a ready-made loader does not have together:

- An unquoted scalar where the schema says `string` is that text (`ref: 1234e56`, `python_version: 3.10`,
  `created_at: 2025-10-15`), not a float or a date. Elsewhere YAML 1.2's core schema applies, finite numbers only.
- A key that stands twice is an error that names both lines, and so is each other finding, all of them at once.
- Anchors, aliases, merge keys and tags are refused at the level of events, before anything is built from them; so are
  depth and numbers of nodes. What is refused before that stands in `yaml_gate`.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.scalarstring import LiteralScalarString

from longshore.registry.documents.yaml_gate import (
    HAND_WRITTEN,
    MAX_DEPTH,
    MAX_KEY,
    Limits,
    Place,
    YamlFault,
    decoded,
    invisible,
    shortened,
    syntax_fault,
    visible,
)

_NULL = re.compile(r"|~|null|Null|NULL")
_BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

# What JSON's readers take without loss or surprise: a 64-bit integer of either kind, a double.
_INTEGERS = range(-(2**63), 2**64)

# Digits of any number: the shortest text of a double has at most 24 characters.
_LONGEST_NUMBER = 64

# How a key may stand in a place as it is.
_BARE = re.compile(r"[^\s.\[\]\"]+")

# Longer than any text that we write: ruamel must not fold one.
_NO_FOLDING = 1_000_000


@dataclass
class YamlDocument:
    """A document's value (None where it could not be read at all) and where each value stands."""

    value: Any = None
    lines: dict[Place, int] = field(default_factory=dict)
    """1-based line of each place: that of the key in a mapping, of the item in a sequence."""
    faults: list[YamlFault] = field(default_factory=list)
    complete: bool = False
    """False where reading had to stop: what the value lacks is then no finding."""

    def line_of(self, place: Place) -> int | None:
        """Return the line of `place`, or of the nearest place around it that is in the document."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place)


def describe(place: Place) -> str:
    """Return a place as people write it: `deployment_config.replicas`, `runtime.dependencies[2]`, `labels["a.b"]`."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _BARE.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part)}]"
    return text


def parse(data: bytes, schema: Mapping[str, Any], limits: Limits = HAND_WRITTEN) -> YamlDocument:
    """Read `data` as one document, guided by the JSON Schema `schema`. Never raises for what `data` holds."""
    document = YamlDocument()
    text = decoded(data, limits, document.faults)
    if text is None:
        return document
    try:
        _Builder(document, schema, limits.max_nodes).build(YAML(typ="safe", pure=True).parse(text))
    except _Refused as refused:
        document.faults.append(refused.fault)
    except (YAMLError, ValueError, OverflowError) as error:
        document.faults.append(syntax_fault(error))
    return document


def dump(value: Any, *, header: str = "") -> bytes:
    """Return `value` as a document under the comment lines of `header`; texts of several lines stay readable."""
    yaml = YAML(typ="rt", pure=True)
    yaml.default_flow_style = False
    yaml.width = _NO_FOLDING
    yaml.indent(mapping=2, sequence=4, offset=2)
    text = io.StringIO()
    text.writelines(f"# {line}\n" for line in header.splitlines())
    yaml.dump(_readable(value), text)
    return text.getvalue().encode()


def _readable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _readable(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_readable(child) for child in value]
    if isinstance(value, str) and "\n" in value.strip():
        return LiteralScalarString(value)
    return value


class _Refused(Exception):
    """Nothing sensible can be read after this."""

    def __init__(self, code: str, event: Event, message: str, place: Place = ()) -> None:
        self.fault = YamlFault(code, shortened(message), event.start_mark.line + 1, place)


class _Builder:
    """Turns events into values. Recursion is bounded by MAX_DEPTH, all work by `max_nodes`."""

    def __init__(self, document: YamlDocument, schema: Mapping[str, Any], max_nodes: int) -> None:
        self._document = document
        self._schema = schema
        self._max_nodes = max_nodes
        self._nodes = 0

    def build(self, events: Iterator[Event]) -> None:
        documents = 0
        for event in events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Refused("YAML_INVALID", event, "a file holds one document")
            elif isinstance(event, (ScalarEvent, MappingStartEvent, SequenceStartEvent, AliasEvent)):
                self._document.lines[()] = event.start_mark.line + 1
                self._document.value = self._value(event, events, (), self._schema)
        if documents:
            self._document.complete = True
        else:
            self._document.faults.append(YamlFault("YAML_INVALID", "the file is empty"))

    def _fault(self, code: str, event: Event, message: str, place: Place) -> None:
        self._document.faults.append(YamlFault(code, shortened(message), event.start_mark.line + 1, place))

    def _value(self, event: Event, events: Iterator[Event], place: Place, schema: Mapping[str, Any]) -> Any:
        self._nodes += 1
        if self._nodes > self._max_nodes:
            raise _Refused("YAML_TOO_DEEP", event, f"more than {self._max_nodes} keys and values")
        if len(place) > MAX_DEPTH:
            raise _Refused("YAML_TOO_DEEP", event, f"nested more than {MAX_DEPTH} deep", place[:3])
        if not isinstance(event, (ScalarEvent, MappingStartEvent, SequenceStartEvent)) or event.anchor is not None:
            # What is left is an AliasEvent: the parser yields nothing else where a value stands.
            message = "anchors and aliases are not accepted: write the value out"
            self._fault("YAML_ALIAS_FORBIDDEN", event, message, place)
        if not isinstance(event, (ScalarEvent, MappingStartEvent, SequenceStartEvent)):
            return None
        if event.tag is not None:
            self._fault("YAML_TAG_FORBIDDEN", event, f"the tag {event.tag} is not accepted", place)
        if isinstance(event, MappingStartEvent):
            return self._mapping(events, place, schema)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(events, place, schema)
        if (name := invisible(event.value)) is not None:
            # Only an escape brings it here: what stands in the text itself has been left out. Now it is as well:
            # half a character would raise in everything that is asked about the value.
            self._fault("YAML_ENCODING", event, f"the character {name} is not accepted: it cannot be seen", place)
            event.value = visible(event.value)
        return self._scalar(event, place, schema)

    def _mapping(self, events: Iterator[Event], place: Place, schema: Mapping[str, Any]) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_event in events:
            if isinstance(key_event, MappingEndEvent):
                break
            if not isinstance(key_event, (ScalarEvent, AliasEvent)):
                raise _Refused("YAML_INVALID", key_event, "a key must be a plain text", place)
            key = self._key(key_event, events, place)
            inner = (*place, key)
            line = key_event.start_mark.line + 1
            if key in mapping:
                message = f"the key {key!r} stands twice: here and in line {self._document.lines[inner]}"
                self._fault("YAML_DUPLICATE_KEY", key_event, message, inner)
            self._document.lines[inner] = line
            mapping[key] = self._value(next(events), events, inner, _child(schema, key))
        return mapping

    def _key(self, event: ScalarEvent | AliasEvent, events: Iterator[Event], place: Place) -> str:
        if isinstance(event, ScalarEvent) and len(event.value) > MAX_KEY:
            raise _Refused("YAML_TOO_DEEP", event, f"a key of more than {MAX_KEY} characters", place)
        if isinstance(event, ScalarEvent) and event.value == "<<" and event.style is None:
            message = "merge keys are not accepted: write the values out"
            self._fault("YAML_ALIAS_FORBIDDEN", event, message, (*place, "<<"))
        return str(self._value(event, events, place, {"type": "string"}))

    def _sequence(self, events: Iterator[Event], place: Place, schema: Mapping[str, Any]) -> list[Any]:
        items: list[Any] = []
        for event in events:
            if isinstance(event, SequenceEndEvent):
                break
            inner = (*place, len(items))
            self._document.lines[inner] = event.start_mark.line + 1
            items.append(self._value(event, events, inner, schema.get("items", {})))
        return items

    def _scalar(self, event: ScalarEvent, place: Place, schema: Mapping[str, Any]) -> Any:
        text: str = event.value
        if event.style is not None:
            return text
        if _NULL.fullmatch(text):
            return None
        if schema.get("type") == "string":
            return text
        try:
            return _core(text)
        except OverflowError:
            message = f"{text[:_LONGEST_NUMBER]} is no finite number of 64 bits"
            self._fault("VALUE_OUT_OF_RANGE", event, message, place)
            return None


def _core(text: str) -> bool | float | str:
    """Return what a plain scalar is in YAML 1.2's core schema. Raises OverflowError for what JSON could not carry."""
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    whole, real = _INTEGER.fullmatch(text), _FLOAT.fullmatch(text)
    if (whole or real) and len(text) <= _LONGEST_NUMBER:
        number = int(text, 0 if text[:2] in ("0o", "0x") else 10) if whole else float(text)
        if number in _INTEGERS if isinstance(number, int) else math.isfinite(number):
            return number
    if whole or real or _NOT_FINITE.fullmatch(text):
        raise OverflowError
    return text


def _child(schema: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return what `schema` says about the value of `key`; `{}` where it says nothing."""
    child = schema.get("properties", {}).get(key, schema.get("additionalProperties", {}))
    return child if isinstance(child, Mapping) else {}
