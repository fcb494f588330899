"""The line that a finding speaks of, and where in it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from longshore.registry.repositories.git_process import shown

# As YAML counts lines.
_BREAK = re.compile(r"\r\n|[\n\r\x85\u2028\u2029]")

_WIDEST = 120


@dataclass(frozen=True)
class Excerpt:
    """One line of a file; what is meant stands in `text[start:end]`."""

    line: int
    text: str
    start: int
    end: int


def excerpt(data: bytes, line: int, place: str) -> Excerpt | None:
    """Return line `line` (1-based) of `data` as it stands there, or None where there is no such line, or a blank one.

    `place` is the finding's: where the line is not about it, the whole line is meant.
    """
    lines = _BREAK.split(data.decode("utf-8", "replace"))
    if not 0 < line <= len(lines) or not lines[line - 1].strip():
        return None
    return _marked(line, lines[line - 1], place)


def printable(data: bytes, line: int, place: str) -> Excerpt | None:
    """Return the same as it may be shown: without credentials and what would move a cursor, and not too wide."""
    found = excerpt(data, line, place)
    if found is None:
        return None
    found = _marked(line, harmless(shown(found.text)), place)
    left = max(0, min(found.start - _WIDEST // 4, len(found.text) - _WIDEST))
    text = found.text[left : left + _WIDEST]
    return Excerpt(line, text, found.start - left, min(found.end - left, len(text)))


def harmless(text: str) -> str:
    """Return one line of `text` without control or invisible characters: what is shown must be what is there."""
    return "".join(
        letter if letter.isprintable() else " " if letter == "\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _marked(line: int, text: str, place: str) -> Excerpt:
    start, end = _key(text, place) or (len(text) - len(text.lstrip()), len(text.rstrip()))
    return Excerpt(line, text, start, end)


def _key(text: str, place: str) -> tuple[int, int] | None:
    """Return where the last key of `place` stands, with its value if the line has no more than that."""
    key = re.search(r"([^.\[\]]+)$", place)
    if key is None:
        return None
    found = re.search(rf"""(?<![^\s{{,])(["']?){re.escape(key[1])}\1\s*:(?=\s|$)""", text)
    if found is None:
        return None
    if text[: found.start()].strip(" -"):  # inside a flow mapping: other keys stand around it
        return found.start(), found.end() - 1
    value = re.match(r".*?(?=\s+#|\s*$)", text[found.end() :])
    return found.start(), found.end() + (value.end() if value else 0)
