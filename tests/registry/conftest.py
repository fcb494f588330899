"""Real git repositories in temporary folders."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from longshore.registry.repositories.git import Git
from longshore.schemas.policies import RepositoryPolicy

FOLDERS_TOO = RepositoryPolicy(repository_schemes=("https", "http", "file"))
"""The default policy allows no repository of these tests."""


class Remote:
    """A bare repository that is pushed to from one work tree, as a git host and an operator would."""

    def __init__(self, folder: Path) -> None:
        self.bare = folder / "remote.git"
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        self._run("init", "-q", "--bare", "-b", "main", str(self.bare), cwd=folder)
        self._run("init", "-q", "-b", "main", ".")
        self._run("remote", "add", "origin", str(self.bare))

    @property
    def url(self) -> str:
        return self.bare.as_uri()

    def _run(self, *args: str, cwd: Path | None = None, stdin: str | None = None) -> str:
        identity = ("-c", "user.name=Olga Ops", "-c", "user.email=olga@acme.com", "-c", "commit.gpgsign=false")
        command = ["git", *identity, *args]
        done = subprocess.run(command, cwd=cwd or self.work, input=stdin, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def git(self, *args: str) -> str:
        return self._run(*args)

    def write(self, files: Mapping[str, str | None]) -> None:
        """Write files into the work tree; None removes one."""
        for path, text in files.items():
            file = self.work / path
            if text is None:
                file.unlink()
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)

    def commit(self, files: Mapping[str, str | None], message: str = "change", *, tag: str | None = None) -> str:
        """Commit files on the current branch and push everything; return the commit's id."""
        self.write(files)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        if tag:
            self.git("tag", tag)
        self.push()
        return self.git("rev-parse", "HEAD")

    def push(self, *options: str) -> None:
        self.git("push", "-q", *options, "origin", "--all")
        self.git("push", "-q", *options, "origin", "--tags")

    def in_bare(self, *args: str, stdin: str | None = None) -> str:
        return self._run(*args, cwd=self.bare, stdin=stdin)

    def tree(self, rev: str = "main") -> list[str]:
        return self.in_bare("ls-tree", "-r", "--name-only", rev).splitlines()

    def show(self, path: str, rev: str = "main") -> str:
        return self.in_bare("show", f"{rev}:{path}")

    def head(self) -> str:
        return self.in_bare("rev-parse", "main")


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "registry")


@pytest.fixture
def new_remote(tmp_path: Path):
    """Return a function that makes a further remote of the given name."""
    return lambda name: Remote(tmp_path / name)


@pytest.fixture
def git(tmp_path: Path) -> Git:
    return Git(tmp_path / "cache", FOLDERS_TOO)


CARD = """\
schemaVersion: "3.0.0"
metadata:
  name: sentiment-analysis
  version: 1.0.0
  description: Sentiment of short texts
  owner: ml-team@acme.com
runtime:
  framework: custom
  framework_version: 3.3.2
  python_version: 3.10
  dependencies: [vaderSentiment==3.3.2]
artifacts:
  storage_type: s3
  model_path: s3://models/sentiment/1.0.0/lexicon.json
  checksum: {checksum}
code:
  repository: {url}
  path: src/
  ref: v1.0.0
  entrypoint: src.model
preprocessing: {{module: src.preprocessing, function: clean}}
postprocessing: {{module: src.postprocessing, function: label}}
interface:
  input_schema: {{type: object}}
  output_schema: {{type: object}}
resources: {{cpu: 0.5, memory: 512Mi}}
"""

MANIFEST = """\
id: sentiment
model_card_ref:
  repository: {url}
  path: model-card.yaml
  ref: v1.0.0
enabled: true
deployment_config:
  region: us-east-1
  replicas: 1
  priority: 80
  worker_selector:
    pool: production
"""

WORKER = """\
worker_id: worker-a
supported_schema_versions: ["3.0.0"]
capacity: {max_models: 5, max_memory: 16Gi, max_cpu: 8.0}
labels: {pool: production, region: us-east-1}
"""

FOLDERS = {
    f"{folder}/.gitkeep": "" for folder in ("models/production", "models/staging", "transactions", "workers", "errors")
}


def card(url: str, **changes: str) -> str:
    """Return a valid card whose code is in `url`, with each `old=new` text replaced once."""
    text = CARD.format(url=url, checksum="ab" * 32)
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new, 1)
    return text


@pytest.fixture
def make_card():
    return card


@pytest.fixture
def manifest() -> str:
    return MANIFEST.format(url="https://host/model")


@pytest.fixture
def worker() -> str:
    return WORKER


@pytest.fixture
def model(tmp_path: Path) -> Remote:
    """A model repository with one released version, v1.0.0."""
    repository = Remote(tmp_path / "model")
    repository.commit({"model-card.yaml": card(repository.url), "src/model.py": ""}, "release", tag="v1.0.0")
    return repository


@pytest.fixture
def valid(model: Remote) -> dict[str, str]:
    """The files of a valid registry with one deployment and one worker."""
    return {
        **FOLDERS,
        "README.md": "A registry.\n",
        "models/production/sentiment.yaml": MANIFEST.format(url=model.url),
        "workers/worker-a.yaml": WORKER,
    }
