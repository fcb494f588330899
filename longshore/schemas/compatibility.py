"""Which worker runs which card: the schema compatibility matrix (PRD §3.4)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from functools import cache

from longshore.schemas.base import Document
from longshore.schemas.documents import packaged_yaml


class SchemaVersion(Document):
    """One row: which card versions a worker that supports this version can run."""

    compatible_with: list[str]
    breaking_changes: list[str]
    features_added: list[str] = []
    deprecated: bool = False
    sunset_date: str | None = None
    """An ISO date, from which on no card that needs this version is accepted."""

    @property
    def sunset(self) -> date | None:
        return date.fromisoformat(self.sunset_date) if self.sunset_date else None


class CompatibilityMatrix(Document):
    compatibility: dict[str, SchemaVersion]
    rules: list[str]

    def runs(self, supported: Collection[str], card_version: str) -> bool:
        """Tell whether a worker that declares `supported` can run a card of `card_version`."""
        return bool(self.running(supported, card_version))

    def running(self, supported: Collection[str], card_version: str) -> frozenset[str]:
        """Return those of `supported` by which a worker runs a card of `card_version`.

        A version that the matrix does not know is compatible with itself only.
        """
        return frozenset(
            version
            for version in supported
            if card_version == version
            or (version in self.compatibility and card_version in self.compatibility[version].compatible_with)
        )

    def deprecation(self, versions: Collection[str]) -> SchemaVersion | None:
        """Return the row of `versions` that is given up last; None where one of them is not deprecated at all."""
        rows = [self.compatibility.get(version) for version in versions]
        deprecated = [row for row in rows if row is not None and row.deprecated]
        if not deprecated or len(deprecated) < len(rows):
            return None
        return max(deprecated, key=lambda row: row.sunset or date.max)


@cache
def matrix() -> CompatibilityMatrix:
    return CompatibilityMatrix.model_validate(packaged_yaml("compatibility-matrix.yaml"))
