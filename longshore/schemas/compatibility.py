"""Which worker runs which card: the schema compatibility matrix (PRD §3.4)."""

from __future__ import annotations

from collections.abc import Iterable
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


class CompatibilityMatrix(Document):
    compatibility: dict[str, SchemaVersion]
    rules: list[str]

    def runs(self, supported: Iterable[str], card_version: str) -> bool:
        """Tell whether a worker that declares `supported` can run a card of `card_version`.

        A version that the matrix does not know is compatible with itself only.
        """
        return any(
            card_version == version
            or (version in self.compatibility and card_version in self.compatibility[version].compatible_with)
            for version in supported
        )


@cache
def matrix() -> CompatibilityMatrix:
    return CompatibilityMatrix.model_validate(packaged_yaml("compatibility-matrix.yaml"))
