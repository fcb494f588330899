"""One runner process: what it serves, and where it leaves its traces.

Each start makes a new instance with an id of its own, never used again: two versions of one deployment, or two tries
of one version, never share a socket, a lock or a name in Envoy.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from longshore.schemas.base import Message
from longshore.schemas.deployments import DeploymentSpec
from longshore.xds.routing import check_socket_path

# Requests that a runner holds at once, waiting or in work; Envoy refuses what is beyond, and so does the runner itself.
# At 1 ms per request the last one waits a second; more would only wait longer.
MAX_REQUESTS = 1024

_OWN_NAME = re.compile(r"([0-9a-f]{10})\.(sock|json|lock|log|words|home)")


def new_instance_id() -> str:
    """Return ten hex digits: 40 bits, so that ids do not repeat within a device's life."""
    return secrets.token_hex(5)


class Instance(Message):
    """What is written into the journal before a runner is spawned, and adopted by its successor."""

    instance_id: str
    deployment_id: str
    generation: int
    spec: DeploymentSpec
    python: str
    """The executable of the model's environment."""
    checkout: str
    artifacts: str
    created_at: datetime

    @property
    def version(self) -> str:
        return self.spec.version

    @property
    def digest(self) -> str:
        return self.spec.digest


class InstanceStore(Protocol):
    """Where instances outlive the daemon: the journal. Each call is durable when it returns."""

    def save(self, instance: Instance) -> None: ...
    def forget(self, instance_id: str) -> None: ...
    def all(self) -> list[Instance]: ...


@dataclass(frozen=True)
class RunPaths:
    """The files of the runners, in one short directory of mode 0700 (DESIGN §5 Bootstrap): names of ≤ 16 characters."""

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", self.root.absolute())  # a runner's working directory is not ours

    def create(self) -> None:
        """Make the directory, for this user alone. Raises LongshoreError SOCKET_PATH_TOO_LONG."""
        check_socket_path(self.socket("0" * 10))
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.chmod(0o700)

    def socket(self, instance_id: str) -> Path:
        return self.root / f"{instance_id}.sock"

    def config(self, instance_id: str) -> Path:
        return self.root / f"{instance_id}.json"

    def lock(self, instance_id: str) -> Path:
        """Held by the runner for as long as it lives; its text is the runner's pid."""
        return self.root / f"{instance_id}.lock"

    def log(self, instance_id: str) -> Path:
        return self.root / f"{instance_id}.log"

    def last_words(self, instance_id: str) -> Path:
        """Why the runner could not start, as JSON `{code, message, traceback}`."""
        return self.root / f"{instance_id}.words"

    def home(self, instance_id: str) -> Path:
        """The runner's HOME and TMPDIR."""
        return self.root / f"{instance_id}.home"

    def of(self, instance_id: str) -> tuple[Path, ...]:
        """Return everything that may lie here of one instance; the lock last, since it says that there is something."""
        return (
            self.socket(instance_id),
            self.config(instance_id),
            self.log(instance_id),
            self.last_words(instance_id),
            self.home(instance_id),
            self.lock(instance_id),
        )

    def present(self) -> set[str]:
        """Return the ids of all instances of which something lies here. Other parts of the host have other names."""
        matches = (_OWN_NAME.fullmatch(entry.name) for entry in self.root.iterdir())
        return {match[1] for match in matches if match}
