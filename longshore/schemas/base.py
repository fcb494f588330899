"""The two kinds of model that this room holds, and what their fields share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SerializerFunctionWrapHandler,
    model_serializer,
)


class Document(BaseModel):
    """Something that a person wrote: unknown fields are an error and nothing is coerced.

    Validate with `model_validate_json`: in JSON mode strictness agrees with JSON Schema
    (an array may become a tuple, the string "3" never becomes a number).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_serializer(mode="wrap")
    def _leave_out_absent(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A document never says null (see Omittable), so neither does its serialised form: it reads back.
        fields: Mapping[str, Any] = serialise(self)
        return {name: value for name, value in fields.items() if value is not None}


class Message(BaseModel):
    """Something that our processes exchange: unknown fields are ignored, so that releases can overlap."""

    model_config = ConfigDict(frozen=True, extra="ignore")


T = TypeVar("T")


def _refuse_null(value: T | None) -> T:
    if value is None:
        raise ValueError("null is no value: leave the field out")
    return value


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Omittable = Annotated[T | None, AfterValidator(_refuse_null)]
"""An optional field of a document, default None: it may be left out, but, as in JSON Schema, null is refused."""

Integer = Annotated[int, BeforeValidator(_whole)]
"""JSON Schema's integer, to which 3.0 belongs."""
