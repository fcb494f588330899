"""`longshore pre-receive` in the hook of a bare repository, as those meet it who push there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from repositories import ModelRepository, Registry, git

ROOT = Path(__file__).parents[2]


class Server:
    """A registry on a git server with the shipped hook, and an operator's clone with one valid deployment."""

    def __init__(self, root: Path) -> None:
        self.model = ModelRepository(root, root / "artifacts", "http://127.0.0.1:1")
        self.model.release("1.0.0")
        self.registry = Registry(root)
        self.registry.worker("worker-a")
        self.registry.deployment("double", self.model, "1.0.0")
        self.registry.push("The first deployment")
        self.clone = self.registry.clone
        hook = self.registry.bare / "hooks" / "pre-receive"
        hook.write_bytes((ROOT / "deploy" / "pre-receive").read_bytes())
        hook.chmod(0o755)
        # The command as it is installed on a server, but of this checkout.
        command = root / "bin" / "longshore"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m longshore "$@"\n')
        command.chmod(0o755)
        self.environment = {
            "PATH": f"{command.parent}:{os.environ['PATH']}",
            "HOME": "/nonexistent",
            "GIT_CONFIG_NOSYSTEM": "1",
            "LONGSHORE_REPOSITORY_SCHEMES": "file,https,ssh",
        }

    def commit(self, message: str) -> str:
        git(self.clone, "add", "-A")
        git(self.clone, "commit", "-q", "--allow-empty", "-m", message)
        return git(self.clone, "rev-parse", "HEAD")

    def push(self, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = ["git", "push", "origin", *(args or ["HEAD:main"])]
        environment = self.environment | variables
        return subprocess.run(command, cwd=self.clone, env=environment, capture_output=True, text=True, check=False)

    @property
    def head(self) -> str:
        return git(self.registry.bare, "rev-parse", "refs/heads/main")

    def break_manifest(self) -> None:
        manifest = self.clone / "models/production/double.yaml"
        manifest.write_text(manifest.read_text().replace("v1.0.0", "main"))

    def write_state(self) -> None:
        (self.clone / "transactions/actual-state.yaml").write_text("what runs: nothing\n")
        (self.clone / "errors/one.yaml").write_text("oh\n")


@pytest.fixture
def server(tmp_path) -> Server:
    return Server(tmp_path)


def test_a_valid_push_is_taken_without_a_word(server):
    """The commit is judged while it is in quarantine, and then is the head."""
    server.registry.deployment("double", server.model, "1.0.0", replicas=0)
    commit = server.commit("Stop it")
    done = server.push()
    assert (done.returncode, server.head) == (0, commit), done.stderr
    assert "remote:" not in done.stderr


def test_an_invalid_push_is_refused_with_its_reasons(server):
    """The pusher reads code, line and remedy, in plain ASCII; the branch has not moved."""
    before = server.head
    server.break_manifest()
    server.commit("Follow a branch")
    done = server.push()
    assert (done.returncode, server.head) == (1, before)
    assert "pre-receive hook declined" in done.stderr
    told = [line.removeprefix("remote: ").rstrip() for line in done.stderr.splitlines() if line.startswith("remote:")]
    assert "models/production/double.yaml" in told
    assert any(line.startswith("  error REF_UNPINNED (line ") for line in told)
    assert any("ref: main" in line for line in told)
    assert "    -> Pin a tag vX.Y.Z or a commit id; branches are not accepted." in told
    assert told[-1] == "The registry is invalid (1 error, 1 note)."
    assert "\x1b[31m" not in "".join(told)
    assert "".join(told).isascii()


def test_many_findings_are_cut_and_what_is_left_is_counted(server):
    """Nobody reads a thousand lines of `remote:`."""
    for number in range(40):
        (server.clone / f"models/staging/m-{number}.yaml").write_text("id: é\n")
    server.commit("A mess")
    done = server.push()
    assert done.returncode == 1
    assert "more: `longshore validate` lists them all." in done.stderr
    assert 15 <= done.stderr.count("  error ") < 20


@pytest.mark.parametrize("how", ["forced", "deleted"])
def test_history_that_is_taken_away_is_refused(server, how):
    """Neither a forced push nor a deletion gets through, whatever it holds."""
    before = server.head
    git(server.clone, "commit", "-q", "--amend", "-m", "Another first")
    done = server.push(*(["--force", "HEAD:main"] if how == "forced" else [":main"]))
    assert (done.returncode, server.head) == (1, before)
    assert "remote: error HISTORY_REWRITTEN: " in done.stderr


def test_other_branches_and_tags_are_nobodys_business(server):
    """A draft may be as wrong as it likes."""
    server.break_manifest()
    server.commit("A draft")
    git(server.clone, "tag", "draft")
    done = server.push("HEAD:draft", "draft")
    assert done.returncode == 0, done.stderr


def test_the_brokers_state_passes_whatever_the_registry_is_like(server):
    """A registry that was invalid before the hook came must not keep the broker from saying so."""
    server.break_manifest()
    server.commit("Invalid")
    assert server.push("HEAD:draft").returncode == 0
    git(server.registry.bare, "update-ref", "refs/heads/main", "refs/heads/draft")
    server.write_state()
    commit = server.commit("State")
    done = server.push()
    assert (done.returncode, server.head) == (0, commit), done.stderr


def test_a_merge_that_brings_back_an_old_tree_is_judged(server):
    """No commit of it touches a manifest, and yet it changes one."""
    server.break_manifest()
    old = server.commit("Invalid")
    server.registry.deployment("double", server.model, "1.0.0", priority=60)
    server.commit("Mended")
    assert server.push().returncode == 0
    merge = git(server.clone, "commit-tree", f"{old}^{{tree}}", "-p", "HEAD", "-p", old, "-m", "Merge")
    done = server.push(f"{merge}:main")
    assert done.returncode == 1
    assert "REF_UNPINNED" in done.stderr


@pytest.mark.parametrize("where", ["main", "elsewhere"])
def test_the_brokers_key_may_write_the_state_only(server, where):
    """With --state-only, as the variable of the broker's key: no manifest, no other branch."""
    server.write_state()
    server.commit("State")
    assert server.push(LONGSHORE_STATE_ONLY="true").returncode == 0
    server.registry.deployment("double", server.model, "1.0.0", replicas=0)
    server.commit("What a stolen key would do")
    done = server.push(f"HEAD:{where}", LONGSHORE_STATE_ONLY="true")
    assert done.returncode == 1
    assert f"remote: error PUSH_FORBIDDEN: the push to refs/heads/{where} changes more" in done.stderr


def test_a_git_host_that_is_away_keeps_nobody_from_disabling(server):
    """The broker waits for it, and so must not the operator who needs a model gone."""
    manifest = server.clone / "models/production/away.yaml"
    text = (server.clone / "models/production/double.yaml").read_text()
    manifest.write_text(text.replace("id: double", "id: away").replace(server.model.url, "https://127.0.0.1:1/m.git"))
    commit = server.commit("A card on a host that is away")
    done = server.push()
    assert (done.returncode, server.head) == (0, commit), done.stderr
    assert "remote:   error GIT_UNREACHABLE" in done.stderr
    assert "accepted all the same" in done.stderr


def test_time_that_is_up_refuses(server):
    """A hook that hangs would hold the push, and its quarantine, for ever."""
    before = server.head
    server.commit("Nothing")
    done = server.push(LONGSHORE_TIME_LIMIT="1ms")
    assert (done.returncode, server.head) == (1, before)
    assert "remote: The push could not be judged within 1ms" in done.stderr
