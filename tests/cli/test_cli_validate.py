"""`longshore validate`: its words, its JSON, its exit codes, and what it reads."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from longshore.cli import exits
from longshore.cli.main import run

MANIFEST = """\
id: hello
model_card_ref:
  repository: {url}
  path: model-card.yaml
  ref: v0.1.0
enabled: true
deployment_config:
  region: us-east-1
  replicas: 1
  priority: 50
  worker_selector: {{pool: staging}}
"""


def git(folder: Path, *args: str) -> str:
    identity = ("-c", "user.name=Olga", "-c", "user.email=olga@acme.com", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, *args], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit_all(folder: Path) -> None:
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "all")


@pytest.fixture
def model(tmp_path, capsys) -> Path:
    """The skeleton of a model, released as v0.1.0."""
    assert run(["init", "model", str(tmp_path / "hello")]) == exits.OK
    commit_all(tmp_path / "hello")
    git(tmp_path / "hello", "tag", "v0.1.0")
    capsys.readouterr()
    return tmp_path / "hello"


@pytest.fixture
def registry(tmp_path, model, capsys) -> Path:
    """The skeleton of a registry, with the model deployed."""
    assert run(["init", "registry", str(tmp_path / "registry")]) == exits.OK
    (tmp_path / "registry/models/staging/hello.yaml").write_text(MANIFEST.format(url=model.as_uri()))
    commit_all(tmp_path / "registry")
    capsys.readouterr()
    return tmp_path / "registry"


def test_both_skeletons_are_valid_together(registry, model, capsys):
    """What `init` writes, `validate` accepts, cards fetched from the repository that the manifest names."""
    assert run(["validate", str(registry)]) == exits.OK
    assert capsys.readouterr().out == "The registry is valid: 1 deployment, 1 worker.\n"
    assert run(["validate", str(model)]) == exits.OK
    assert run(["validate", str(model), "--rev", "v0.1.0"]) == exits.OK


def test_findings_are_told_by_file_with_line_and_remedy(registry, capsys):
    """Every error at once, in the words of the golden text."""
    manifest = registry / "models/staging/hello.yaml"
    manifest.write_text(manifest.read_text().replace("v0.1.0", "main").replace("enabled", "enbaled"))
    (registry / "errors/.gitkeep").unlink()
    assert run(["validate", str(registry)]) == exits.FAILED
    assert capsys.readouterr().out == GOLDEN


def test_json_has_the_same_facts(registry, capsys):
    """One document with every issue and its remedy."""
    manifest = registry / "models/staging/hello.yaml"
    manifest.write_text(manifest.read_text().replace("v0.1.0", "main"))
    assert run(["validate", str(registry), "--json"]) == exits.FAILED
    document = json.loads(capsys.readouterr().out)
    assert (document["what"], document["valid"], document["errors"], document["commit"]) == ("registry", False, 1, None)
    (issue,) = document["issues"]
    assert (issue["code"], issue["line"], issue["place"]) == ("REF_UNPINNED", 5, "model_card_ref.ref")
    assert issue["remedy"] == "Pin a tag vX.Y.Z or a commit id; branches are not accepted."


def test_a_revision_is_judged_as_it_was(registry, capsys):
    """What lies in the folder does not matter with --rev; a bare repository is read at HEAD."""
    (registry / "models/staging/hello.yaml").write_text("not: a manifest\n")
    assert run(["validate", str(registry)]) == exits.FAILED
    assert run(["validate", str(registry), "--rev", "HEAD"]) == exits.OK
    capsys.readouterr()
    assert run(["validate", str(registry), "--rev", "main", "--json"]) == exits.OK
    assert json.loads(capsys.readouterr().out)["commit"] == git(registry, "rev-parse", "HEAD")
    git(registry, "clone", "-q", "--bare", ".", "../bare.git")
    assert run(["validate", str(registry.parent / "bare.git")]) == exits.OK


def test_only_what_git_would_take_counts(registry, capsys):
    """An ignored file deploys nothing, and an empty folder would not arrive."""
    (registry / ".gitignore").write_text("*.draft.yaml\n")
    (registry / "models/staging/x.draft.yaml").write_text("nonsense")
    assert run(["validate", str(registry)]) == exits.OK
    (registry / "errors/.gitkeep").unlink()
    assert (registry / "errors").is_dir()
    assert run(["validate", str(registry)]) == exits.FAILED
    assert "the folder errors is missing" in capsys.readouterr().out


def test_a_registry_may_be_a_folder_of_a_larger_repository(registry, tmp_path):
    """In a work tree and at a revision alike."""
    large = tmp_path / "large"
    large.mkdir()
    registry.rename(large / "ops")
    shutil.rmtree(large / "ops/.git")
    commit_all(large)
    assert run(["validate", str(large / "ops")]) == exits.OK
    assert run(["validate", str(large / "ops"), "--rev", "HEAD"]) == exits.OK


@pytest.mark.parametrize("args", [["nowhere"], ["file"], [".", "--rev", "HEAD"]])
def test_an_unusable_path_has_a_code_of_its_own(tmp_path, monkeypatch, capsys, args):
    """2, and a sentence on stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert run(["validate", *args]) == exits.USAGE
    assert capsys.readouterr().err.startswith("error: ")


def test_an_absent_revision_is_named(registry, capsys):
    """2: nothing was checked."""
    assert run(["validate", str(registry), "--rev", "v7"]) == exits.USAGE
    assert capsys.readouterr().err == "error: there is no revision v7\n"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("entrypoint: src.model", "entrypoint: src.modle", "ENTRYPOINT_INVALID (line 21, code.entrypoint)"),
        ("module: src.preprocessing", "module: src.prep", "PROCESSING_INVALID (line 23, preprocessing.module)"),
        ("path: src/", "path: code/", "CODE_PATH_INVALID (line 19, code.path)"),
        ("ref: v0.1.0", "ref: v0.2.0", "CARD_TAG_MISMATCH (line 20, code.ref)"),
        ("framework: custom", "framework: cobol", "CARD_INVALID (line 8, runtime.framework)"),
    ],
)
def test_a_model_is_checked_before_anyone_deploys_it(model, capsys, old, new, expected):
    """The card by its schema, and the modules that it names against the files that there are."""
    card = model / "model-card.yaml"
    assert old in card.read_text()
    card.write_text(card.read_text().replace(old, new))
    assert run(["validate", str(model)]) == exits.FAILED
    assert f"  error {expected}\n" in capsys.readouterr().out


def test_a_model_is_checked_against_its_tag(model, capsys):
    """A tag that does not fit the card is found before it is pushed."""
    git(model, "tag", "v0.2.0")
    assert run(["validate", str(model), "--rev", "v0.2.0"]) == exits.FAILED
    assert "metadata.version is 0.1.0, but the card was found under the tag v0.2.0" in capsys.readouterr().out


GOLDEN = """\
errors
  error STRUCTURE_INVALID
    the folder errors is missing
    → Create the folder (a .gitkeep keeps it), or start from `longshore init registry`.

models/staging/hello.yaml
  error MANIFEST_INVALID (line 1)
    enabled is missing
    → Mend the manifest: docs/registry.md lists the fields.
  error REF_UNPINNED (line 5, model_card_ref.ref)
    'main' is neither a tag vX.Y.Z nor a commit id of 7 to 40 hexadecimal digits
    → Pin a tag vX.Y.Z or a commit id; branches are not accepted.
  error UNKNOWN_FIELD (line 6, enbaled)
    enbaled is no field here: did you mean enabled?
    → Remove the field or correct its spelling.

The registry is invalid (4 errors).
"""
