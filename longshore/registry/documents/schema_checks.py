"""The JSON Schemas of cards, judged: the static check first, then a compiler in a process that can be killed.

One process takes a batch; a schema that kills it is refused, and a new process takes the rest. What a schema was found
to be is remembered by its text, so that a card that has not changed starts no process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from longshore.registry.documents import schema_program
from longshore.registry.documents.interface_schemas import SchemaFault, StaticVerdict, inspect_schema
from longshore.registry.documents.reading import Finding, ReadDocument
from longshore.schemas.failures import LongshoreError

SCHEMAS = ("input_schema", "output_schema")

# As many as `documents` remembers, twice: a card has two schemas.
_REMEMBERED = 8192

# How long one answer may take by the clock. The limit on CPU is what counts: a busy machine is no fault of a schema.
_PATIENCE_SECONDS = 60.0

_ANSWER_LIMIT = 1024 * 1024  # bytes of one line

_KILLED = SchemaFault(
    "SCHEMA_TOO_COSTLY",
    f"compiling it takes more than {schema_program.CPU_SECONDS:g} s or {schema_program.MEMORY // 2**20} MiB",
)

Key = TypeVar("Key")

Faults = tuple[SchemaFault, ...]

_compiled: OrderedDict[str, Faults] = OrderedDict()


async def check_interfaces(cards: Mapping[Key, ReadDocument]) -> dict[Key, tuple[Finding, ...]]:
    """Return what is wrong with the schemas in `interface` of each card, as far as the card could be read.

    Raises LongshoreError INTERNAL_ERROR where no compiler can be started.
    """
    texts = {(key, name): text for key, card in cards.items() for name in SCHEMAS if (text := _schema_text(card, name))}
    verdicts = {text: _inspected(text) for text in texts.values()}
    compiled = await _compile([text for text, verdict in verdicts.items() if verdict.readable])
    findings: dict[Key, tuple[Finding, ...]] = dict.fromkeys(cards, ())
    for (key, name), text in texts.items():
        faults = dict.fromkeys((*verdicts[text].faults, *compiled.get(text, ())))
        findings[key] += tuple(
            cards[key].finding(fault.code, fault.message, "interface", name, *fault.place) for fault in faults
        )
    return findings


def _schema_text(card: ReadDocument, name: str) -> str | None:
    interface = card.raw.get("interface") if isinstance(card.raw, dict) else None
    schema = interface.get(name) if isinstance(interface, dict) else None
    # Whatever else it is, the card's own schema has refused.
    return json.dumps(schema) if isinstance(schema, dict) else None


@lru_cache(maxsize=_REMEMBERED)
def _inspected(text: str) -> StaticVerdict:
    return inspect_schema(json.loads(text))


async def _compile(texts: Sequence[str]) -> dict[str, Faults]:
    """Return what compiling each of the texts brings to light; starts no process for what is remembered."""
    found = {text: _compiled[text] for text in texts if text in _compiled}
    waiting = [text for text in texts if text not in found]
    while waiting:
        answers, late = await _ask([_job(text) for text in waiting])
        answered = dict(zip(waiting, answers, strict=False))
        waiting = waiting[len(answers) :]
        if waiting:
            answered[waiting[0]] = (_KILLED,)
        found |= answered
        _compiled.update({text: faults for text, faults in answered.items() if not (late and text in waiting)})
        while len(_compiled) > _REMEMBERED:
            _compiled.popitem(last=False)
        waiting = waiting[1:]
    return found


def _job(text: str) -> bytes:
    verdict = _inspected(text)
    job = {"schema": json.loads(text), "patterns": verdict.patterns, "compile": not verdict.faults}
    return json.dumps(job).encode() + b"\n"


async def _ask(jobs: Sequence[bytes]) -> tuple[list[Faults], bool]:
    """Give jobs to one process. Return its answers until it died, and whether it was killed for being late."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        str(Path(schema_program.__file__)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_ANSWER_LIMIT,
        process_group=0,
    )
    # Both pipes are at work at once: it reads on only when its answers are taken.
    rest = asyncio.ensure_future(_tell(process, jobs))
    try:
        return await _answers(process, len(jobs))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await rest


async def _tell(process: asyncio.subprocess.Process, jobs: Sequence[bytes]) -> None:
    assert process.stdin is not None  # noqa: S101 (it was asked for)
    with contextlib.suppress(ConnectionError):  # it died of one of them
        for job in jobs:
            process.stdin.write(job)
            await process.stdin.drain()
    process.stdin.close()


async def _answers(process: asyncio.subprocess.Process, expected: int) -> tuple[list[Faults], bool]:
    assert process.stdout is not None and process.stderr is not None  # noqa: S101, PT018 (they were asked for)
    answers: list[Faults] = []
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            if await process.stdout.readline() != b"ready\n":
                reason = (await process.stderr.read(2000)).decode("utf-8", "replace")
                raise LongshoreError("INTERNAL_ERROR", "no compiler of schemas can be started", details=reason)
        while len(answers) < expected:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                line = await process.stdout.readline()
            if not line.endswith(b"\n"):
                break
            answers.append(tuple(SchemaFault(code, text, tuple(place)) for code, text, place in json.loads(line)))
    except TimeoutError:
        return answers, True
    return answers, False
