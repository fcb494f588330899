"""Logs as PRD §9.2 has them."""

import io
import json
import logging
import re

import pytest
import structlog

from longshore.telemetry import events, logs


@pytest.fixture(autouse=True)
def _as_before():
    root = logging.getLogger()
    before = structlog.get_config(), root.handlers[:], root.level
    yield
    structlog.configure(**before[0])
    root.handlers[:] = before[1]
    root.setLevel(before[2])


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_line_is_json_in_the_prds_form():
    """timestamp, component, level, event, and the rest in context."""
    stream = io.StringIO()
    logs.configure("worker-a", "DEBUG", stream)
    structlog.get_logger().info("model_load_started", deployment_id="m", model_version="1.0.0")
    (line,) = lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {
        "component": "worker-a",
        "level": "INFO",
        "event": "model_load_started",
        "context": {"deployment_id": "m", "model_version": "1.0.0"},
    }


def test_levels_have_the_prds_names_and_are_filtered():
    """WARN, not WARNING; below the threshold nothing is written."""
    stream = io.StringIO()
    logs.configure("broker", "warn", stream)
    log = structlog.get_logger()
    log.info("quiet")
    log.warning("loud")
    log.critical("louder")
    assert [(line["event"], line["level"]) for line in lines(stream)] == [("loud", "WARN"), ("louder", "CRITICAL")]


def test_exceptions_and_newlines_stay_on_one_line():
    """A traceback is context; a message of several lines cannot forge another entry."""
    stream = io.StringIO()
    logs.configure("broker", stream=stream)
    log = structlog.get_logger()
    try:
        int('first\n{"event": "forged"}')
    except ValueError:
        log.exception("model_load_failed", error="a\nb")
    (line,) = lines(stream)
    assert line["level"] == "ERROR"
    assert "ValueError: invalid literal" in line["context"]["exception"]
    assert line["context"]["error"] == "a\nb"


def test_standard_logging_comes_along():
    """What temporalio and asyncio have to say has the same form, from WARN on."""
    stream = io.StringIO()
    logs.configure("broker", stream=stream)
    logging.getLogger("temporalio.worker").info("chatter")
    logging.getLogger("temporalio.worker").warning("lost %s", "the server")
    (line,) = lines(stream)
    assert (line["level"], line["event"], line["context"]["logger"]) == ("WARN", "lost the server", "temporalio.worker")


def test_context_that_is_no_json_is_written_as_text():
    """Logging never fails over what it is given."""
    stream = io.StringIO()
    logs.configure("broker", stream=stream)
    structlog.get_logger().info("x", path=io, nested={"set": {1}})
    assert len(lines(stream)) == 1


def test_terminal_gets_readable_lines():
    """A person at a terminal reads no JSON."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    logs.configure("broker", stream=stream)
    structlog.get_logger().info("model_load_started", deployment_id="m")
    assert "model_load_started" in stream.getvalue()
    assert "{" not in stream.getvalue()


def test_events_of_the_prd_are_all_there():
    """12 of the broker, 19 of the worker, each with its level and fields."""
    assert (len(events.BROKER_EVENTS), len(events.WORKER_EVENTS), len(events.EVENTS)) == (12, 19, 31)
    assert events.EVENTS["command_dispatched"] == (
        "INFO",
        {"command_type", "deployment_id", "worker_id", "correlation_id"},
    )


def test_missing_context_is_found():
    """A room's tests ask which fields of PRD §9.2 an entry lacks; our own events have no such duty."""
    assert events.missing_fields("model_load_started", {"deployment_id": "m"}) == {"model_version"}
    assert events.missing_fields("envoy_restarted", {}) == frozenset()


def test_workflow_code_tells_events_with_their_context():
    """It may log through the standard `logging` only; what it says is an event like any other."""
    stream = io.StringIO()
    logs.configure("broker", "INFO", stream)
    logging.getLogger("temporalio.workflow").warning("worker_marked_suspect", extra={"context": {"worker_id": "w"}})
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["context"]["worker_id"]) == ("worker_marked_suspect", "WARN", "w")
