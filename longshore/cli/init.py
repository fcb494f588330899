"""`longshore init`: skeletons of the two kinds of repository, valid from the first minute."""

from __future__ import annotations

import hashlib
import re
import sys
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer

from longshore.cli import exits
from longshore.schemas.patterns import EMAIL, NAME, REGION, URI, WORKER_ID

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Write the skeleton of a registry or of a model.")

Folder = Annotated[Path, typer.Argument(help="Folder to write into: new, or empty but for .git.")]

# Every file of a skeleton has this suffix, so that no tool takes it for one of ours.
_SUFFIX = ".template"

# Users and teams as GitHub, GitLab and Gitea all write them in CODEOWNERS.
_OWNER = "@[A-Za-z0-9][A-Za-z0-9_./-]*"
_OWNERS = f"{_OWNER}( {_OWNER})*"


@app.command()
def registry(
    folder: Folder,
    worker: Annotated[str, typer.Option(help="Id of the first worker.")] = "worker-local",
    region: Annotated[str, typer.Option(help="Region of the first worker.")] = "us-east-1",
    owners: Annotated[str, typer.Option(help="Who must agree to changes, as in CODEOWNERS.")] = "@your-org/ops",
) -> None:
    """Write a registry with one worker and no deployment."""
    values = {"worker": worker, "region": region, "owners": owners}
    _write("registry", folder, values, {"worker": WORKER_ID, "region": REGION, "owners": _OWNERS})
    typer.echo(
        f"Wrote a registry to {folder}. Next:\n"
        f"  longshore validate {folder}\n"
        f"  cd {folder} && git init -b main && git add . && git commit -m 'Start the registry'\n"
        "README.md says how to deploy a model."
    )


@app.command()
def model(
    folder: Folder,
    name: Annotated[str | None, typer.Option(help="Name of the model (default: the folder's).")] = None,
    owner: Annotated[str, typer.Option(help="E-mail address of the team.")] = "ml-team@example.com",
    repository: Annotated[str | None, typer.Option(help="URL of the repository (default: the folder's own).")] = None,
) -> None:
    """Write a model that runs as it is: a card, its code, its tests, its weights."""
    values = {
        "name": name or _as_name(folder.resolve().name),
        "owner": owner,
        "repository": repository or folder.resolve().as_uri(),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
    }
    weights = _template("model").joinpath("weights", f"model.json{_SUFFIX}").read_bytes()
    values |= {"checksum": hashlib.sha256(weights).hexdigest(), "size": str(len(weights))}
    _write("model", folder, values, {"name": NAME, "owner": EMAIL, "repository": URI})
    typer.echo(
        f"Wrote the model {values['name']} to {folder}. Next:\n"
        f"  longshore validate {folder}\n"
        f"  cd {folder} && git init -b main && git add . && git commit -m 'First version' && git tag v0.1.0\n"
        "README.md says where the weights go and how to release the next version."
    )
    if repository is None:
        typer.echo(
            "Its card names this folder as its repository, which a broker takes with --repository-schemes file only:\n"
            "set code.repository to the URL to which you push it."
        )


def _as_name(folder: str) -> str:
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in folder.lower())
    return kept.strip("-") or "model"


def _template(kind: str) -> Traversable:
    return resources.files("longshore.cli").joinpath("skeletons", kind)


def _write(kind: str, folder: Path, values: dict[str, str], patterns: dict[str, str]) -> None:
    for name, pattern in patterns.items():
        if not re.fullmatch(pattern, values[name]):
            typer.echo(f"error: the {name} {values[name]!r} does not match {pattern}: nothing was written", err=True)
            raise typer.Exit(exits.USAGE)
    if folder.exists() and (not folder.is_dir() or any(entry.name != ".git" for entry in folder.iterdir())):
        typer.echo(f"error: {folder} is there already and not empty: nothing was written", err=True)
        raise typer.Exit(exits.USAGE)
    try:
        _copy(_template(kind), folder, values)
    except OSError as error:
        typer.echo(f"error: cannot write {error.filename}: {error.strerror}", err=True)
        raise typer.Exit(exits.FAILED) from error


def _copy(source: Traversable, target: Path, values: dict[str, str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        name = _filled(entry.name.removesuffix(_SUFFIX), values)
        if entry.is_dir():
            _copy(entry, target / name, values)
        else:
            (target / name).write_text(_filled(entry.read_text("utf-8"), values), "utf-8")


def _filled(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text
