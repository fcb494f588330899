"""Writes docs/reference/ from the code: `python3 dev.py docs`. A test fails when it is out of date."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from longshore.broker.settings import BrokerSettings, UpSettings
from longshore.cli.durations import format_duration
from longshore.cli.pre_receive import HookSettings
from longshore.cli.settings import is_secret
from longshore.schemas.failures import FAILURES, Backoff, Category
from longshore.schemas.policies import RepositoryPolicy
from longshore.telemetry import events, metrics
from longshore.worker_host.settings import WorkerHostSettings

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
WRITTEN_BY = "<!-- Written by `python3 dev.py docs`; do not edit. -->"
SETTINGS: dict[str, type[BaseModel]] = {
    "up": UpSettings,
    "broker": BrokerSettings,
    "worker-host": WorkerHostSettings,
    "validate": RepositoryPolicy,
    "pre-receive": HookSettings,
}
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}

ABOUT_ERRORS = """\
Every failure that Longshore reports has one of these codes: in `longshore status`, in the result of a commit's
workflow, in the registry's `errors/` folder. The table itself is `longshore/schemas/failures.py`."""

ABOUT_SETTINGS = """\
Every setting is a flag, an environment variable, and a key of one TOML file (`--settings FILE` or
`LONGSHORE_SETTINGS`). The flag wins over the variable, the variable over the file. A file that several commands share
puts what only one of them knows into a table with that command's name, such as `[worker-host]`. A secret has no flag:
argument lists are there for every user of a machine to read."""

ABOUT_METRICS = """\
Each broker serves these at `GET /metrics`, on the port of its webhook, in Prometheus' format. They count from the start
of that process. The PRD's success rate of validations is a query, so that it holds for any window and all brokers:

    sum(rate(broker_registry_validations_total{outcome="accepted"}[1d]))
      / sum(rate(broker_registry_validations_total[1d]))"""


def pages() -> dict[str, str]:
    """Return the text of every generated page by its name."""
    return {
        "errors.md": errors(),
        "settings.md": settings(),
        "log-events.md": log_events(),
        "metrics.md": broker_metrics(),
    }


def errors() -> str:
    backoff = Backoff()
    parts = [
        "# Failure codes",
        WRITTEN_BY,
        ABOUT_ERRORS,
        (
            f"A failure that is *tried again* waits {format_duration(backoff.base)}, then {backoff.factor:g} times "
            f"as long each time, at most {format_duration(backoff.cap)}, and is final after {backoff.attempts} tries."
        ),
    ]
    for category in Category:
        rows = [
            (f"`{kind.code}`", "tried again" if kind.retriable else "final", kind.remedy)
            for kind in FAILURES.values()
            if kind.category is category
        ]
        parts += [f"## {category.value.capitalize()}", table(("code", "", "remedy"), sorted(rows))]
    return page(parts)


def settings() -> str:
    parts = [
        "# Settings",
        WRITTEN_BY,
        ABOUT_SETTINGS,
    ]
    for verb, model in SETTINGS.items():
        rows = [
            (flag_of(name, field), f"`LONGSHORE_{name.upper()}`", default_of(model, name), field.description)
            for name, field in model.model_fields.items()
        ]
        parts += [f"## longshore {verb}", table(("flag", "variable", "default", "what it does"), rows)]
    return page(parts)


def flag_of(name: str, field: FieldInfo) -> str:
    return "" if is_secret(field) else f"`--{name.replace('_', '-')}`"


def default_of(model: type[BaseModel], name: str) -> str:
    field = model.model_fields[name]
    if field.is_required():
        return "(required)"
    default: Any = field.get_default(call_default_factory=True, validated_data={})
    if default is None or default == () or isinstance(default, SecretStr):
        return ""
    if isinstance(default, tuple):
        return f"`{','.join(default)}`"
    if isinstance(default, timedelta):
        return f"`{format_duration(default)}`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


class Told(NamedTuple):
    event: str
    level: str
    room: str
    context: tuple[str, ...]


def log_events() -> str:
    named = {**events.BROKER_EVENTS, **events.WORKER_EVENTS}
    rows = [
        (f"`{event}`", level, room, ", ".join(f"`{name}`" for name in context), "PRD §9.2" if event in named else "")
        for event, level, room, context in merged(told_in_source())
    ]
    return page(
        [
            "# Log events",
            WRITTEN_BY,
            "Logs are JSON lines: `timestamp`, `component`, `level`, `event`, `context`. These events are told:",
            table(("event", "level", "room", "context", "source"), rows),
            "Not told yet, though PRD §9.2 names them: "
            + ", ".join(f"`{event}`" for event in sorted(named.keys() - {told.event for told in told_in_source()}))
            + ".",
        ]
    )


def broker_metrics() -> str:
    rows = [
        (f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels), about, f"`{prd}`" if prd else "")
        for name, kind, labels, about, prd in metrics.BROKER_METRICS
    ]
    return page(
        [
            "# Metrics",
            WRITTEN_BY,
            ABOUT_METRICS,
            table(("metric", "kind", "labels", "what it counts", "in PRD §9.1"), rows),
        ]
    )


def merged(told: Iterable[Told]) -> list[Told]:
    """Return one entry for each event and room, with all that any of its places tells."""
    found: dict[tuple[str, str], Told] = {}
    for entry in told:
        before = found.get((entry.event, entry.room), entry)
        context = dict.fromkeys((*before.context, *entry.context))
        found[entry.event, entry.room] = entry._replace(context=tuple(context))
    return sorted(found.values())


def told_in_source() -> Iterator[Told]:
    """Find every `log.info("event", …)` of the package."""
    for file in sorted((ROOT / "longshore").rglob("*.py")):
        room = file.relative_to(ROOT / "longshore").parts[0]
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and (told := _told(node)) is not None:
                event, level, context = told
                yield Told(event, level.replace("exception", "error").replace("warning", "warn").upper(), room, context)


def _told(call: ast.Call) -> tuple[str, str, tuple[str, ...]] | None:
    target = call.func
    if not (isinstance(target, ast.Attribute) and target.attr in LEVELS and call.args):
        return None
    owner, event = ast.unparse(target.value), call.args[0]
    if not re.fullmatch(r"(self\.|workflow\.)?_?log(ger)?", owner) or not isinstance(event, ast.Constant):
        return None
    return (
        str(event.value),
        target.attr,
        tuple(keyword.arg for keyword in call.keywords if keyword.arg not in {None, "extra"}),
    )


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def page(parts: Sequence[str]) -> str:
    return "\n\n".join(parts) + "\n"


def main() -> None:
    REFERENCE.mkdir(exist_ok=True)
    for name, text in pages().items():
        (REFERENCE / name).write_text(text)
        print(f"docs/reference/{name}")


if __name__ == "__main__":
    main()
