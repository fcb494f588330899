"""The schemas in cards: the static check takes any JSON, and what it accepts compiles or is refused, and soon."""

from __future__ import annotations

import contextlib
import json

from fuzzing import instrumented, run

with instrumented():
    from longshore.registry.documents import schema_program
    from longshore.registry.documents.interface_schemas import inspect_schema
    from longshore.schemas.failures import FAILURES


def judge(data: bytes) -> None:
    with contextlib.suppress(ValueError, RecursionError):  # no JSON, or nested deeper than a card can be
        judge_schema(json.loads(data))


def judge_schema(schema: object) -> None:
    verdict = inspect_schema(schema)
    faults = [(fault.code, list(fault.place)) for fault in verdict.faults]
    if verdict.readable and isinstance(schema, dict):
        patterns = [(list(place), pattern) for place, pattern in verdict.patterns]
        found = schema_program.judge(schema, patterns, compile_it=not verdict.faults)
        faults += [(code, place) for code, _, place in found]
    for code, place in faults:
        assert code in FAILURES
        value = schema
        for part in place:
            value = value[part]


if __name__ == "__main__":
    run(judge)
