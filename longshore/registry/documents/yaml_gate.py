"""What is refused before anything is built from a YAML text: its size, its characters, its directives (FAULTS 26, 27).

Within these limits the slowest text that we know takes 1.0 s of CPU (one tag of 256 KiB), the next one 0.3 s (a text of
131,000 lines), and the largest 70 MiB (empty lines only): no limit on lines or indicators is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ruamel.yaml.error import MarkedYAMLError

from longshore.registry.repositories.entries import MAX_FILE_BYTES

Place = tuple[str | int, ...]
"""The way to a value: keys and indexes from the root."""

# FAULTS 26. The fullest card is 6 deep outside its schemas.
MAX_DEPTH = 32

# Of a key: a name of that length is text in the wrong place, and every finding below it repeats it.
MAX_KEY = 256

# Of the lines with forbidden characters: whoever mends these with an editor mends all.
_MOST_LINES = 20

# A finding is a line for a person.
_LONGEST_MESSAGE = 400

# What no one sees, and what therefore can make a text read otherwise than it is: C0 without tab and line feed, DEL, C1
# with NEL, soft hyphen, marks and overrides of direction, zero widths and joiners, line separators, tags, halves of
# characters and what is no character at all.
_INVISIBLE = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    "\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)

# What stands before the document: empty lines and comments.
_PREFIX = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\n)*")


@dataclass(frozen=True)
class Limits:
    """How large a document may be; keys count as nodes too."""

    max_bytes: int
    max_nodes: int


HAND_WRITTEN = Limits(MAX_FILE_BYTES, 10_000)
"""FAULTS 26. The fullest card has about 200 nodes in 10 KB."""

OUR_OWN = Limits(64 * 1024 * 1024, 2_000_000)
"""The state of 10,000 devices with 10 models each, and a bound all the same: others may write to that repository."""


@dataclass(frozen=True)
class YamlFault:
    """One reason why a text is no document. `line` is 1-based."""

    code: str
    message: str
    line: int | None = None
    place: Place = ()


def shortened(message: str) -> str:
    return message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}…"


def invisible(text: str) -> str | None:
    """Return how the first forbidden character of a value is called, None where there is none."""
    found = _INVISIBLE.search(text)
    return found and f"U+{ord(found[0]):04X}"


def visible(text: str) -> str:
    return _INVISIBLE.sub("", text)


def decoded(data: bytes, limits: Limits, faults: list[YamlFault]) -> str | None:
    """Return the text that may be parsed, None where there is none; what is wrong with it is added to `faults`.

    A forbidden character is a fault and then left out, so that what else is wrong is found as well.
    """
    fault = _refusal(data, limits)
    if fault is not None:
        faults.append(fault)
        return None
    text = data.decode("utf-8").replace("\r\n", "\n")
    faults += _character_faults(text)
    text = visible(text)
    prefix = _PREFIX.match(text)
    if prefix is not None and text.startswith("%", prefix.end()):
        line = text.count("\n", 0, prefix.end()) + 1
        faults.append(YamlFault("YAML_INVALID", "directives (%YAML, %TAG) are not accepted", line))
        return None
    return text


def _refusal(data: bytes, limits: Limits) -> YamlFault | None:
    if len(data) > limits.max_bytes:
        message = f"{len(data)} bytes; a document has at most {limits.max_bytes // 1024} KiB"
        return YamlFault("FILE_TOO_LARGE", message)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:2]:
        return YamlFault("YAML_ENCODING", "not UTF-8 but UTF-16 or UTF-32", 1)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return YamlFault("YAML_ENCODING", f"not UTF-8: byte {error.start} ({error.reason})", line)
    return None


def _character_faults(text: str) -> Iterator[YamlFault]:
    if not _INVISIBLE.search(text):
        return
    lines = 0
    for number, line in enumerate(text.split("\n"), 1):
        if (name := invisible(line)) is not None:
            lines += 1
            if lines > _MOST_LINES:
                return
            what = "a byte order mark" if name == "U+FEFF" and number == 1 else f"the character {name}"
            yield YamlFault("YAML_ENCODING", f"{what} is not accepted: it cannot be seen", number)


def syntax_fault(error: Exception) -> YamlFault:
    """Return what an error of the parser means."""
    if not isinstance(error, MarkedYAMLError):
        # Escapes past the last character of Unicode; what the parser does not name itself has no line.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return YamlFault("YAML_INVALID", shortened(f"cannot be parsed: {reason}"))
    mark = error.problem_mark or error.context_mark
    what = shortened(" ".join(part for part in (error.context, error.problem) if part))
    code = "YAML_INVALID"
    if "character '\\t'" in what:
        code, what = "YAML_ENCODING", "a tab stands where YAML takes only spaces"
    elif "undefined tag handle" in what:
        code = "YAML_TAG_FORBIDDEN"
    return YamlFault(code, what, mark.line + 1 if mark else None)
