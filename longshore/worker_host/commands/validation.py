"""The trial of a model before it gets traffic: one sample, one broken sample (PRD §6.2 LOAD step 10, DESIGN §5)."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs

from longshore.schemas.cards import Interface
from longshore.schemas.failures import LongshoreError
from longshore.worker_host.commands.parts import Answer, Runners
from longshore.worker_host.runners.samples import breaking, conforming

_OK, _UNPROCESSABLE = 200, 422

# Characters of an answer that are quoted: a problem document with its traceback fits, an image does not.
_QUOTED = 2000


async def validate(runners: Runners, instance_id: str, interface: Interface) -> None:
    """Ask a runner through its own socket. Raises VALIDATION_FAILED, or NO_SAMPLE_INPUT where none can be made."""
    sample = conforming(interface.input_schema)
    answer = await runners.infer(instance_id, sample)
    if answer.status != _OK:
        raise _failed(f"a sample of its input schema was answered with {answer.status} instead of 200", answer)
    _check_output(answer, interface.output_schema)
    broken = breaking(interface.input_schema)
    if broken is None:
        return  # every JSON object conforms: there is nothing to refuse
    answer = await runners.infer(instance_id, broken)
    if answer.status != _UNPROCESSABLE:
        raise _failed(f"an input that breaks its schema was answered with {answer.status} instead of 422", answer)


def _check_output(answer: Answer, schema: dict[str, Any]) -> None:
    try:
        document = json.loads(answer.body)
    except ValueError as error:
        raise _failed("its answer is no JSON document", answer) from error
    validator = jsonschema_rs.validator_for(schema, pattern_options=jsonschema_rs.RegexOptions())
    fault = next(validator.iter_errors(document), None)
    if fault is not None:
        place = "/".join(str(part) for part in fault.instance_path) or "the document"
        raise _failed(f"its answer breaks the output schema at {place}: {fault.message}", answer)


def _failed(message: str, answer: Answer) -> LongshoreError:
    return LongshoreError("VALIDATION_FAILED", message, details=answer.body[:_QUOTED].decode(errors="replace"))
