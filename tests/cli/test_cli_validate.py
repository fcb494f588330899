"""`longshore validate`: its words, its JSON, its exit codes, and what it reads."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from longshore.cli import exits
from longshore.cli.main import run
from longshore.registry.records.pins import PINS_FILE, merge_pins, render_pins

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


@pytest.fixture(autouse=True)
def _local_repositories(monkeypatch):
    """The model repositories of these tests are folders, which the policy forbids unless it is told otherwise."""
    monkeypatch.setenv("LONGSHORE_REPOSITORY_SCHEMES", "file,https,ssh")


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


@pytest.mark.parametrize("flags", [["--json"], ["--format", "json"]])
def test_json_has_the_same_facts(registry, capsys, flags):
    """One document with every issue and its remedy."""
    manifest = registry / "models/staging/hello.yaml"
    manifest.write_text(manifest.read_text().replace("v0.1.0", "main"))
    assert run(["validate", str(registry), *flags]) == exits.FAILED
    document = json.loads(capsys.readouterr().out)
    assert (document["what"], document["valid"], document["errors"], document["commit"]) == ("registry", False, 1, None)
    issue, note = document["issues"]
    assert (note["code"], note["severity"], document["notes"]) == ("CHECK_SKIPPED", "note", 1)
    assert (issue["code"], issue["line"], issue["place"]) == ("REF_UNPINNED", 5, "model_card_ref.ref")
    assert issue["remedy"] == "Pin a tag vX.Y.Z or a commit id; branches are not accepted."


@pytest.fixture
def faulty_card(registry, model) -> str:
    """A released card with two faults, which a second deployment runs too; returns its name in findings."""
    card = model / "model-card.yaml"
    card.write_text(card.read_text().replace("framework: custom", "framework: cobol").replace("0.1.0", "0.2.0"))
    card.write_text(card.read_text().replace("batch_size: 32", "batch_size: none"))
    commit_all(model)
    git(model, "tag", "v0.2.0")
    for name in ("hello", "again"):
        manifest = MANIFEST.format(url=model.as_uri()).replace("v0.1.0", "v0.2.0").replace("id: hello", f"id: {name}")
        (registry / f"models/staging/{name}.yaml").write_text(manifest)
    return f"{model.as_uri()}@v0.2.0:model-card.yaml"


def test_a_card_is_quoted_as_it_was_fetched(registry, faulty_card, capsys):
    """Its line is shown although the card lies in another repository, and its team is told too."""
    assert run(["validate", str(registry)]) == exits.FAILED
    told = capsys.readouterr().out
    assert f"{faulty_card}\n  error CARD_INVALID (line 8, runtime.framework), for ops and ml\n" in told
    assert "      8 |   framework: cobol\n        |   ^^^^^^^^^^^^^^^^\n" in told


def test_no_credential_is_quoted(registry, capsys):
    """What a finding quotes may stand in the public log of a CI job."""
    manifest = registry / "models/staging/hello.yaml"
    manifest.write_text(manifest.read_text().replace("file://", "https://olga:s3cr3t@git.example.com"))
    assert run(["validate", str(registry)]) == exits.FAILED
    told = capsys.readouterr().out
    assert "CREDENTIALS_IN_URL" in told
    assert "|   repository: https://git.example.com" in told
    assert run(["validate", str(registry), "--format", "sarif"]) == exits.FAILED
    assert "s3cr3t" not in told + capsys.readouterr().out


def test_a_hostile_line_cannot_move_the_cursor(registry, capsys):
    """An escape sequence in a manifest is shown as what it is, not obeyed."""
    manifest = registry / "models/staging/hello.yaml"
    manifest.write_text(manifest.read_text().replace("v0.1.0", "v0.1.0\u202e x") + "# \u001b[2J\n")
    assert run(["validate", str(registry)]) == exits.FAILED
    told = capsys.readouterr().out
    assert not {"\u001b", "\u202e"} & set(told)


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colour_is_for_terminals_that_want_it(registry, no_color, coloured, monkeypatch, capsys):
    """A terminal gets colours unless NO_COLOR is set; what is piped gets none."""
    (registry / "errors/.gitkeep").unlink()
    assert run(["validate", str(registry)]) == exits.FAILED
    assert "\x1b[" not in capsys.readouterr().out
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run(["validate", str(registry)]) == exits.FAILED
    assert ("\x1b[1;31m" in capsys.readouterr().out) is coloured


def test_settings_that_are_wrong_have_the_usage_code(registry, capsys):
    """The policy is read as the broker reads it: flag, variable, file."""
    assert run(["validate", str(registry), "--repository-max-size", "much"]) == exits.USAGE
    assert "--repository-max-size" in capsys.readouterr().err


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


def test_a_tag_is_checked_against_what_the_broker_remembers(registry, model, capsys):
    """Whoever pulled the broker's commits learns before the push that a tag has moved."""
    first = git(model, "rev-parse", "v0.1.0")
    tag = (model.as_uri(), "v0.1.0")
    (registry / PINS_FILE).write_bytes(render_pins(merge_pins({}, {tag: first}, datetime.now(UTC))))
    assert run(["validate", str(registry)]) == exits.OK
    git(model, "commit", "-q", "--allow-empty", "-m", "more")
    git(model, "tag", "-f", "v0.1.0")
    assert run(["validate", str(registry)]) == exits.FAILED
    assert f"was first used with {first}, and now leads to" in capsys.readouterr().out
    (registry / PINS_FILE).write_text("resolved_refs: []")
    assert run(["validate", str(registry)]) == exits.FAILED
    assert f"{PINS_FILE}\n  error PINS_INVALID (line 1)" in capsys.readouterr().out


def test_only_what_git_would_take_counts(registry, capsys):
    """An ignored file deploys nothing, and an empty folder would not arrive."""
    (registry / ".gitignore").write_text("*.draft.yaml\n")
    (registry / "models/staging/x.draft.yaml").write_text("nonsense")
    assert run(["validate", str(registry)]) == exits.OK
    (registry / "errors/.gitkeep").unlink()
    assert (registry / "errors").is_dir()
    assert run(["validate", str(registry)]) == exits.FAILED
    assert "the folder errors is missing" in capsys.readouterr().out


def test_a_finding_in_a_folder_of_a_repository_is_shown_where_it_lies(registry, tmp_path, capsys):
    """Code scanning counts paths from the root of the repository, not from the registry."""
    large = tmp_path / "large"
    large.mkdir()
    registry.rename(large / "ops")
    shutil.rmtree(large / "ops/.git")
    (large / "ops/models/staging/hello.yaml").write_text("id: hello\n")
    commit_all(large)
    for options in ([], ["--rev", "HEAD"]):
        capsys.readouterr()
        assert run(["validate", str(large / "ops"), "--format", "sarif", *options]) == exits.FAILED
        (found,) = {
            result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
            for result in json.loads(capsys.readouterr().out)["runs"][0]["results"]
        }
        assert found == "ops/models/staging/hello.yaml"


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
        ("entrypoint: src.model", "entrypoint: src.modle", "ENTRYPOINT_INVALID (line 21, code.entrypoint), for ml"),
        ("module: src.preprocessing", "module: src.prep", "PROCESSING_INVALID (line 23, preprocessing.module), for ml"),
        ("path: src/", "path: code/", "CODE_PATH_INVALID (line 19, code.path), for ml"),
        ("ref: v0.1.0", "ref: v0.2.0", "CARD_TAG_MISMATCH (line 20, code.ref), for ml"),
        ("framework: custom", "framework: cobol", "CARD_INVALID (line 8, runtime.framework), for ml"),
        (
            "minLength: 1",
            "$ref: other.json",
            "SCHEMA_REF_FORBIDDEN (line 40, interface.input_schema.properties.text.$ref), for ml",
        ),
    ],
)
def test_a_model_is_checked_before_anyone_deploys_it(model, capsys, old, new, expected):
    """The card by its schema, and the modules that it names against the files that there are."""
    card = model / "model-card.yaml"
    assert old in card.read_text()
    card.write_text(card.read_text().replace(old, new))
    assert run(["validate", str(model)]) == exits.FAILED
    assert f"  error {expected}\n" in capsys.readouterr().out


def test_a_models_team_learns_what_production_asks_for(model, capsys):
    """A card without a checksum is valid, but not everywhere; and which tag it is to get."""
    card = model / "model-card.yaml"
    card.write_text("".join(line for line in card.read_text().splitlines(True) if "checksum" not in line))
    assert run(["validate", str(model)]) == exits.OK
    told = capsys.readouterr().out
    assert "  warning CHECKSUM_MISSING (line 12, artifacts), for ml\n" in told
    assert told.endswith("The model is valid: card and code fit together, for the tag v0.1.0 (1 warning).\n")


def test_a_model_is_checked_against_its_tag(model, capsys):
    """A tag that does not fit the card is found before it is pushed."""
    git(model, "tag", "v0.2.0")
    assert run(["validate", str(model), "--rev", "v0.2.0"]) == exits.FAILED
    assert "metadata.version is 0.1.0, but the card was found under the tag v0.2.0" in capsys.readouterr().out


GOLDEN = """\
errors
  error STRUCTURE_INVALID, for ops
    the folder errors is missing
    → Create the folder (a .gitkeep keeps it) or rename the file: `longshore init` shows how.

models/staging/hello.yaml
  error MANIFEST_INVALID (line 1), for ops
      1 | id: hello
        | ^^^^^^^^^
    enabled is missing
    → Mend the manifest: docs/registry.md lists the fields.
  error REF_UNPINNED (line 5, model_card_ref.ref), for ops
      5 |   ref: main
        |   ^^^^^^^^^
    'main' is neither a tag vX.Y.Z nor a commit id of 7 to 40 hexadecimal digits
    → Pin a tag vX.Y.Z or a commit id; branches are not accepted.
  error UNKNOWN_FIELD (line 6, enbaled), for ops
      6 | enbaled: true
        | ^^^^^^^^^^^^^
    enbaled is no field here: did you mean enabled?
    → Remove the field or correct its spelling.
  note CHECK_SKIPPED, for ops
    not checked: its model card (step 4), its version and size; REF_UNPINNED in line 5 comes first
    → Nothing by itself: mend the error that the message names, and this is checked too.

The registry is invalid (4 errors, 1 note).
"""
