"""Real git repositories for the tests: model repositories with tagged versions, and a registry."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

_GIT_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Olga Ops",
    "GIT_AUTHOR_EMAIL": "olga@example.com",
    "GIT_COMMITTER_NAME": "Olga Ops",
    "GIT_COMMITTER_EMAIL": "olga@example.com",
}

# One source for all versions; what tells them apart is in the artifact: {"factor", "load_seconds", "broken"}.
_MODEL = """
    import json
    import time

    class Model:
        def __init__(self, settings):
            self.settings = settings

        def predict(self, batch):
            time.sleep(self.settings.get("predict_seconds", 0))
            return [value * self.settings["factor"] for value in batch]


    def load(artifacts, config):
        settings = json.loads((artifacts / "model.json").read_text())
        time.sleep(settings.get("load_seconds", 0))
        if settings.get("broken"):
            raise RuntimeError("this version cannot load")
        return Model(settings)
"""
_PREPROCESSING = """
    def to_number(value, config):
        return value["x"]
"""
_POSTPROCESSING = """
    def to_answer(value, config):
        return {"y": value}
"""


def git(directory: Path, *arguments: str) -> str:
    """Run git in `directory` and return what it printed."""
    done = subprocess.run(
        ["git", *arguments], cwd=directory, env=_GIT_ENVIRONMENT, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def dump_yaml(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        YAML(typ="safe", pure=True).dump(document, stream)


class ModelRepository:
    """A model that multiplies: version vX.Y.Z answers `{"y": x * factor}`."""

    def __init__(self, root: Path, artifacts: Path, artifacts_url: str, name: str = "multiplier") -> None:
        self.name = name
        self.directory = root / f"{name}-model"
        self.artifacts = artifacts
        self.artifacts_url = artifacts_url
        self.directory.mkdir(parents=True)
        git(self.directory, "init", "-q", "-b", "main")
        for file, source in {
            "src/__init__.py": "",
            "src/model.py": _MODEL,
            "src/preprocessing.py": _PREPROCESSING,
            "src/postprocessing.py": _POSTPROCESSING,
        }.items():
            path = self.directory / file
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(source).lstrip())

    @property
    def url(self) -> str:
        return self.directory.as_uri()

    def release(
        self, version: str, *, card: dict[str, Any] | None = None, checksum: str | None = None, **artifact: Any
    ) -> str:
        """Commit and tag `version`; `card` overrides top-level blocks, `artifact` goes into the artifact file."""
        content = json.dumps({"factor": 1, **artifact}, sort_keys=True).encode()
        stored = self.artifacts / self.name / version / "model.json"
        stored.parent.mkdir(parents=True)
        stored.write_bytes(content)
        document = {
            "schemaVersion": "3.0.0",
            "metadata": {
                "name": self.name,
                "version": version,
                "description": "Multiplies a number by a factor",
                "owner": "mia@example.com",
            },
            "runtime": {
                "framework": "custom",
                "framework_version": "1.0",
                "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
                "dependencies": [],
            },
            "artifacts": {
                "storage_type": "http",
                "model_path": f"{self.artifacts_url}/{self.name}/{version}/model.json",
                "checksum": checksum or hashlib.sha256(content).hexdigest(),
                "size_bytes": len(content),
            },
            "code": {"repository": self.url, "path": "src/", "ref": f"v{version}", "entrypoint": "src.model"},
            "preprocessing": {"module": "src.preprocessing", "function": "to_number"},
            "postprocessing": {"module": "src.postprocessing", "function": "to_answer"},
            "interface": {
                "input_schema": {
                    "type": "object",
                    "required": ["x"],
                    "properties": {"x": {"type": "number", "examples": [3]}},
                    "additionalProperties": False,
                },
                "output_schema": {"type": "object", "required": ["y"], "properties": {"y": {"type": "number"}}},
                "batch_size": 8,
            },
            "resources": {"cpu": 0.1, "memory": "128Mi"},
            **(card or {}),
        }
        dump_yaml(self.directory / "model-card.yaml", document)
        git(self.directory, "add", "-A")
        git(self.directory, "commit", "-q", "--allow-empty", "-m", f"Release {version}")
        git(self.directory, "tag", f"v{version}")
        return git(self.directory, "rev-parse", "HEAD")


class Registry:
    """A bare registry repository and an operator's clone of it."""

    def __init__(self, root: Path, name: str = "registry") -> None:
        self.bare = root / f"{name}.git"
        self.clone = root / f"{name}-clone"
        git(root, "init", "-q", "--bare", "-b", "main", str(self.bare))
        git(root, "clone", "-q", str(self.bare), str(self.clone))
        git(self.clone, "checkout", "-q", "-b", "main")
        for folder in ("models/production", "models/staging", "transactions", "workers", "errors"):
            (self.clone / folder).mkdir(parents=True)
            (self.clone / folder / ".gitkeep").touch()

    @property
    def url(self) -> str:
        return self.bare.as_uri()

    def worker(self, worker_id: str, **capacity: Any) -> Path:
        """Write a worker's configuration and return its path in the clone."""
        path = self.clone / "workers" / f"{worker_id}.yaml"
        dump_yaml(
            path,
            {
                "worker_id": worker_id,
                "supported_schema_versions": ["3.0.0"],
                "capacity": {"max_models": 8, "max_memory": "4Gi", "max_cpu": 4.0, **capacity},
                "labels": {"pool": "production", "region": "us-east-1"},
            },
        )
        return path

    def deployment(
        self,
        deployment_id: str,
        model: ModelRepository,
        version: str,
        *,
        replicas: int = 1,
        enabled: bool = True,
        **config: Any,
    ) -> None:
        """Write a deployment's manifest."""
        dump_yaml(
            self.clone / "models" / "production" / f"{deployment_id}.yaml",
            {
                "id": deployment_id,
                "model_card_ref": {"repository": model.url, "path": "model-card.yaml", "ref": f"v{version}"},
                "enabled": enabled,
                "deployment_config": {
                    "region": "us-east-1",
                    "replicas": replicas,
                    "priority": 50,
                    "worker_selector": {"pool": "production"},
                    **config,
                },
            },
        )

    def push(self, message: str) -> str:
        """Commit everything, push it on top of whatever the broker has written, and return the commit id."""
        git(self.clone, "add", "-A")
        git(self.clone, "commit", "-q", "--allow-empty", "-m", message)
        while True:
            git(self.clone, "pull", "-q", "--rebase", "origin", "main") if self._has_head() else None
            try:
                git(self.clone, "push", "-q", "origin", "HEAD:main")
            except subprocess.CalledProcessError:
                continue  # the broker's state commit came in between
            return git(self.clone, "rev-parse", "HEAD")

    def rewrite(self, message: str) -> str:
        """Force the branch to one new commit without any parent that holds what the clone holds; return its id."""
        git(self.clone, "add", "-A")
        sha = git(self.clone, "commit-tree", git(self.clone, "write-tree"), "-m", message)
        git(self.clone, "reset", "-q", "--hard", sha)
        git(self.clone, "push", "-q", "--force", "origin", "HEAD:main")
        return sha

    def pull(self) -> Path:
        """Bring the clone up to the branch head, the broker's commits included, and return it."""
        git(self.clone, "pull", "-q", "--rebase", "origin", "main")
        return self.clone

    def _has_head(self) -> bool:
        return bool(git(self.clone, "ls-remote", "origin", "refs/heads/main"))
