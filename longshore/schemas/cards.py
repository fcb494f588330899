"""The model card: what an ML team promises about one version of a model (PRD §3.1)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from longshore.schemas import limits
from longshore.schemas.base import Document, Integer, Omittable
from longshore.schemas.patterns import (
    DATE_TIME,
    DEPENDENCY,
    EMAIL,
    GIT_REF,
    MEMORY,
    MODULE,
    NAME,
    PYTHON_VERSION,
    SEMVER,
    SHA256,
    SYSTEM_PACKAGE,
    URI,
)

Text = Annotated[str, Field(max_length=limits.TEXT)]
Uri = Annotated[str, Field(max_length=limits.URI)]
Dependency = Annotated[str, Field(pattern=DEPENDENCY, max_length=limits.TEXT)]


class Metadata(Document):
    name: Annotated[str, Field(pattern=NAME, max_length=limits.ID)]
    version: Annotated[str, Field(pattern=SEMVER)]
    description: Annotated[str, Field(min_length=10, max_length=limits.DESCRIPTION)]
    owner: Annotated[str, Field(pattern=EMAIL, max_length=limits.EMAIL)]
    tags: Annotated[tuple[Text, ...], Field(max_length=limits.LIST)] = ()
    created_at: Omittable[Annotated[str, Field(pattern=DATE_TIME, max_length=limits.TEXT)]] = None


class Runtime(Document):
    framework: Literal["tensorflow", "pytorch", "sklearn", "xgboost", "onnx", "custom"]
    framework_version: Text
    python_version: Annotated[str, Field(pattern=PYTHON_VERSION)]
    dependencies: Annotated[tuple[Dependency, ...], Field(max_length=limits.DEPENDENCIES)]
    system_packages: Annotated[
        tuple[Annotated[str, Field(pattern=SYSTEM_PACKAGE)], ...], Field(max_length=limits.LIST)
    ] = ()


class Artifacts(Document):
    storage_type: Literal["s3", "gcs", "azure_blob", "http"]
    model_path: Uri
    config_path: Omittable[Uri] = None
    checksum: Omittable[Annotated[str, Field(pattern=SHA256)]] = None
    """SHA-256 of the object at `model_path`, in lower-case hex."""
    size_bytes: Omittable[Annotated[Integer, Field(ge=0, le=limits.BYTES)]] = None


class Code(Document):
    repository: Annotated[str, Field(pattern=URI, max_length=limits.URI)]
    path: Annotated[str, Field(max_length=limits.PATH)]
    ref: Annotated[str, Field(pattern=GIT_REF)]
    entrypoint: Omittable[Annotated[str, Field(pattern=MODULE, max_length=limits.TEXT)]] = None

    @property
    def entrypoint_module(self) -> str:
        """The module with `load()`. Where the card names none: `model` in the folder of `path` (PRD §2.2)."""
        folder = [part for part in self.path.split("/") if part not in ("", ".")]
        return self.entrypoint or ".".join([*folder, "model"])


class Processing(Document):
    """A function `f(value, config)` of the model's code, run before or after `predict`."""

    module: Annotated[str, Field(pattern=MODULE, max_length=limits.TEXT)]
    function: Text
    config: dict[str, Any] = {}


class Interface(Document):
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    batch_size: Annotated[Integer, Field(ge=1, le=1024)] = 1


class Resources(Document):
    """What one replica needs."""

    cpu: Annotated[float, Field(ge=0.1, le=limits.CPU)]
    memory: Annotated[str, Field(pattern=MEMORY)]
    gpu: Annotated[Integer, Field(ge=0, le=limits.GPU)] = 0
    gpu_type: Omittable[Literal["T4", "V100", "A100", "H100"]] = None


SMALL = Resources(cpu=0.1, memory="256Mi")
"""What a card without `resources` counts as: the PRD leaves the block optional, and a replica needs something."""


class ModelCard(Document):
    schemaVersion: Annotated[str, Field(pattern=SEMVER)]  # noqa: N815 (the PRD's spelling)
    metadata: Metadata
    runtime: Runtime
    artifacts: Artifacts
    code: Code
    preprocessing: Processing
    postprocessing: Processing
    interface: Interface
    resources: Resources = SMALL
