"""What a registry may refer to: the settings that every process shares which reads one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from longshore.schemas.patterns import MEMORY
from longshore.schemas.quantities import parse_memory

Scheme = Literal["https", "ssh", "http", "git", "file"]
"""What may be allowed at all: `ext` and `fd` would run programs (FAULTS 36)."""


class RepositoryPolicy(BaseModel):
    """Which repositories manifests and cards may name, and how much is fetched of one (FAULTS 36, 40)."""

    model_config = ConfigDict(frozen=True)

    repository_schemes: Annotated[
        tuple[Scheme, ...], Field(description="URL schemes that manifests and cards may name.")
    ] = ("https", "ssh")
    repository_hosts: Annotated[
        tuple[str, ...], Field(description="Git hosts that they may name; without any, every host.")
    ] = ()
    repository_max_size: Annotated[
        str, Field(pattern=MEMORY, description="Most that is fetched of one repository at once.")
    ] = "1Gi"

    @property
    def max_bytes(self) -> int:
        return parse_memory(self.repository_max_size)
