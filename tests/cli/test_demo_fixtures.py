"""What the demo works on: made from the examples, with real git."""

from __future__ import annotations

import hashlib
import json
import re
import socket
from pathlib import Path

import pytest

from longshore.cli.demo import fixtures
from longshore.cli.demo.fixtures import Registry, examples, fill_in, lay_out, load_yaml, release
from longshore.cli.demo.git import Repository
from longshore.cli.demo.ports import choose
from longshore.cli.demo.processes import DemoFailed
from longshore.schemas.cards import ModelCard
from longshore.schemas.deployments import DeploymentManifest
from longshore.schemas.workers import WorkerConfig


class NoTraining:
    """Stands for the trainer: what it writes tells from which configuration it was made."""

    async def artifact(self, source: Path) -> bytes:
        return hashlib.sha256((source / "config" / "model-config.json").read_bytes()).digest()


@pytest.fixture
def model(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path / "model.git", tmp_path / "model", fixtures.ML)
    repository.create()
    return repository


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(Repository(tmp_path / "registry.git", tmp_path / "registry", fixtures.OPS))
    registry.create({name: f"https://git.example.com/{name}.git" for name in fixtures.MODELS})
    return registry


def as_model(kind, document):
    return kind.model_validate_json(json.dumps(document))


@pytest.mark.parametrize("name", fixtures.MODELS)
async def test_releases_are_tagged_and_their_cards_hold(name: str, model: Repository):
    """Each tag has a valid card whose checksum is that of the uploaded artifact, and the two differ."""
    artifacts = []
    for version in fixtures.VERSIONS:
        objects = await release(name, version, model, "s3://bucket", NoTraining())
        model.push()
        card = as_model(ModelCard, load_yaml(model.clone / "model-card.yaml"))
        key = card.artifacts.model_path.removeprefix("s3://bucket/")
        assert card.metadata.version == version
        assert card.code.ref == f"v{version}"
        assert card.artifacts.checksum == hashlib.sha256(objects[key]).hexdigest()
        assert card.artifacts.config_path.removeprefix("s3://bucket/") in objects
        assert card.interface.input_schema["examples"]
        artifacts.append(objects[key])
    assert artifacts[0] != artifacts[1]
    assert model.git("ls-remote", "--tags", "origin").count("refs/tags/v") == 2


@pytest.mark.parametrize("name", fixtures.MODELS)
def test_requirements_and_card_agree(name: str):
    """`requirements.txt`, which people install, is what the card makes devices install."""
    card = (examples() / name / "model-card.yaml").read_text()
    named = re.findall(r"^    - (\S+==\S+)$", card, re.MULTILINE)
    assert (examples() / name / "requirements.txt").read_text().split() == named


def test_the_two_models_need_different_environments():
    """The demo shows that models do not share packages."""
    assert len({(examples() / name / "requirements.txt").read_text() for name in fixtures.MODELS}) == 2


def test_a_release_changes_what_it_says(tmp_path: Path):
    """1.1.0 has another configuration than 1.0.0, and neither has the folder `releases`."""
    for version in fixtures.VERSIONS:
        lay_out(examples() / "digits", version, tmp_path / version)
    configs = {(tmp_path / version / "config" / "model-config.json").read_text() for version in fixtures.VERSIONS}
    assert len(configs) == 2
    assert not (tmp_path / "1.1.0" / "releases").exists()


def test_the_registry_begins_with_devices_only(registry: Registry):
    """Three valid worker configurations, and no manifest."""
    workers = [as_model(WorkerConfig, load_yaml(file)) for file in registry.workers()]
    assert [worker.worker_id for worker in workers] == ["worker-edge-a", "worker-edge-b", "worker-edge-c"]
    assert registry.manifests() == []


def test_each_change_is_one_commit_on_top(registry: Registry):
    """Deploy, pin and disable push valid manifests, each differing in nothing but what was meant."""
    registry.deploy()
    manifests = {file.stem: as_model(DeploymentManifest, load_yaml(file)) for file in registry.manifests()}
    assert manifests["sentiment-prod"].model_card_ref.repository == "https://git.example.com/sentiment-analysis.git"
    registry.pin("sentiment-prod", "1.1.0", "Update")
    registry.disable("digits-prod", "Off")
    after = {file.stem: as_model(DeploymentManifest, load_yaml(file)) for file in registry.manifests()}
    assert after["sentiment-prod"].model_card_ref.ref == "v1.1.0"
    assert (manifests["digits-prod"].wanted_replicas, after["digits-prod"].wanted_replicas) == (2, 0)
    assert registry.repository.git("log", "--format=%s").splitlines()[:2] == ["Off", "Update"]
    assert registry.repository.git("show", "--stat", "--format=", "HEAD").count("|") == 1


def test_an_edit_waits_for_the_next_push(registry: Registry):
    """Until then the registry has nothing of it, and the push brings just that."""
    before = registry.deploy()
    registry.edit("sentiment-prod", "1.1.0")
    assert registry.repository.git("ls-remote", "origin", "main").split()[0] == before
    registry.pin("sentiment-prod", "1.1.0", "Update")
    assert registry.repository.git("show", "--stat", "--format=", "HEAD").count("|") == 1


def test_a_blunder_is_undone_by_the_next_commit(registry: Registry):
    """The bad push breaks both manifests; what follows carries none of it."""
    registry.deploy()
    good = {file.name: file.read_text() for file in registry.manifests()}
    registry.blunder("Oops")
    assert all(file.read_text() != good[file.name] for file in registry.manifests())
    registry.undo()
    registry.pin("sentiment-prod", "1.0.0", "As it was")
    assert {file.name: file.read_text() for file in registry.manifests()} == good


def test_a_push_goes_on_top_of_what_the_broker_has_pushed(registry: Registry, tmp_path: Path):
    """The broker writes its state meanwhile; the operator's push keeps it."""
    broker = Repository(registry.repository.bare, tmp_path / "broker", "Broker Bot")
    broker.clone.mkdir()
    broker.git("clone", "--quiet", broker.url, ".")
    (broker.clone / "transactions" / "actual-state.yaml").write_text("workers: []\n")
    broker.commit("State")
    broker.push()
    registry.deploy()
    assert (registry.repository.clone / "transactions" / "actual-state.yaml").exists()


def test_git_failures_are_told(tmp_path: Path):
    """What git says is in the message."""
    with pytest.raises(DemoFailed, match="not a git repository"):
        Repository(tmp_path, tmp_path, fixtures.OPS).git("log")


def test_an_unfilled_word_is_an_error(tmp_path: Path):
    """A template never goes out half filled."""
    template = tmp_path / "card.yaml"
    template.write_text("a: ${known}\nb: ${unknown}\n")
    with pytest.raises(KeyError, match="unknown"):
        fill_in(template, known="1")


def test_a_taken_port_is_passed_over():
    """The usual port where it is free, else another one, and never the same twice."""
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        wanted = busy.getsockname()[1]
        taken: set[int] = set()
        chosen = choose(wanted, taken)
        assert chosen not in (wanted, 0)
        assert choose(chosen, taken) != chosen
