"""YAML in and out: one plain document, its scalars read as the schema says, every value with its line.

Three properties that a ready-made loader does not have together:

- An unquoted scalar where the schema says `string` is that text (`ref: 1234e56`, `python_version: 3.10`,
  `created_at: 2025-10-15`), not a float or a date. Elsewhere YAML 1.2's core schema applies, finite numbers only.
- A key that stands twice is an error that names both lines, and so is each other finding, all of them at once.
- Anchors, aliases and tags are refused at the level of events, before anything is built from them.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
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

Place = tuple[str | int, ...]
"""The way to a value: keys and indexes from the root."""

# Far beyond any card (the deepest schema of PRD §4.1 has 6), and far below Python's recursion limit.
MAX_DEPTH = 64

_NULL = re.compile(r"|~|null|Null|NULL")
_BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,300}")  # more digits than any float holds are no finite number
_PREFIXED = re.compile(r"0o[0-7]{1,300}|0x[0-9a-fA-F]{1,250}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

# Longer than any text that we write: ruamel must not fold one.
_NO_FOLDING = 1_000_000


@dataclass(frozen=True)
class YamlFault:
    """One reason why a text is no document. `line` is 1-based."""

    code: str
    message: str
    line: int | None = None
    place: Place = ()


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
    """Return a place as people write it: `deployment_config.replicas`, `runtime.dependencies[2]`."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def parse(data: bytes, schema: Mapping[str, Any]) -> YamlDocument:
    """Read `data` as one document, guided by the JSON Schema `schema`. Never raises for what `data` holds."""
    document = YamlDocument()
    try:
        _Builder(document, schema).build(YAML(typ="safe", pure=True).parse(data.decode("utf-8")))
    except UnicodeDecodeError as error:
        document.faults.append(YamlFault("YAML_INVALID", f"not UTF-8: byte {error.start} ({error.reason})"))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        document.faults.append(YamlFault("YAML_INVALID", what, mark.line + 1 if mark else None))
    except YAMLError as error:
        document.faults.append(YamlFault("YAML_INVALID", str(error).splitlines()[0]))
    except _Refused as refused:
        document.faults.append(refused.fault)
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

    def __init__(self, event: Event, message: str, place: Place = ()) -> None:
        self.fault = YamlFault("YAML_INVALID", message, event.start_mark.line + 1, place)


class _Builder:
    """Turns events into values. Recursion is bounded by MAX_DEPTH."""

    def __init__(self, document: YamlDocument, schema: Mapping[str, Any]) -> None:
        self._document = document
        self._schema = schema

    def build(self, events: Iterator[Event]) -> None:
        documents = 0
        for event in events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Refused(event, "a file holds one document")
            elif isinstance(event, (ScalarEvent, MappingStartEvent, SequenceStartEvent, AliasEvent)):
                self._document.lines[()] = event.start_mark.line + 1
                self._document.value = self._value(event, events, (), self._schema)
        if documents:
            self._document.complete = True
        else:
            self._document.faults.append(YamlFault("YAML_INVALID", "the file is empty"))

    def _value(self, event: Event, events: Iterator[Event], place: Place, schema: Mapping[str, Any]) -> Any:
        if not isinstance(event, (ScalarEvent, MappingStartEvent, SequenceStartEvent)) or event.anchor is not None:
            # What is left is an AliasEvent: the parser yields nothing else where a value stands.
            raise _Refused(event, "anchors and aliases are not accepted: write the value out", place)
        if event.tag is not None:
            raise _Refused(event, f"the tag {event.tag} is not accepted", place)
        if len(place) > MAX_DEPTH:
            raise _Refused(event, f"nested more than {MAX_DEPTH} deep", place[:3])
        if isinstance(event, MappingStartEvent):
            return self._mapping(events, place, schema)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(events, place, schema)
        if _SURROGATE.search(event.value):
            raise _Refused(event, "half a character (an escaped surrogate) is no text", place)
        return self._scalar(event, place, schema)

    def _mapping(self, events: Iterator[Event], place: Place, schema: Mapping[str, Any]) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_event in events:
            if isinstance(key_event, MappingEndEvent):
                break
            if not isinstance(key_event, ScalarEvent):
                raise _Refused(key_event, "a key must be a plain text", place)
            key = str(self._value(key_event, events, place, {"type": "string"}))
            inner = (*place, key)
            line = key_event.start_mark.line + 1
            if key in mapping:
                message = f"the key {key!r} stands twice: here and in line {self._document.lines[inner]}"
                self._document.faults.append(YamlFault("YAML_DUPLICATE_KEY", message, line, inner))
            self._document.lines[inner] = line
            mapping[key] = self._value(next(events), events, inner, _child(schema, key))
        return mapping

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
        if text in _BOOLEAN:
            return _BOOLEAN[text]
        number = _number(text)
        if isinstance(number, float) and not math.isfinite(number):
            message = f"{text[:40]} is no finite number"
            self._document.faults.append(YamlFault("YAML_INVALID", message, event.start_mark.line + 1, place))
            return None
        return text if number is None else number


def _number(text: str) -> int | float | None:
    if _INTEGER.fullmatch(text):
        return int(text)
    if _PREFIXED.fullmatch(text):
        return int(text, 0)
    if _NOT_FINITE.fullmatch(text):
        return math.inf
    return float(text) if _FLOAT.fullmatch(text) else None


def _child(schema: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return what `schema` says about the value of `key`; `{}` where it says nothing."""
    child = schema.get("properties", {}).get(key, schema.get("additionalProperties", {}))
    return child if isinstance(child, Mapping) else {}
