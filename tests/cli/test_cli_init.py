"""`longshore init`: what the skeletons hold, and that the model of one really runs."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from longshore.cli import exits
from longshore.cli.main import run
from longshore.registry.validation.verdict import resolve_spec
from longshore.schemas.cards import ModelCard
from longshore.schemas.deployments import DeploymentManifest
from longshore.worker_host.runners.instances import Instance, RunPaths, new_instance_id
from longshore.worker_host.runners.samples import conforming
from longshore.worker_host.runners.supervisor import Supervisor
from longshore.worker_host.runners.support import Support


def test_a_registry_has_the_folders_of_the_prd(tmp_path):
    """PRD §2.3, each kept by a file, with one worker of the given name."""
    folder = tmp_path / "registry"
    assert run(["init", "registry", str(folder), "--worker", "worker-7", "--region", "eu-west-1"]) == exits.OK
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "CODEOWNERS",
        "README.md",
        "errors/.gitkeep",
        "models/production/.gitkeep",
        "models/staging/.gitkeep",
        "transactions/history/.gitkeep",
        "workers/worker-7.yaml",
    ]
    assert "region: eu-west-1" in (folder / "README.md").read_text()
    assert run(["validate", str(folder)]) == exits.OK


def owned_as_paths(owners: Path, path: str) -> bool:
    """Tell whether some line matches as GitHub and GitLab read it: like git's own ignore patterns."""
    patterns = [line.split()[0] for line in owners.read_text().splitlines() if line and not line.startswith("#")]
    (owners.parent / "patterns").write_text("\n".join(patterns))
    subprocess.run(["git", "init", "-q"], cwd=owners.parent, check=True)
    command = ["git", "-c", f"core.excludesFile={owners.parent / 'patterns'}", "check-ignore", "--no-index", "-q", path]
    return subprocess.run(command, cwd=owners.parent, check=False).returncode == 0


def owned_as_expressions(owners: Path, path: str) -> bool:
    """Tell whether some line matches as Gitea and Forgejo read it: a regular expression of the whole path."""
    patterns = [line.split()[0] for line in owners.read_text().splitlines() if line and not line.startswith("#")]
    return any(re.fullmatch(pattern, path) for pattern in patterns)


@pytest.mark.parametrize("owned", [owned_as_paths, owned_as_expressions])
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("models/production/sentiment.yaml", True),
        ("models/staging/.gitkeep", True),
        ("workers/worker-7.yaml", True),
        ("workers/secrets/worker-7.yaml", True),
        ("CODEOWNERS", True),
        ("transactions/actual-state.yaml", False),
        ("transactions/history/2026-01-01T00-00-00Z-state.yaml", False),
        ("errors/2026-01-01T00-00-00Z-validation-error.yaml", False),
        ("errors/.gitkeep", False),
    ],
)
def test_the_owners_are_asked_for_what_people_write_and_for_nothing_else(tmp_path, owned, path, expected):
    """On every host a change of what runs has owners, and the broker's bookkeeping has none."""
    assert run(["init", "registry", str(tmp_path / "registry"), "--owners", "@acme/ops @olga"]) == exits.OK
    owners = tmp_path / "registry" / "CODEOWNERS"
    assert "\n/models/ @acme/ops @olga\n" in owners.read_text()
    assert owned(owners, path) is expected


@pytest.mark.parametrize("kind", ["registry", "model"])
def test_nothing_is_overwritten(tmp_path, kind, capsys):
    """A folder with anything but .git in it is left alone; a fresh clone is welcome."""
    (tmp_path / "clone/.git").mkdir(parents=True)
    assert run(["init", kind, str(tmp_path / "clone")]) == exits.OK
    assert run(["init", kind, str(tmp_path / "clone")]) == exits.USAGE
    assert "not empty: nothing was written" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args",
    [
        ["registry", "--worker", "gpu-1"],
        ["registry", "--region", "Mars"],
        ["registry", "--owners", "ops@acme.com"],
        ["model", "--name", "My Model"],
        ["model", "--owner", "nobody"],
        ["model", "--repository", "somewhere/else"],
    ],
)
def test_a_value_that_would_not_validate_is_refused(tmp_path, args, capsys):
    """Before anything is written."""
    kind, *options = args
    assert run(["init", kind, str(tmp_path / "new"), *options]) == exits.USAGE
    assert not (tmp_path / "new").exists()
    assert "does not match" in capsys.readouterr().err


def test_nothing_is_left_to_fill_in(tmp_path):
    """No placeholder survives, and no file keeps the suffix of a template."""
    for kind in ("registry", "model"):
        assert run(["init", kind, str(tmp_path / kind)]) == exits.OK
        for path in (tmp_path / kind).rglob("*"):
            assert not path.name.endswith(".template")
            assert "@" not in path.name
            if path.is_file():
                assert not {"@name@", "@worker@", "@region@", "@owner@", "@owners@"} & set(path.read_text().split())


class NoStore:
    """An instance store that has nothing to remember beyond this test."""

    def save(self, instance: Instance) -> None: ...
    def forget(self, instance_id: str) -> None: ...
    def all(self) -> list[Instance]:
        return []


async def test_the_model_of_a_skeleton_is_loaded_by_a_runner_and_answers(tmp_path):
    """DESIGN §6 for real: a runner process loads it, and the sample of its own schema gets a conforming answer."""
    folder = tmp_path / "hello"
    await asyncio.to_thread(run, ["init", "model", str(folder)])
    raw = YAML(typ="safe", pure=True).load((folder / "model-card.yaml").read_text())
    card = ModelCard.model_validate_json(json.dumps(raw))
    manifest = DeploymentManifest.model_validate(MANIFEST)
    instance = Instance(
        instance_id=new_instance_id(),
        deployment_id="hello",
        generation=1,
        spec=resolve_spec(manifest, card, "0" * 40, "0" * 40),
        python=sys.executable,
        checkout=str(folder),
        artifacts=str(folder / "weights"),
        created_at=datetime.now(UTC),
    )
    # A short folder: the path of a Unix socket has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="longshore-", dir="/tmp") as short:
        paths = RunPaths(Path(short) / "run")
        paths.create()
        support = Support(tmp_path / "support")
        supervisor = Supervisor(
            paths, NoStore(), start_timeout=30.0, drain_timeout=30.0, on_exit=lambda *_: None, support=support
        )
        try:
            await supervisor.start(instance)
            answer = await supervisor.infer(instance.instance_id, conforming(card.interface.input_schema))
            spoken = await supervisor.infer(instance.instance_id, {"text": "What a lovely day"})
        finally:
            await supervisor.stop_all()
    assert answer.status == 200
    jsonschema.validate(json.loads(answer.body), card.interface.output_schema)
    assert json.loads(spoken.body) == {"label": "friendly", "score": 1.0}


MANIFEST = {
    "id": "hello",
    "model_card_ref": {"repository": "https://git.example.com/hello.git", "path": "model-card.yaml", "ref": "v0.1.0"},
    "enabled": True,
    "deployment_config": {"region": "us-east-1", "replicas": 1, "priority": 50},
}


def test_the_tests_of_a_model_skeleton_pass(tmp_path):
    """A team starts from green."""
    assert run(["init", "model", str(tmp_path / "hello")]) == exits.OK
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path / "hello", check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_folder_that_cannot_be_made_is_said(tmp_path, capsys):
    """One line with the path and the system's reason, no traceback."""
    (tmp_path / "file").touch()
    assert run(["init", "model", str(tmp_path / "file" / "model")]) == exits.FAILED
    assert capsys.readouterr().err.splitlines() == [
        f"error: cannot write {tmp_path / 'file' / 'model'}: Not a directory"
    ]


@pytest.mark.parametrize("options", [[], ["--repository", "https://git.example.com/hello.git"]])
def test_a_card_that_names_a_folder_says_so(tmp_path, capsys, options):
    """A broker takes no file URL by default: whoever starts locally learns it before the first push."""
    assert run(["init", "model", str(tmp_path / "hello"), *options]) == exits.OK
    assert ("--repository-schemes file" in capsys.readouterr().out) is not bool(options)
