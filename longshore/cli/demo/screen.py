"""What the person who watches sees: lines with the time since the start, and bars while something is under way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

INDENT = " " * 11  # the width of the time


class Screen:
    """Each line is printed when its event is seen, never before."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._began = time.monotonic()
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    @property
    def seconds(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._began

    def act(self, title: str) -> None:
        self.console.print(f"\n[bold]{escape(title)}[/bold]")

    def say(self, text: str) -> None:
        """Print a line with its time; further lines of `text` stand under the first."""
        first, *more = text.splitlines() or [""]
        self.console.print(f"[dim]{self.seconds:8.2f} s[/dim] {escape(first)}")
        for line in more:
            self.console.print(f"{INDENT}{escape(line)}")

    def good(self, text: str) -> None:
        self.say(f"✓ {text}")

    def bad(self, text: str) -> None:
        self.say(f"✗ {text}")

    def plain(self, text: str = "") -> None:
        """Print lines without a time, such as what can be pasted."""
        self.console.print(escape(text))

    @contextmanager
    def bars(self) -> Iterator[None]:
        """Show bars under the lines for as long as the block runs; on something else than a terminal show none."""
        columns = (TextColumn(INDENT + "{task.description:<40}"), BarColumn(30), TextColumn("{task.fields[note]}"))
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bars:
            self._bars = bars
            try:
                yield
            finally:
                self._bars = None
                self._tasks.clear()

    def bar(self, name: str, share: float | None, note: str) -> None:
        """Set the bar `name` to `share` (0 to 1; None where no one can say)."""
        if self._bars is None:
            return
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=None, note=note)
        total = None if share is None else 1.0
        self._bars.update(self._tasks[name], total=total, completed=share or 0.0, note=escape(note))
