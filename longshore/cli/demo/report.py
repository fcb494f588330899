"""What the demo has measured, for the person at the end and for `--json`."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from longshore.cli.demo.load import Load, percentile
from longshore.cli.demo.screen import Screen

MEASURED = ("devices_agree", "ready_elsewhere")
"""The facts of a step that say how long it took, where it did more than that."""


@dataclass
class Step:
    """One step, its duration in seconds, and what was counted in it."""

    name: str
    seconds: float = 0.0
    ok: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Report:
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    ok: bool = False
    error: str | None = None
    first_answer_seconds: float | None = None
    """From the end of the set-up to the first answer of a deployed model."""
    steps: list[Step] = field(default_factory=list)
    urls: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Time the block as one step; it is `ok` when the block ends without an exception."""
        step = Step(name)
        self.steps.append(step)
        began = time.monotonic()
        try:
            yield step
            step.ok = True
        finally:
            step.seconds = round(time.monotonic() - began, 3)

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self), indent=2) + "\n")


def load_facts(*loads: Load) -> dict[str, Any]:
    """Return what a load saw: requests, failures, answers by version, latencies in milliseconds."""
    latencies = [seconds for load in loads for seconds in load.latencies]
    versions = sum((load.versions for load in loads), Counter[str]())
    outcomes = sum((load.outcomes for load in loads), Counter[str]())
    return {
        "requests": outcomes.total(),
        "failed": outcomes.total() - outcomes["200"],
        "outcomes": dict(outcomes),
        "versions": dict(versions),
        "p50_ms": round(percentile(latencies, 0.5) * 1000, 2),
        "p99_ms": round(percentile(latencies, 0.99) * 1000, 2),
    }


def show(report: Report, screen: Screen) -> None:
    """Print the timings, the addresses and lines to paste."""
    screen.act("Timings")
    for step in report.steps:
        mark = "✓" if step.ok else "✗"
        # Of what the name tells, not of the load around it.
        seconds = next((step.facts[name] for name in MEASURED if name in step.facts), step.seconds)
        screen.plain(f"  {mark} {step.name:<58} {seconds:8.2f} s")
    if report.first_answer_seconds is not None:
        screen.plain(f"    first answer of a model, after the set-up: {report.first_answer_seconds:26.2f} s")
    if report.urls:
        screen.act("Look around")
        for name, url in report.urls.items():
            screen.plain(f"  {name:<24} {url}")
