"""One finding of the registry's validation, as an operator reads it (PRD §5.1)."""

from __future__ import annotations

from enum import StrEnum

from longshore.schemas.base import Message
from longshore.schemas.failures import FAILURES


class Severity(StrEnum):
    """Only an ERROR rejects a commit."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"
    """What was not checked, and because of which error."""


class Audience(StrEnum):
    """Who is told (PRD §5.1 "Validation Results")."""

    OPS = "ops"
    ML = "ml"


class Issue(Message):
    code: str
    severity: Severity = Severity.ERROR
    file: str
    """Path in the registry; for a card `<repository>@<ref>:<path>`; `` for the commit as a whole."""
    place: str = ""
    """Where in the document: `deployment_config.replicas`, `` for the whole file."""
    line: int | None = None
    """1-based line in `file`."""
    message: str
    told: tuple[Audience, ...] = (Audience.OPS,)
    """The ML team too where a model card is at fault."""

    @property
    def remedy(self) -> str:
        return FAILURES[self.code].remedy

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        at = f" ({self.place})" if self.place else ""
        return ": ".join(filter(None, [f"{where}{at}", self.code, self.message]))
