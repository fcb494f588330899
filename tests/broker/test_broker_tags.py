"""A tag that moved after its first use, seen by brokers that know nothing but git; and who may sign commits."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from repositories import ModelRepository, Registry, git

from longshore.broker.registry_service import RegistryService
from longshore.registry.records.pins import PINS_FILE, parse_pins, pins_of
from longshore.registry.records.writer import RegistryWriter
from longshore.registry.repositories.git import Git
from longshore.registry.repositories.signing import AllowedKeys
from longshore.schemas.commits import ValidationResult
from longshore.schemas.failures import LongshoreError
from longshore.schemas.issues import Audience, Issue, Severity
from longshore.schemas.policies import RepositoryPolicy
from longshore.schemas.rollouts import SpecRequest

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Broker:
    """A broker with a cache of its own. What it asks git hosts is counted."""

    def __init__(self, setting: Setting, keys: AllowedKeys | None = None) -> None:
        setting.brokers += 1
        self.git = Git(setting.root / f"cache-{setting.brokers}", RepositoryPolicy(repository_schemes=("file",)))
        url = setting.registry.url
        self.service = RegistryService(self.git, url, "main", **({"keys": keys} if keys else {}))
        self.writer = RegistryWriter(self.git, url, "main", name="Longshore", email="longshore@acme.com")
        self.asked: list[str] = []
        self._tags, self.git.tags = self.git.tags, self._count

    async def _count(self, url: str) -> dict[str, str]:
        self.asked.append(url)
        return await self._tags(url)

    async def apply(self, sha: str) -> ValidationResult:
        """Validate and record a commit, as its workflow does."""
        validated = await self.service.validate(sha)
        assert validated.accepted, validated.issues
        tags = pins_of(await self.service.snapshot(sha))
        await self.writer.record("State", None, (), now=NOW, tags=tags)
        return validated


class Setting:
    """A registry with two deployments of two models."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.brokers = 0
        self.registry = Registry(root)
        (root / "artifacts").mkdir()
        self.model, self.other = (
            ModelRepository(root, root / "artifacts", "http://127.0.0.1:1", name) for name in ("model", "other")
        )
        self.released = self.model.release("1.0.0")
        self.model.release("1.1.0")
        self.other.release("1.0.0")
        for worker in ("worker-a", "worker-b", "worker-c"):
            self.registry.worker(worker)
        self.registry.deployment("ten", self.model, "1.0.0")
        self.registry.deployment("one", self.other, "1.0.0")

    def deploy(self, version: str = "1.0.0", replicas: int = 1) -> str:
        self.registry.deployment("ten", self.model, version, replicas=replicas)
        return self.registry.push(f"Deploy {version} {replicas} times")

    def move_the_tag(self) -> str:
        """Let v1.0.0 name a newer commit whose code differs."""
        (self.model.directory / "src" / "model.py").write_text("import evil\n")
        git(self.model.directory, "checkout", "-q", "v1.0.0", "--", "model-card.yaml")
        git(self.model.directory, "commit", "-qam", "Not what it was")
        git(self.model.directory, "tag", "-f", "v1.0.0")
        return git(self.model.directory, "rev-parse", "HEAD")

    def remembered(self) -> dict[tuple[str, str], str]:
        pins = parse_pins(git(self.registry.bare, "show", f"main:{PINS_FILE}").encode() + b"\n")
        assert pins.issue is None
        return pins.commits


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


def errors(result: ValidationResult) -> list[Issue]:
    return [issue for issue in result.issues if issue.severity is Severity.ERROR]


def only(result: ValidationResult, code: str, severity: Severity) -> Issue:
    (issue,) = [issue for issue in result.issues if issue.code == code]
    assert issue.severity is severity
    return issue


async def test_the_tags_of_an_accepted_commit_are_remembered_in_git(setting: Setting) -> None:
    """By the broker's own commit, which starts nothing; a tag that comes later is added."""
    first, broker = setting.deploy(), Broker(setting)
    await broker.apply(first)
    assert setting.remembered() == {
        (setting.model.url, "v1.0.0"): setting.released,
        (setting.other.url, "v1.0.0"): git(setting.other.directory, "rev-parse", "v1.0.0"),
    }
    assert await broker.service.look() == first
    await broker.apply(setting.deploy("1.1.0"))
    assert setting.remembered().keys() == {
        (setting.model.url, "v1.0.0"),
        (setting.model.url, "v1.1.0"),
        (setting.other.url, "v1.0.0"),
    }
    before = git(setting.registry.bare, "rev-parse", "main")
    await broker.apply(before)
    assert git(setting.registry.bare, "rev-parse", "main") == before


async def test_a_new_broker_refuses_a_tag_that_moved_after_its_first_use(setting: Setting) -> None:
    """Its cache is empty: only git knows what the tag was. Both commits are named, to Ops and to ML."""
    await Broker(setting).apply(setting.deploy())
    moved = setting.move_the_tag()
    sha = setting.deploy(replicas=2)
    result = await Broker(setting).service.validate(sha)
    at_manifest = next(issue for issue in errors(result) if issue.file == "models/production/ten.yaml")
    assert (at_manifest.code, at_manifest.place) == ("TAG_MOVED", "model_card_ref.ref")
    assert at_manifest.message == (
        f"the tag v1.0.0 of {setting.model.url} was first used with {setting.released}, and now leads to {moved}"
    )
    assert at_manifest.told == (Audience.OPS, Audience.ML)
    assert {issue.code for issue in errors(result)} == {"TAG_MOVED"}


async def test_the_broker_that_saw_the_tag_first_refuses_it_too(setting: Setting) -> None:
    """Its cache still has the first commit; the answer must not depend on which broker is asked."""
    broker = Broker(setting)
    await broker.apply(setting.deploy())
    await broker.apply(setting.deploy("1.1.0"))
    setting.move_the_tag()
    result = await broker.service.validate(setting.deploy())
    assert {issue.code for issue in errors(result)} == {"TAG_MOVED"}


async def test_a_tag_that_was_taken_away_is_told(setting: Setting) -> None:
    """It can be restored by anyone with the commit's id, which the message has."""
    await Broker(setting).apply(setting.deploy())
    git(setting.model.directory, "tag", "-d", "v1.0.0")
    result = await Broker(setting).service.validate(setting.deploy(replicas=2))
    assert f"was first used with {setting.released}, and is gone" in errors(result)[0].message


async def test_a_moved_tag_can_be_let_through_on_purpose(setting: Setting) -> None:
    """Its line is removed in the commit that is to use it."""
    broker = Broker(setting)
    await broker.apply(setting.deploy())
    moved = setting.move_the_tag()
    file = setting.registry.pull() / PINS_FILE
    file.write_text("".join(line for line in file.open() if setting.released not in line))
    sha = setting.deploy(replicas=2)
    await broker.apply(sha)
    assert (await broker.service.snapshot(sha)).specs["ten"].code_commit == moved
    assert setting.remembered()[setting.model.url, "v1.0.0"] == moved


async def test_what_runs_is_read_as_it_was_accepted(setting: Setting) -> None:
    """Another broker, started after the tag moved, gives a device what the plan saw, and asks nobody about tags."""
    sha, broker = setting.deploy(), Broker(setting)
    await broker.apply(sha)
    spec = (await broker.service.snapshot(sha)).specs["ten"]
    setting.move_the_tag()
    another = Broker(setting)
    request = SpecRequest(registry="registry", sha=sha, deployment_id="ten", digest=spec.digest)
    assert await another.service.spec(request) == spec
    assert another.asked == []


async def test_only_what_is_new_or_changed_is_asked_about(setting: Setting) -> None:
    """All at the first validation of a process, then one question for one manifest."""
    broker = Broker(setting)
    await broker.apply(setting.deploy())
    assert sorted(broker.asked) == sorted([setting.model.url, setting.other.url])
    broker.asked.clear()
    await broker.apply(setting.deploy("1.1.0"))
    assert broker.asked == [setting.model.url]
    broker.asked.clear()
    setting.registry.worker("worker-d")
    await broker.apply(setting.registry.push("One more worker"))
    assert broker.asked == []


async def test_a_rejected_commit_confirms_nothing(setting: Setting) -> None:
    """A moved tag is not overlooked because the manifest is the same as in the commit that was refused for it."""
    broker = Broker(setting)
    await broker.apply(setting.deploy())
    setting.move_the_tag()
    assert not (await broker.service.validate(setting.deploy(replicas=2))).accepted
    setting.registry.worker("worker-d")
    result = await broker.service.validate(setting.registry.push("One more worker"))
    assert {issue.code for issue in errors(result)} == {"TAG_MOVED"}


async def test_a_rollback_does_not_depend_on_the_git_host(setting: Setting) -> None:
    """What is pinned and cached is taken, with a warning at the manifest; once the host is back it is asked again."""
    broker = Broker(setting)
    await broker.apply(setting.deploy())
    await broker.apply(setting.deploy("1.1.0"))
    config = setting.model.directory / ".git" / "config"
    whole = config.read_text()
    config.write_text("[core]\n\trepositoryformatversion = 99\n")
    sha = setting.deploy()
    result = await broker.apply(sha)
    issue = only(result, "GIT_UNREACHABLE", Severity.WARNING)
    assert (issue.file, issue.place) == ("models/production/ten.yaml", "model_card_ref.repository")
    assert (await broker.service.snapshot(sha)).specs["ten"].card_commit == setting.released
    with pytest.raises(LongshoreError, match="GIT_UNREACHABLE"):
        await Broker(setting).service.validate(sha)
    config.write_text(whole)
    setting.move_the_tag()
    setting.registry.worker("worker-d")
    result = await broker.service.validate(setting.registry.push("One more worker"))
    assert {issue.code for issue in errors(result)} == {"TAG_MOVED"}


async def test_a_tag_that_no_accepted_commit_used_may_still_move(setting: Setting) -> None:
    """The ML team mends what was refused; what a broker has cached of it does not count."""
    git(setting.model.directory, "tag", "v1.2.0")  # the card there says 1.1.0
    broker = Broker(setting)
    refused = await broker.service.validate(setting.deploy("1.2.0"))
    assert {issue.code for issue in errors(refused)} == {"CARD_TAG_MISMATCH"}
    git(setting.model.directory, "tag", "-d", "v1.2.0")
    mended = setting.model.release("1.2.0")
    sha = setting.deploy("1.2.0", replicas=2)
    await broker.apply(sha)
    assert (await broker.service.snapshot(sha)).specs["ten"].card_commit == mended
    assert setting.remembered()[setting.model.url, "v1.2.0"] == mended


async def test_the_code_of_a_card_is_remembered_and_checked_too(setting: Setting) -> None:
    """The card may be pinned by its commit, and name a tag for its code."""
    pinned = setting.model.release("3.0.0")
    for tag in ("v3.0.0", "v1.1.0"):
        git(setting.model.directory, "tag", "-d", tag)
    git(setting.model.directory, "tag", "v3.0.0", pinned)
    deployment = setting.registry.clone / "models" / "production" / "ten.yaml"
    deployment.write_text(deployment.read_text().replace("v1.0.0", pinned[:12]))
    await Broker(setting).apply(setting.registry.push("By commit"))
    assert setting.remembered()[setting.model.url, "v3.0.0"] == pinned
    git(setting.model.directory, "tag", "-f", "v3.0.0", "v1.0.0")
    result = await Broker(setting).service.validate(setting.registry.push("Again"))
    issue = only(result, "TAG_MOVED", Severity.ERROR)
    assert issue.file.endswith(":model-card.yaml")
    assert (issue.place, issue.told) == ("code.ref", (Audience.OPS, Audience.ML))


async def test_a_broken_file_of_tags_rejects_and_is_left_alone(setting: Setting) -> None:
    """Neither is it believed, nor written over: people see in git how it came about."""
    broker = Broker(setting)
    await broker.apply(setting.deploy())
    file = setting.registry.pull() / PINS_FILE
    broken = file.read_text().replace(setting.released, "main")
    file.write_text(broken)
    result = await Broker(setting).service.validate(setting.deploy("1.1.0"))
    issue = only(result, "PINS_INVALID", Severity.ERROR)
    assert (issue.file, issue.line) == (PINS_FILE, 4)
    fresh = {(setting.model.url, "v9.0.0"): "9" * 40}
    await broker.writer.record("State", None, (), now=NOW, tags=fresh)
    assert git(setting.registry.bare, "show", f"main:{PINS_FILE}") == broken.strip()


async def test_of_two_brokers_the_earlier_one_is_right(setting: Setting) -> None:
    """What stands in git stays, whoever writes next."""
    setting.deploy()
    tag = (setting.model.url, "v1.0.0")
    for commit in ("1" * 40, "2" * 40):
        await Broker(setting).writer.record("State", None, (), now=NOW, tags={tag: commit})
    assert setting.remembered() == {tag: "1" * 40}


def sign_from_now_on(clone: Path, key: Path) -> Path:
    """Let every commit be signed with a new SSH key; return the allowed_signers file that has it."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    for name, value in (("gpg.format", "ssh"), ("user.signingkey", str(key)), ("commit.gpgsign", "true")):
        git(clone, "config", name, value)
    allowed = key.with_suffix(".allowed")
    allowed.write_text(f"olga@example.com {key.with_suffix('.pub').read_text()}")
    return allowed


async def test_a_signature_is_one_of_the_findings(setting: Setting, tmp_path: Path) -> None:
    """It comes together with the others'; a commit that was accepted is not asked for it again."""
    allowed = sign_from_now_on(setting.registry.clone, tmp_path / "key")
    broker = Broker(setting, AllowedKeys(allowed_signers=allowed))
    signed = setting.deploy()
    await broker.apply(signed)
    assert await broker.service.look() == signed
    git(setting.registry.clone, "config", "commit.gpgsign", "false")
    shutil.rmtree(setting.registry.clone / "errors")
    unsigned = setting.deploy(replicas=2)
    found = errors(await broker.service.validate(unsigned))
    assert {issue.code for issue in found} == {"COMMIT_UNVERIFIED", "STRUCTURE_INVALID"}
    with pytest.raises(LongshoreError):
        await broker.service.snapshot(unsigned)
    allowed.write_text("")
    assert (await Broker(setting, AllowedKeys(allowed)).service.snapshot(signed)).specs.keys() == {"ten", "one"}
