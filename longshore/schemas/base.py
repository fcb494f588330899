"""The two kinds of model that this room holds."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Document(BaseModel):
    """Something that a person wrote: unknown fields are an error and nothing is coerced.

    Validate with `model_validate_json`: in JSON mode strictness agrees with JSON Schema
    (an array may become a tuple, the string "3" never becomes a number).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Message(BaseModel):
    """Something that our processes exchange: unknown fields are ignored, so that releases can overlap."""

    model_config = ConfigDict(frozen=True, extra="ignore")
