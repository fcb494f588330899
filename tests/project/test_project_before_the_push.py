"""What docs/before-the-push.md tells people to copy is what those programs accept."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from longshore.cli.main import VERBS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "before-the-push.md").read_text()
SNIPPETS = re.findall(r"```yaml\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)


def load(text: str):
    return YAML(typ="safe", pure=True).load(text)


def snippets(name: str) -> list[str]:
    found = [text for file, text in SNIPPETS if file == name]
    assert found, name
    return found


def check(schema: str, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "snippet.yaml"
    file.write_text(text)
    checker = Path(sys.executable).with_name("check-jsonschema")
    command = [checker, "--builtin-schema", schema, "--data-transform", "gitlab-ci", file]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        (".github/workflows/registry.yaml", "vendor.github-workflows"),
        (".github/workflows/registry.yaml", "custom.github-workflows-require-timeout"),
        (".gitlab-ci.yml", "vendor.gitlab-ci"),
    ],
)
def test_the_ci_snippets_conform_to_their_hosts_schemas(name, schema, tmp_path):
    """check-jsonschema's own copies of the schemas accept them."""
    (text,) = snippets(name)
    done = check(schema, text, tmp_path)
    assert done.returncode == 0, done.stdout


def test_a_snippet_that_is_wrong_would_be_found(tmp_path):
    """The check is one: a misspelt key fails it."""
    (text,) = snippets(".github/workflows/registry.yaml")
    assert check("vendor.github-workflows", text.replace("runs-on", "run-on"), tmp_path).returncode != 0


def test_the_pre_commit_hook_is_what_the_page_names():
    """Its manifest has what pre-commit requires, and both snippets run the same command."""
    (hook,) = load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert {"id", "name", "entry", "language"} <= set(hook)
    program, verb = hook["entry"].split()
    assert (program, verb in VERBS) == ("longshore", True)
    shared, local = (load(text)["repos"][0]["hooks"][0] for text in snippets(".pre-commit-config.yaml"))
    assert shared["id"] == local["id"] == hook["id"]
    assert local["entry"] == " ".join([hook["entry"], *hook["args"]])
    assert (local["pass_filenames"], local["always_run"]) == (hook["pass_filenames"], hook["always_run"])


def test_the_servers_hook_is_an_executable_shell_script():
    """A copy of it runs as it is."""
    hook = ROOT / "deploy" / "pre-receive"
    assert os.access(hook, os.X_OK)
    assert subprocess.run(["sh", "-n", hook], check=False).returncode == 0
