"""Texts for samples: one that matches a pattern, one of a format. What is not understood gives None, never a guess."""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from random import Random

# RFC 3339, 5321, 3986, 4122 and so on: one well-formed text for each format of JSON Schema 2020-12.
FORMATS = {
    "date-time": "2025-01-31T12:00:00Z",
    "date": "2025-01-31",
    "time": "12:00:00Z",
    "duration": "P1D",
    "email": "sample@example.com",
    "idn-email": "sample@example.com",
    "hostname": "example.com",
    "idn-hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/sample",
    "uri-reference": "/sample",
    "iri": "https://example.com/sample",
    "iri-reference": "/sample",
    "uri-template": "/sample/{id}",
    "uuid": "6fa459ea-ee8a-4ca4-894e-db77e160355e",
    "json-pointer": "/sample",
    "relative-json-pointer": "0/sample",
    "regex": "^sample$",
}

# Repetitions beyond the least, when a sample varies; and the most that a sample is made for.
_EXTRA_REPEATS = 3
_MOST_REPEATS = 10_000

_CLASSES = {"d": string.digits, "w": string.ascii_lowercase + string.digits + "_", "s": " "}
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "0": "\0"}
_PRINTABLE = string.ascii_lowercase + string.ascii_uppercase + string.digits + string.punctuation + " "


class _NotUnderstoodError(Exception):
    """The pattern uses something that is not among: literals, classes, groups, `|`, and repetitions."""


def matching(pattern: str, random: Random, *, least: bool) -> str | None:
    """Return a text that `pattern` (ECMA-262) should match; None if the pattern is not understood.

    `least`: repeat as seldom as allowed. Whether the text does match is for the caller to verify.
    """
    reader = _Reader(pattern, random, least=least)
    try:
        text = reader.alternatives()
    except (_NotUnderstoodError, RecursionError):
        return None
    return None if reader.rest else text


@dataclass
class _Reader:
    """Reads a pattern from left to right, and writes while it reads."""

    pattern: str
    random: Random
    least: bool
    position: int = field(default=0)

    @property
    def rest(self) -> str:
        return self.pattern[self.position :]

    def alternatives(self) -> str:
        found = [self._sequence()]
        while self.rest.startswith("|"):
            self.position += 1
            found.append(self._sequence())
        return found[0] if self.least else self.random.choice(found)

    def _next(self) -> str:
        if not self.rest:
            raise _NotUnderstoodError
        self.position += 1
        return self.pattern[self.position - 1]

    def _sequence(self) -> str:
        parts = []
        while self.rest and self.rest[0] not in "|)":
            if self.rest[0] in "^$":
                self.position += 1
                continue
            start = self.position
            text = self._atom()
            count = self._repetitions()
            after = self.position
            parts += [text] if count else []
            for _ in range(count - 1):
                # Read the atom anew, so that `[ab]{3}` is not always one letter three times.
                self.position = start
                parts.append(self._atom())
            self.position = after
        return "".join(parts)

    def _atom(self) -> str:
        character = self._next()
        if character == "(":
            return self._group()
        if character == "[":
            return self.random.choice(self._class())
        if character == "\\":
            return self.random.choice(self._escaped())
        if character == ".":
            return self.random.choice(string.ascii_lowercase)
        if character in "*+?{":
            raise _NotUnderstoodError
        return character

    def _group(self) -> str:
        if self.rest.startswith("?:"):
            self.position += 2
        elif self.rest.startswith("?"):
            raise _NotUnderstoodError
        text = self.alternatives()
        if self._next() != ")":
            raise _NotUnderstoodError
        return text

    def _escaped(self) -> str:
        """Return the characters that an escape stands for."""
        character = self._next()
        if character in _CLASSES:
            return _CLASSES[character]
        if character in _ESCAPES:
            return _ESCAPES[character]
        if character.isalnum():
            raise _NotUnderstoodError
        return character

    def _class(self) -> str:
        """Return the characters of a class whose `[` has been read, those first that people write."""
        negated = self.rest.startswith("^")
        self.position += negated
        members = ""
        while (character := self._next()) != "]":
            first = self._escaped() if character == "\\" else character
            if self.rest.startswith("-") and not self.rest.startswith("-]"):
                self._next()
                last = self._next()
                last = self._escaped() if last == "\\" else last
                if len(first) > 1 or len(last) > 1 or ord(first) > ord(last):
                    raise _NotUnderstoodError
                members += "".join(map(chr, range(ord(first), min(ord(last), ord(first) + 255) + 1)))
            else:
                members += first
        chosen = "".join(c for c in _PRINTABLE if c not in members) if negated else members
        if not chosen:
            raise _NotUnderstoodError
        return chosen

    def _repetitions(self) -> int:
        low, high = self._bounds()
        if self.rest.startswith("?"):  # lazy: the same texts
            self.position += 1
        if low > _MOST_REPEATS:
            raise _NotUnderstoodError
        most = low + _EXTRA_REPEATS
        return low if self.least else self.random.randint(low, most if high is None else min(most, high))

    def _bounds(self) -> tuple[int, int | None]:
        symbol = self.rest[:1]
        if symbol in ("*", "+", "?"):
            self.position += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[symbol]
        if symbol != "{":
            return 1, 1
        text, closed, _ = self.rest[1:].partition("}")
        low, comma, high = text.partition(",")
        if not closed or not low.isdecimal() or not (high.isdecimal() or not high):
            raise _NotUnderstoodError
        self.position += len(text) + 2
        if not comma:
            return int(low), int(low)
        return int(low), int(high) if high else None
