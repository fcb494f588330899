"""Values that a JSON Schema suggests. They are proposals: `samples` verifies them. Pure; chance comes from outside."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any
from urllib.parse import unquote

from longshore.worker_host.runners import sample_texts

Schema = Mapping[str, Any] | bool

# Beyond the first depth only what is required is filled in, so that a recursive schema ends; beyond the second it
# does not. The other bounds keep one proposal within some milliseconds, whatever the schema asks for.
_DEEP = 4
_TOO_DEEP = 40
_MOST_VALUES = 2_000
_MOST_CHARACTERS = 1_000_000

_STRONGEST_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains")
_STRONGEST_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_TYPE_HINTS = {
    "object": ("properties", "required", "additionalProperties", "patternProperties", "minProperties", "propertyNames"),
    "array": ("items", "prefixItems", "contains", "minItems", "uniqueItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}


class NoValueError(Exception):
    """The schema takes nothing, or nothing that is understood here."""


class Generator:
    """Proposes documents for one schema. `attempt` 0 fills in everything, 1 only what is required, others by chance."""

    def __init__(self, root: Schema, random: Random, attempt: int) -> None:
        self._root = root
        self._random = random
        self._attempt = attempt
        self._values = 0

    def documents(self) -> Iterator[Any]:
        """Give what the author wrote for the whole document, then one that is built. Raises NoValueError."""
        if isinstance(self._root, Mapping) and self._attempt == 0:
            yield from self._root.get("examples", ())
            yield from (self._root[key] for key in ("default", "const") if key in self._root)
            yield from self._root.get("enum", ())
        yield self._value(self._root, 0)

    def _value(self, schema: Schema, depth: int) -> Any:
        self._values += 1
        if schema is False or depth > _TOO_DEEP or self._values > _MOST_VALUES:
            raise NoValueError
        if schema is True:
            return {} if depth == 0 else "sample"
        flat = self._flat(schema, depth)
        if "const" in flat:
            return flat["const"]
        # Later tries leave the author's values: together they may break what each alone keeps (uniqueItems).
        if depth and (authored := self._authored(flat)) and (self._attempt <= 1 or self._random.random() < 0.5):  # noqa: PLR2004 (a coin)
            return authored[0] if self._attempt <= 1 else self._random.choice(authored)
        if "enum" in flat:
            return self._pick(flat["enum"])
        makers: dict[str, Callable[[], Any]] = {
            "object": lambda: self._object(flat, depth),
            "array": lambda: self._array(flat, depth),
            "string": lambda: self._string(flat),
            "integer": lambda: self._number(flat, whole=True),
            "number": lambda: self._number(flat, whole=False),
            "boolean": lambda: self._pick([True, False]),
            "null": lambda: None,
        }
        return makers[self._type(flat, depth)]()

    @staticmethod
    def _authored(schema: Mapping[str, Any]) -> list[Any]:
        return [*schema.get("examples", ()), *([schema["default"]] if "default" in schema else ())]

    def _pick(self, choices: Any) -> Any:
        if not choices:
            raise NoValueError
        return choices[0] if self._attempt <= 1 else self._random.choice(choices)

    def _type(self, schema: Mapping[str, Any], depth: int) -> str:
        if "type" in schema:
            types = schema["type"]
            known = [types] if isinstance(types, str) else [kind for kind in types if kind != "null"] or list(types)
            return str(self._pick(known))
        for kind, hints in _TYPE_HINTS.items():
            if any(hint in schema for hint in hints):
                return kind
        return "string" if depth else "object"

    # --- one schema of several ---

    def _flat(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        """Merge `$ref`, `allOf` and one branch of `anyOf`, `oneOf` and `if` into one schema."""
        if depth > _TOO_DEEP:
            raise NoValueError
        flat = dict(schema)
        parts: list[Schema] = []
        if isinstance(reference := flat.pop("$ref", None), str):
            parts.append(self._resolve(reference))
        parts += flat.pop("allOf", ())
        parts += [self._pick(flat.pop(key)) for key in ("anyOf", "oneOf") if key in flat]
        if (condition := flat.pop("if", None)) is not None:
            then, other = flat.pop("then", True), flat.pop("else", True)
            parts += self._pick([(condition, then), (other,)])
        for part in parts:
            if part is False:
                raise NoValueError
            if part is not True:
                flat = _merge(flat, self._flat(part, depth + 1))
        return flat

    def _resolve(self, reference: str) -> Schema:
        """Follow a reference within the document: a JSON Pointer (RFC 6901) or an `$anchor`."""
        place, _, fragment = reference.partition("#")
        if place and not (isinstance(self._root, Mapping) and place == self._root.get("$id")):
            raise NoValueError
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            return _anchored(self._root, fragment)
        found: Any = self._root
        for step in fragment.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            try:
                found = found[int(name)] if isinstance(found, list) else found[name]
            except (KeyError, IndexError, ValueError, TypeError):
                raise NoValueError from None
        if not isinstance(found, Mapping | bool):
            raise NoValueError
        return found

    # --- values of one type ---

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties: Mapping[str, Schema] = schema.get("properties", {})
        required = list(dict.fromkeys(schema.get("required", ())))
        names = required + [name for name in properties if name not in required and self._wanted(depth)]
        for name in list(names):
            names += [also for also in schema.get("dependentRequired", {}).get(name, ()) if also not in names]
        most = schema.get("maxProperties", math.inf)
        names = names[: max(len(required), most if math.isfinite(most) else len(names))]
        names += self._further_names(schema, names)
        result = {}
        for name in names:
            try:
                result[name] = self._value(self._property(schema, name), depth + 1)
            except NoValueError:
                if name in required:
                    raise
        return result

    def _wanted(self, depth: int) -> bool:
        """Whether to fill in what is optional."""
        if depth >= _DEEP or self._attempt == 1:
            return False
        return self._attempt == 0 or self._random.random() < 0.5  # noqa: PLR2004 (a coin)

    def _property(self, schema: Mapping[str, Any], name: str) -> Schema:
        shapes: dict[str, Schema] = {**schema.get("properties", {})}
        if name in shapes:
            return shapes[name]
        for pattern, shape in schema.get("patternProperties", {}).items():
            with contextlib.suppress(re.error):  # ECMA's dialect; what Python cannot read is verified all the same
                if re.search(pattern, name):
                    return shape  # type: ignore[no-any-return]
        return schema.get("additionalProperties", True)  # type: ignore[no-any-return]

    def _further_names(self, schema: Mapping[str, Any], names: list[str]) -> list[str]:
        """Invent names up to `minProperties`, and one where only the form of names and values is given."""
        shape = schema.get("propertyNames", True)
        open_ended = "properties" not in schema and isinstance(schema.get("additionalProperties"), Mapping)
        wanted = schema.get("minProperties", 1 if open_ended and self._wanted(0) else 0) - len(names)
        patterns = list(schema.get("patternProperties", ()))
        if patterns and self._wanted(0):
            wanted = max(wanted, 1)
        if wanted > _MOST_VALUES:
            raise NoValueError
        found: list[str] = []
        for number in range(max(0, wanted) * 10):
            if len(found) >= wanted:
                break
            if patterns:
                name = sample_texts.matching(patterns[0], self._random, least=number == 0)
            elif isinstance(shape, Mapping):
                name = self._value({"type": "string", **shape}, 1)
            else:
                name = f"sample{number}"
            if isinstance(name, str) and name not in names and name not in found:
                found.append(name)
        return found

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        prefix, items = list(schema.get("prefixItems", ())), schema.get("items", True)
        if isinstance(items, list):  # before 2020-12
            prefix, items = items, schema.get("additionalItems", True)
        contains = schema.get("contains")
        least = max(schema.get("minItems", 0), schema.get("minContains", 1) if contains is not None else 0)
        wanted = max(least, len(prefix) or 1) if self._wanted(depth) else least
        count = min(wanted, schema.get("maxItems", wanted))
        if count > _MOST_VALUES:
            raise NoValueError
        result: list[Any] = []
        for number in range(count):
            shape = prefix[number] if number < len(prefix) else items
            if contains is not None and number >= len(prefix):
                shape = {"allOf": [shape, contains]}
            value = self._value(shape, depth + 1)
            if schema.get("uniqueItems") and value in result:
                value = self._another(shape, result, depth)
            result.append(value)
        return result

    def _another(self, shape: Schema, taken: list[Any], depth: int) -> Any:
        """Return a value that is not among those taken: by chance, or by counting on from the last."""
        flat = {} if isinstance(shape, bool) else self._flat(shape, depth)
        varied = Generator(self._root, self._random, attempt=2)
        for number in range(1, 20):
            value = varied._value(shape, depth + 1)
            if value in taken and isinstance(value, str) and "pattern" not in flat and "format" not in flat:
                value = f"{value[: max(0, flat.get('maxLength', 99) - 2)]}{number}"
            elif value in taken and isinstance(value, int) and not isinstance(value, bool):
                value += number * flat.get("multipleOf", 1)
            if value not in taken:
                return value
        raise NoValueError

    def _string(self, schema: Mapping[str, Any]) -> str:
        least, most = schema.get("minLength", 0), schema.get("maxLength", math.inf)
        if least > _MOST_CHARACTERS:
            raise NoValueError
        if (pattern := schema.get("pattern")) is not None:
            text = sample_texts.matching(pattern, self._random, least=self._attempt <= 1)
            if text is None:
                raise NoValueError
            if len(text) >= least:
                return text
            # An unanchored end takes anything more.
            return text if pattern.endswith("$") else text.ljust(least, "a")
        if (known := sample_texts.FORMATS.get(schema.get("format", ""))) is not None:
            return known
        if self._attempt > 1 and math.isfinite(most):
            least = self._random.randint(int(least), int(max(least, min(most, least + 20))))
        text = "sample text " * (1 + int(least) // 12) if least > len("sample text") else "sample text"
        return text[: int(max(least, min(most, len("sample text"))))]

    def _number(self, schema: Mapping[str, Any], *, whole: bool) -> float:
        step = schema.get("multipleOf") or (1 if whole else 0)
        low = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf))
        high = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf))
        if whole and step != int(step):
            step = step * 10 ** len(str(step).partition(".")[2])
        if step:
            return self._multiple(step, low, high, excluded=_excluded(schema))
        part = 0.5 if self._attempt <= 1 else self._random.random()
        if math.isfinite(low) and math.isfinite(high):
            return float(low if low == high else low + (high - low) * part)
        return float(low + 2 * part if low >= 1 else (high - 2 * part if high <= 1 else 2 * part))

    def _multiple(self, step: float, low: float, high: float, *, excluded: set[float]) -> float:
        first = math.ceil(low / step) if math.isfinite(low) else (math.floor(high / step) - 1 if high < step else 1)
        last = math.floor(high / step) if math.isfinite(high) else first + 20
        choices = [factor for factor in (first, first + 1, last - 1, last, 1) if first <= factor <= last]
        values = [factor * step for factor in choices if factor * step not in excluded]
        value = self._pick(values)
        return int(value) if value == int(value) else float(value)


def _excluded(schema: Mapping[str, Any]) -> set[float]:
    return {schema[key] for key in ("exclusiveMinimum", "exclusiveMaximum") if key in schema}


def _merge(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema that asks for both, as far as its keywords can be joined."""
    merged = {**left, **right}
    for key in left.keys() & right.keys():
        one, other = left[key], right[key]
        if key in ("properties", "patternProperties"):
            both = {name: {"allOf": [one[name], other[name]]} for name in one.keys() & other.keys()}
            merged[key] = {**one, **other, **both}
        elif key == "required":
            merged[key] = list(dict.fromkeys([*one, *other]))
        elif key in _STRONGEST_LOWER:
            merged[key] = max(one, other)
        elif key in _STRONGEST_UPPER:
            merged[key] = min(one, other)
        elif key == "type":
            merged[key] = _common_types(one, other)
        elif key == "enum":
            merged[key] = [value for value in one if value in other]
        elif key in ("items", "additionalProperties", "contains"):
            merged[key] = {"allOf": [one, other]}
    return merged


def _common_types(one: Any, other: Any) -> list[str]:
    left, right = ([kinds] if isinstance(kinds, str) else list(kinds) for kinds in (one, other))
    widened = {*right, *(["integer"] if "number" in right else [])}
    narrowed = ["integer"] if "number" in left and "integer" in right and "integer" not in left else []
    return [kind for kind in left if kind in widened] or narrowed


def _anchored(schema: Any, name: str) -> Schema:
    """Return the subschema that carries `$anchor: name`. Raises NoValueError."""
    stack = [schema]
    while stack:
        found = stack.pop()
        if isinstance(found, Mapping):
            if found.get("$anchor") == name:
                return found
            stack += found.values()
        elif isinstance(found, list):
            stack += found
    raise NoValueError
