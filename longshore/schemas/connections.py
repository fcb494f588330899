"""The settings by which each of our processes finds Temporal."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class TemporalSettings(BaseModel):
    """What is left open comes from Temporal's own configuration (`TEMPORAL_…` variables and its file)."""

    model_config = ConfigDict(frozen=True)

    temporal: Annotated[
        str | None,
        Field(description="Temporal server as HOST:PORT; without it the Temporal profile's, else localhost:7233."),
    ] = None
    namespace: Annotated[
        str | None, Field(description="Temporal namespace; without it the Temporal profile's, else `default`.")
    ] = None
    temporal_profile: Annotated[
        str | None, Field(description="Profile of Temporal's own configuration file, for TLS and API keys.")
    ] = None
