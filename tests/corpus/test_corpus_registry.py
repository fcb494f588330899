"""The gatekeeper's corpus: every input with what is said of it, where, and within which bounds."""

from __future__ import annotations

import asyncio
import os
import pickle
import resource
import shutil
import sys
import traceback
from collections.abc import Callable, Coroutine
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from registry_cases import NAMED, Case, cases
from registry_hosts import Hosts

from longshore.registry.repositories.git import Git
from longshore.registry.validation.loading import LoadedCommit, load_snapshot
from longshore.schemas.issues import Issue, Severity
from longshore.schemas.policies import RepositoryPolicy

CPU_SECONDS = 2
MEMORY = 256 * 1024**2
LONGEST = 6000  # characters of a message: it may name 50 workers

ACCEPTED, REJECTED = cases("accepted"), cases("rejected")

# The codes that FAULTS 17 to 47 ask for. Those of a commit's history, of its signature and of a host that is slow are
# no matter of its content: `test_workflows_held`, `test_registry_signing` and `test_registry_git` have them.
CODES = [
    "MANIFEST_INVALID",
    "STRUCTURE_INVALID",
    "DUPLICATE_ID",
    "YAML_DUPLICATE_KEY",
    "YAML_ALIAS_FORBIDDEN",
    "YAML_TOO_DEEP",
    "FILE_TOO_LARGE",
    "YAML_ENCODING",
    "YAML_TAG_FORBIDDEN",
    "VALUE_OUT_OF_RANGE",
    "UNKNOWN_FIELD",
    "REF_UNPINNED",
    "REF_AMBIGUOUS",
    "REF_NOT_TAG",
    "TAG_MOVED",
    "REF_NOT_COMMIT",
    "REPO_URL_FORBIDDEN",
    "PATH_FORBIDDEN",
    "PATH_NOT_REGULAR",
    "REPO_TOO_LARGE",
    "CARD_TAG_MISMATCH",
    "SCHEMA_REF_FORBIDDEN",
    "SCHEMA_TOO_COSTLY",
    "DEPENDENCY_FORBIDDEN",
    "DEPENDENCY_UNPINNED",
    "SYSTEM_PACKAGE_FORBIDDEN",
]


def named(some: list[Case]):
    return [pytest.param(case, id=case.title) for case in some]


@pytest.mark.parametrize("case", named(ACCEPTED))
def test_valid_input_is_accepted(case: Case, judge: Judge, tmp_path: Path):
    """Nothing but the warnings that the case expects, and a snapshot of what is to run."""
    loaded = judge(case, tmp_path)
    assert_told(case.expect, loaded.issues)
    assert loaded.snapshot is not None


@pytest.mark.parametrize("case", named(REJECTED))
def test_bad_input_is_rejected(case: Case, judge: Judge, tmp_path: Path):
    """Every error with its code and place, none besides, within 2 s of CPU and 256 MiB."""
    loaded = judge(case, tmp_path)
    assert_told(case.expect, loaded.issues)
    assert loaded.snapshot is None


def test_the_corpus_is_large_and_its_names_are_unique():
    """At least 150 rejected inputs and 30 accepted ones; each code of FAULTS 17 to 47 that content can have."""
    assert len(REJECTED) >= 150
    assert len(ACCEPTED) >= 30
    names = [case.title for case in [*ACCEPTED, *REJECTED]]
    assert len(set(names)) == len(names)
    assert set(CODES) <= {word for case in REJECTED for line in case.expect for word in line.split()}


def assert_told(expected: tuple[str, ...], issues: tuple[Issue, ...]) -> None:
    """Compare all errors and warnings, each once. `4999 CODE FILE` stands for so many, at whichever lines."""
    told = [_line(issue) for issue in issues if issue.severity is not Severity.NOTE]
    each = []
    for line in expected:
        number, _, beginning = line.partition(" ")
        if number.isdigit():
            alike = [one for one in told if one.startswith(f"{beginning}:")]
            assert len(alike) == int(number)
            told = [one for one in told if one not in alike]
        else:
            each.append(line)
    assert sorted(told) == sorted(each), "\n".join(map(str, issues))
    assert all(issue.message and len(issue.message) < LONGEST and issue.remedy for issue in issues)


def _line(issue: Issue) -> str:
    names = {path: name for name, path in NAMED.items()}
    file = "card" if "://" in issue.file else names.get(issue.file, issue.file)
    severity = "" if issue.severity is Severity.ERROR else issue.severity
    where = file if issue.line is None else f"{file}:{issue.line}"
    return " ".join(filter(None, [severity, issue.code, where, issue.place]))


class Judge:
    """Loads cases as a broker that has the registry at hand, and the model too where a case leaves it alone."""

    def __init__(self, folder: Path) -> None:
        self._hosts = Hosts(folder, [*ACCEPTED, *REJECTED])
        self._registry = folder / "registry"
        first = next(case for case in ACCEPTED if not case.changes_model)
        asyncio.run(self._git(first, self._registry).require(self._hosts.url, self._hosts.head(first)))
        shutil.copytree(self._registry, folder / "both")
        self._git_with_model = self._git(first, folder / "both")
        asyncio.run(self._load(self._git_with_model, first))

    def __call__(self, case: Case, folder: Path) -> LoadedCommit:
        git = self._git_with_model
        if case.changes_model or case.policy:
            git = self._git(case, shutil.copytree(self._registry, folder / "git"))
        return within_bounds(lambda: asyncio.run(self._load(git, case)))

    def _git(self, case: Case, folder: Path) -> Git:
        environment = {"PATH": os.environ["PATH"], "GIT_SSH_COMMAND": self._hosts.ssh(case)}
        return Git(folder, RepositoryPolicy(**case.policy), environment=environment)

    def _load(self, git: Git, case: Case) -> Coroutine[Any, Any, LoadedCommit]:
        today = date.fromisoformat(case.today)
        pins = self._hosts.pins(case)
        return load_snapshot(git, self._hosts.url, self._hosts.head(case), today=today, pins=pins)


@pytest.fixture(scope="session")
def judge(tmp_path_factory) -> Judge:
    return Judge(tmp_path_factory.mktemp("corpus"))


def within_bounds(function: Callable[[], Any]) -> Any:
    """Run in a process of its own, which is killed past 2 s of CPU and cannot have more than 256 MiB on top."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            _bound()
            outcome = (True, function())
        except BaseException:  # noqa: BLE001 (told to the parent, which fails the test)
            outcome = (False, traceback.format_exc())
        with os.fdopen(write, "wb") as pipe:
            pickle.dump(outcome, pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    assert data, f"the child was ended by signal {os.WTERMSIG(status)}"
    succeeded, value = pickle.loads(data)
    assert succeeded, value
    return value


def _bound() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    if sys.platform == "linux":
        used = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
        limit = int(used.split()[1]) * 1024 + MEMORY
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
