"""Documents to try a model with: one that its input schema takes, one that it refuses (DESIGN §5).

What the author has written comes first (`examples`, `default`, `const`, `enum`), then what the schema's shape suggests.
Nothing is returned that jsonschema-rs has not confirmed; a schema too clever for this gives NO_SAMPLE_INPUT, since a
guess would fail a sound model. The same schema always gives the same documents.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from random import Random
from typing import Any

import jsonschema_rs

from longshore.schemas.failures import LongshoreError
from longshore.worker_host.runners.sample_values import Generator, NoValueError

# The first try is the fullest document, the second the barest; what neither meets, chance seldom meets after these.
_TRIES = 50

# Of any type, and past the bounds that schemas have.
_ODDITIES: tuple[Any, ...] = (
    {}, [], None, True, "", 0, -1.5, 10**12, "\0" * 100_000, [None] * 10_000, {"": None}, {"\0": {"\0": None}},
)  # fmt: skip


def conforming(schema: dict[str, Any]) -> Any:
    """Return a document that conforms to `schema`. Raises LongshoreError NO_SAMPLE_INPUT, CARD_INVALID."""
    validator = _validator(schema)
    last: Any = None
    for document in _candidates(schema):
        if _accepts(validator, document):
            return document
        last = document
    fault = next(validator.iter_errors(last), None)
    raise LongshoreError(
        "NO_SAMPLE_INPUT",
        "no document could be made that conforms to interface.input_schema",
        details=f"The last try broke it: {fault.message}" if fault else None,
    )


def breaking(schema: dict[str, Any]) -> Any | None:
    """Return a document that `schema` refuses; None if none was found, which is so if it takes everything.

    An object near to a conforming one is preferred, so that the refusal is one that a client would meet.
    """
    validator = _validator(schema)
    try:
        near = list(_damaged(conforming(schema)))
    except LongshoreError:
        near = []
    for document in (*near, *_ODDITIES):
        if document is not None and not _accepts(validator, document):
            return document
    return None


def _candidates(schema: dict[str, Any]) -> Iterator[Any]:
    for number in range(_TRIES):
        try:
            yield from Generator(schema, Random(number), number).documents()  # noqa: S311 (a seed is the point)
        except (NoValueError, RecursionError):
            continue


def _damaged(document: Any) -> Iterator[Any]:
    if isinstance(document, dict):
        for name in document:
            yield {key: value for key, value in document.items() if key != name}
        for name, oddity in itertools.product(document, _ODDITIES):
            yield {**document, name: oddity}
        yield {**document, "unexpected-property": None}


def _validator(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    try:
        # As the runner compiles it, and the registry's gate.
        return jsonschema_rs.validator_for(
            schema, validate_formats=True, pattern_options=jsonschema_rs.RegexOptions(), retriever=_refuse_remote
        )
    except ValueError as error:
        message = f"interface.input_schema is not a usable schema: {error}"
        raise LongshoreError("CARD_INVALID", message) from error


def _refuse_remote(uri: str) -> Any:
    raise ValueError(f"remote references are not followed: {uri}")


def _accepts(validator: jsonschema_rs.Validator, document: Any) -> bool:
    try:
        return validator.is_valid(document)
    except ValueError:  # nested deeper than the validator follows
        return False
