"""The worker configuration: one device, what it can hold and how it is labelled (PRD §3.3)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from longshore.schemas import limits
from longshore.schemas.base import Document, Integer, Omittable
from longshore.schemas.patterns import MEMORY, SEMVER, URI, WORKER_ID
from longshore.schemas.quantities import parse_memory

Text = Annotated[str, Field(max_length=limits.TEXT)]


class Capacity(Document):
    max_models: Annotated[Integer, Field(ge=1, le=limits.MODELS)]
    max_memory: Annotated[str, Field(pattern=MEMORY)]
    max_cpu: Annotated[float, Field(ge=0.1, le=limits.CPU)]
    max_gpu: Annotated[Integer, Field(ge=0, le=limits.GPU)] = 0

    @property
    def memory_bytes(self) -> int:
        return parse_memory(self.max_memory)


class Labels(Document):
    """The three labels that the PRD names, and any others, all strings."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    __pydantic_extra__: dict[Text, Text] = Field(init=False)

    pool: Literal["production", "staging", "development"]
    region: Text
    zone: Omittable[Text] = None

    @model_validator(mode="after")
    def _few(self) -> Self:
        if len(self.model_fields_set) > limits.LABELS:
            raise ValueError(f"at most {limits.LABELS} labels")
        return self

    def as_dict(self) -> dict[str, str]:
        return self.model_dump(exclude_none=True)


class EvictionPolicy(Document):
    strategy: Literal["lru", "priority"] = "lru"
    enable_auto_eviction: bool = True


class WorkerConfig(Document):
    worker_id: Annotated[str, Field(pattern=WORKER_ID, max_length=limits.ID)]
    supported_schema_versions: Annotated[
        tuple[Annotated[str, Field(pattern=SEMVER)], ...], Field(min_length=1, max_length=limits.LIST)
    ]
    broker_endpoint: Omittable[Annotated[str, Field(pattern=URI, max_length=limits.URI)]] = None
    capacity: Capacity
    labels: Labels
    eviction_policy: EvictionPolicy = EvictionPolicy()
