"""Refs, versions and the other patterned texts: pydantic, JSON Schema in Rust and in Python, and `re` agree."""

from __future__ import annotations

import re
from typing import Annotated

from fuzzing import instrumented, run

with instrumented():
    import jsonschema
    import jsonschema_rs
    from pydantic import Field, TypeAdapter, ValidationError

    from longshore.registry.documents.dependencies import contradictions, is_forbidden
    from longshore.schemas import patterns
    from longshore.schemas.quantities import parse_memory

PATTERNS = {name: text for name, text in vars(patterns).items() if name.isupper()}
MODELS = {name: TypeAdapter(Annotated[str, Field(pattern=text)]) for name, text in PATTERNS.items()}
SCHEMAS = {name: {"pattern": text, "not": {"pattern": r"\n"}} for name, text in PATTERNS.items()}
IN_RUST = {name: jsonschema_rs.Draft202012Validator(schema) for name, schema in SCHEMAS.items()}
IN_PYTHON = {name: jsonschema.Draft202012Validator(schema) for name, schema in SCHEMAS.items()}


def accepted(model: TypeAdapter[str], text: str) -> bool:
    try:
        model.validate_python(text)
    except ValidationError:
        return False
    return True


def judge(data: bytes) -> None:
    text = data.decode("utf-8", "ignore")
    for name, pattern in PATTERNS.items():
        verdicts = {
            "re": re.fullmatch(pattern, text) is not None and "\n" not in text,
            "pydantic": accepted(MODELS[name], text),
            "jsonschema-rs": IN_RUST[name].is_valid(text),
            "jsonschema": IN_PYTHON[name].is_valid(text),
        }
        assert len(set(verdicts.values())) == 1, (name, text, verdicts)
    if IN_RUST["GIT_REF"].is_valid(text):
        assert re.fullmatch("v[0-9]+[.][0-9]+[.][0-9]+|[0-9a-f]{7,40}", text), text
        assert text.isascii()
    if IN_RUST["MEMORY"].is_valid(text):
        assert parse_memory(text) < 2**63
    if IN_RUST["DEPENDENCY"].is_valid(text):
        assert not is_forbidden(text), text
        assert list(contradictions([text, text])) == []
    if IN_RUST["SYSTEM_PACKAGE"].is_valid(text):
        assert text.isascii()
        assert text.strip("-") == text


if __name__ == "__main__":
    run(judge)
