"""What the demo works on, made from `examples/`: two model repositories, their artifacts, and a registry."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

from ruamel.yaml import YAML

from longshore.cli.demo.git import Repository
from longshore.cli.demo.processes import DemoFailed
from longshore.cli.demo.training import Trainer

EXAMPLES = Path(__file__).parents[3] / "examples"
MODELS = ("sentiment-analysis", "digits")
VERSIONS = ("1.0.0", "1.1.0")
ML, OPS = "Mila Modeler", "Olga Ops"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def examples() -> Path:
    """Return the folder of the templates. Raises DemoFailed where Longshore was installed without them."""
    if not EXAMPLES.is_dir():
        raise DemoFailed("the demo's templates are not here: run it from a checkout, as `python3 dev.py demo`")
    return EXAMPLES


async def release(
    model: str, version: str, repository: Repository, bucket_url: str, trainer: Trainer
) -> dict[str, bytes]:
    """Commit and tag one version of an example model; return what its card wants in the bucket, by key."""
    lay_out(examples() / model, version, repository.clone)
    content = await trainer.artifact(repository.clone)
    card = repository.clone / "model-card.yaml"
    fill_in(
        card,
        version=version,
        python_version=PYTHON,
        repository=repository.url,
        bucket=bucket_url,
        checksum=hashlib.sha256(content).hexdigest(),
        size_bytes=str(len(content)),
    )
    places = load_yaml(card)["artifacts"]
    config = (repository.clone / "config" / "model-config.json").read_bytes()
    repository.commit(f"Release v{version}")
    repository.tag(f"v{version}")
    return {_key(places["model_path"]): content, _key(places["config_path"]): config}


def lay_out(example: Path, version: str, target: Path) -> None:
    """Copy an example into `target`, with what `releases/<version>/` changes in it."""
    shutil.copytree(example, target, ignore=_LITTER, dirs_exist_ok=True)
    changed = example / "releases" / version
    if changed.is_dir():
        shutil.copytree(changed, target, dirs_exist_ok=True)


def fill_in(file: Path, **words: str) -> None:
    """Replace `${word}` in a template. Raises KeyError for a word that is not given."""
    file.write_text(Template(file.read_text()).substitute(words))


def load_yaml(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = YAML(typ="safe", pure=True).load(file)
    return document


class Registry:
    """The registry repository and the clone of the person who operates it."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self._good = ""

    def create(self, urls: dict[str, str]) -> str:
        """Lay out the registry with its devices and no deployment yet; return the first commit."""
        self.repository.create()
        self._urls = {name.replace("-", "_"): url for name, url in urls.items()}
        shutil.copytree(examples() / "registry", self.repository.clone, ignore=_LITTER, dirs_exist_ok=True)
        for manifest in self.manifests():
            manifest.unlink()
        (self.repository.clone / "models" / "production" / ".gitkeep").touch()
        self.repository.commit("Three devices, nothing deployed yet")
        return self.repository.push()

    def manifests(self) -> list[Path]:
        return sorted((self.repository.clone / "models").glob("*/*.yaml"))

    def workers(self) -> list[Path]:
        return sorted((self.repository.clone / "workers").glob("*.yaml"))

    def deploy(self) -> str:
        """Push every manifest of the template."""
        production = self.repository.clone / "models" / "production"
        for template in sorted((examples() / "registry" / "models" / "production").glob("*.yaml")):
            manifest = production / template.name
            shutil.copyfile(template, manifest)
            fill_in(manifest, **self._urls)
        return self._push("Deploy sentiment 1.0.0 and digits 1.0.0 to production")

    def edit(self, deployment: str, version: str) -> None:
        """Point a deployment at another version, for the next commit to bring."""
        self._replace(deployment, "ref: v", f"ref: v{version}")

    def pin(self, deployment: str, version: str, message: str) -> str:
        """Point a deployment at another version and push."""
        self.edit(deployment, version)
        return self._push(message)

    def disable(self, deployment: str, message: str) -> str:
        self._replace(deployment, "enabled: ", "enabled: false")
        return self._push(message)

    def blunder(self, message: str) -> str:
        """Push what happens in a hurry: a branch where a tag belongs, and a field misspelt in another manifest."""
        self._good = self.repository.git("rev-parse", "HEAD")
        self._replace("sentiment-prod", "ref: v", "ref: main")
        self._replace("digits-prod", "replicas: ", "replcas: 2")
        return self._push(message)

    def undo(self) -> None:
        """Lay the manifests out as they were before the blunder, for the next commit to bring."""
        self.repository.git("checkout", "--quiet", self._good, "--", "models")

    def errors(self) -> list[str]:
        """Return the error files that the broker has written to git, oldest first."""
        self.repository.git("pull", "--quiet", "--rebase", "origin", "main")
        return sorted(file.name for file in (self.repository.clone / "errors").glob("*.yaml"))

    def history(self) -> list[str]:
        """Return what everyone has committed, the broker's records of results among it, newest first."""
        self.repository.git("pull", "--quiet", "--rebase", "origin", "main")
        results = ("--invert-grep", "--grep=^Longshore: state$")  # the state is recorded at each change
        return self.repository.git("log", "--format=%h  %<(14,trunc)%an  %s", *results).splitlines()

    def _replace(self, deployment: str, start: str, line: str) -> None:
        """Replace the one line that begins with `start`, as a person would: the rest stays as it is."""
        manifest = self.repository.clone / "models" / "production" / f"{deployment}.yaml"
        lines = manifest.read_text().splitlines()
        changed = [
            text[: len(text) - len(text.lstrip())] + line if text.lstrip().startswith(start) else text for text in lines
        ]
        manifest.write_text("\n".join(changed) + "\n")

    def _push(self, message: str) -> str:
        self.repository.commit(message)
        return self.repository.push()


def _key(uri: str) -> str:
    return urlsplit(uri).path.lstrip("/")


_LITTER = shutil.ignore_patterns("__pycache__", ".pytest_cache", "releases")
