"""Logs as PRD §9.2 has them: one JSON object a line, with timestamp, component, level, event and context."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

# structlog's and logging's names for the levels that the PRD calls otherwise.
_PRD_LEVELS = {"WARNING": "WARN", "EXCEPTION": "ERROR"}
_LEVELS = {"DEBUG": 10, "INFO": 20, "WARN": 30, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}


def configure(component: str, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send this process's logs to `stream` (stderr): JSON lines, or readable ones where it is a terminal.

    `component` is `broker` or the worker's id. Records of the standard `logging` (temporalio, asyncio) come along
    in the same form, from WARN on.
    """
    out = sys.stderr if stream is None else stream
    readable = out.isatty()
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.format_exc_info,
    ]
    last: list[Processor] = (
        [structlog.processors.add_log_level, _clock_time, structlog.dev.ConsoleRenderer(colors=True, sort_keys=False)]
        if readable
        else [_in_prd_form(component), structlog.processors.JSONRenderer(default=str, ensure_ascii=False)]
    )
    threshold = _LEVELS[level.upper()]
    structlog.configure(
        processors=[*common, *last],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_of_logging, structlog.processors.format_exc_info],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)


def _in_prd_form(component: str) -> Processor:
    def shape(_logger: Any, method: str, event: EventDict) -> EventDict:
        level = str(event.pop("level", method)).upper()
        return {
            "timestamp": _now(),
            "component": component,
            "level": _PRD_LEVELS.get(level, level),
            "event": event.pop("event"),
            "context": dict(event),
        }

    return shape


def _of_logging(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    record = event["_record"]
    event["level"] = record.levelname.lower()
    event["logger"] = record.name
    event.update(getattr(record, "context", {}))  # `extra={"context": …}`: how workflow code tells an event
    return event


def _clock_time(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {"timestamp": datetime.now().astimezone().strftime("%H:%M:%S"), **event}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
