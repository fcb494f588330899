"""The program of the process that compiles schemas and may be killed for it (FAULTS 44).

Run as `python -I schema_program.py`; standard library and `jsonschema_rs` only, so that it starts in 0.1 s. It reads a
line of JSON for each schema, `{schema, patterns, compile}`, and answers each with a line, a list of `[code, message,
place]`, before it reads the next one. A schema that exceeds a limit ends the process: the first without an answer.
"""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import sys
from typing import Any

import jsonschema_rs

CPU_SECONDS = 2.0  # for one schema; the largest that passes the static check takes 0.2 s
MEMORY = 512 * 1024 * 1024  # bytes of address space, 60 MB of which are Python's

# Someone who has mended these many faults of one schema tries again anyway.
_MOST_FAULTS = 20
_MESSAGE = 300  # characters

_DIALECT = "https://json-schema.org/draft/2020-12/schema"

# Something of every type, so that what loops for ever does so here.
_PROBES: tuple[Any, ...] = ({}, [], None, True, "", "x" * 1000, 0, 1.5, {"x": {"x": []}}, [[], {}, "x"])

Fault = tuple[str, str, list[Any]]


def refuse_remote(uri: str) -> Any:
    raise ValueError(f"remote references are not followed: {uri}")


def compiles(schema: Any, options: Any) -> bool:
    try:
        jsonschema_rs.Draft202012Validator(schema, pattern_options=options)
    except ValueError:
        return False
    return True


def pattern_faults(patterns: list[tuple[list[Any], str]]) -> list[Fault]:
    """Say which patterns the engine does not take that devices use: one that needs time linear in the text."""
    faults: list[Fault] = []
    for place, pattern in patterns:
        schema = {"pattern": pattern}
        if compiles(schema, jsonschema_rs.RegexOptions()):
            continue
        if compiles(schema, jsonschema_rs.FancyRegexOptions(size_limit=MEMORY)):
            message = "needs look-around or back-references, or repeats too much: patterns must run in linear time"
            faults.append(("SCHEMA_TOO_COSTLY", message, place))
        else:
            faults.append(("CARD_INVALID", "is no regular expression", place))
    return faults


def metaschema_faults(schema: dict[str, Any]) -> list[Fault]:
    """Hold a schema against its metaschema: every breach in today's dialect, the first one in older ones."""
    if schema.get("$schema", _DIALECT) == _DIALECT:
        errors = jsonschema_rs.validator_for({"$ref": _DIALECT}, retriever=refuse_remote).iter_errors(schema)
        found = [error for error, _ in zip(errors, range(_MOST_FAULTS), strict=False)]
    else:
        try:
            jsonschema_rs.meta.validate(schema)
        except jsonschema_rs.ValidationError as error:
            found = [error]
        else:
            found = []
    return [("CARD_INVALID", error.message[:_MESSAGE], within(schema, error.instance_path)) for error in found]


def within(schema: Any, path: list[Any]) -> list[Any]:
    """Return as much of `path` as leads into the schema: jsonschema_rs leaves empty keys out."""
    reached: list[Any] = []
    for part in path:
        try:
            schema = schema[part]
        except (LookupError, TypeError):
            break
        reached.append(part)
    return reached


def judge(schema: dict[str, Any], patterns: list[tuple[list[Any], str]], *, compile_it: bool) -> list[Fault]:
    """Return what is wrong with a schema; it is compiled only where the static check has found nothing."""
    faults = pattern_faults(patterns)
    if compile_it or "$schema" not in schema:  # a dialect that is not known has been refused
        faults += metaschema_faults(schema)
    if faults or not compile_it:
        return faults[:_MOST_FAULTS]
    try:
        # As `worker_host/runners` compile it.
        validator = jsonschema_rs.validator_for(
            schema, validate_formats=True, pattern_options=jsonschema_rs.RegexOptions(), retriever=refuse_remote
        )
    except jsonschema_rs.ValidationError as error:
        return [("CARD_INVALID", error.message[:_MESSAGE], within(schema, error.instance_path))]
    except ValueError as error:
        return [("CARD_INVALID", str(error)[:_MESSAGE], [])]
    for probe in _PROBES:
        with contextlib.suppress(ValueError):  # nested deeper than the validator follows
            validator.is_valid(probe)
    return []


def main() -> None:
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # it ends the process, whatever code is running
    for limit, value in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # macOS has the first in name only
            resource.setrlimit(limit, (value, value))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        job = json.loads(line)
        faults = judge(job["schema"], job["patterns"], compile_it=job["compile"])
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(json.dumps(faults) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
