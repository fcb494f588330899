"""`transactions/resolved-refs.yaml`: the commit with which each tag was first used (FAULTS 34). Pure.

It lies in git because a broker keeps nothing: a new one, whose cache is empty, must not take a tag that has been moved
for what it was and reload the whole fleet. And git says when an entry came, and with which commit.

The file is YAML with one line per tag, and each line is a JSON object: a diff shows one line per tag, and ten thousand
are read in a tenth of a second. It is read only in the form in which it is written, so that nothing can stand there
that means one thing to a person and another to us.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from pydantic import Field, ValidationError

from longshore.registry.records.state import timestamp
from longshore.schemas.base import Document
from longshore.schemas.issues import Issue
from longshore.schemas.patterns import DATE_TIME, URI
from longshore.schemas.registries import RegistrySnapshot

PINS_FILE = "transactions/resolved-refs.yaml"

Tag = tuple[str, str]
"""A repository's URL, and a tag in it."""

# 40,000 tags: a hundred models with a release a week reach it after eight years.
_MAX_BYTES = 8 * 1024 * 1024

_HEADER = """\
# This file is managed by the broker - DO NOT EDIT MANUALLY
# The commit with which each tag was first used. A tag that leads elsewhere is refused: TAG_MOVED.
"""
_KEY = "resolved_refs:"
_ITEM = "  - "


class Pin(Document):
    repository: Annotated[str, Field(pattern=URI)]
    ref: Annotated[str, Field(pattern=r"^v[0-9]+\.[0-9]+\.[0-9]+$")]
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    first_seen: Annotated[str, Field(pattern=DATE_TIME)]

    @property
    def tag(self) -> Tag:
        return self.repository, self.ref

    @property
    def line(self) -> str:
        return f"{_ITEM}{self.model_dump_json()}"


@dataclass(frozen=True)
class Pins:
    """What the file says. With an issue it is not what the broker wrote, and no commit is judged by it."""

    by_tag: Mapping[Tag, Pin]
    issue: Issue | None = None

    @property
    def commits(self) -> dict[Tag, str]:
        return {tag: pin.commit for tag, pin in self.by_tag.items()}


NO_PINS = Pins({})


def is_tag(ref: str) -> bool:
    """Tell whether a ref of a document is a tag: the only other thing that one may be is a commit id (PRD §3.1)."""
    return ref.startswith("v")


def parse_pins(data: bytes | None) -> Pins:
    """Read the file; None where there is none yet. Never raises for what `data` holds."""
    if data is None:
        return NO_PINS
    if len(data) > _MAX_BYTES:
        return Pins({}, _issue(None, f"it has {len(data):,} bytes, the limit is {_MAX_BYTES:,}"))
    by_tag: dict[Tag, Pin] = {}
    first: Issue | None = None
    begun = False
    for number, line in enumerate(data.decode("utf-8", "replace").removesuffix("\n").split("\n"), 1):
        if line.startswith("#"):
            continue
        if not begun:
            begun = line == _KEY
            fault = None if begun else f"`{_KEY}` must stand here"
        else:
            pin = _pin(line)
            fault = _fault(pin, by_tag)
            if pin is not None:
                by_tag.setdefault(pin.tag, pin)
        if fault is not None and first is None:
            first = _issue(number, fault)
    return Pins(by_tag, first if begun or first else _issue(None, f"`{_KEY}` is missing"))


def merge_pins(known: Mapping[Tag, Pin], fresh: Mapping[Tag, str], now: datetime) -> dict[Tag, Pin]:
    """Add what is fresh; an entry that is there stays as it is, so of two brokers the earlier one is right."""
    added = {
        (repository, ref): Pin(repository=repository, ref=ref, commit=commit, first_seen=timestamp(now))
        for (repository, ref), commit in fresh.items()
    }
    return {**added, **known}


def render_pins(pins: Mapping[Tag, Pin]) -> bytes:
    """Return the content of the file, in order of repository and tag."""
    return "\n".join([f"{_HEADER}{_KEY}", *(pins[tag].line for tag in sorted(pins)), ""]).encode()


def pins_of(snapshot: RegistrySnapshot) -> dict[Tag, str]:
    """Return the tags that an accepted commit uses, each with the commit to which it was resolved."""
    resolved = {}
    for spec in snapshot.specs.values():
        resolved[spec.card_repository, spec.card_ref] = spec.card_commit
        resolved[spec.card.code.repository, spec.card.code.ref] = spec.code_commit
    return {(repository, ref): commit for (repository, ref), commit in resolved.items() if is_tag(ref)}


def _pin(line: str) -> Pin | None:
    try:
        pin = Pin.model_validate_json(line.removeprefix(_ITEM))
    except ValidationError:
        return None
    return pin if pin.line == line else None


def _fault(pin: Pin | None, before: Mapping[Tag, Pin]) -> str | None:
    if pin is None:
        return "this line is not as the broker writes it"
    return f"{pin.repository} {pin.ref} stands here a second time" if pin.tag in before else None


def _issue(line: int | None, message: str) -> Issue:
    return Issue(code="PINS_INVALID", file=PINS_FILE, line=line, message=message)
