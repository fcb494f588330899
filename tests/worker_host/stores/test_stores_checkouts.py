"""Code by commit and path, from real repositories over real transports."""

from __future__ import annotations

import asyncio
import os

import pytest
from repositories import git

from longshore.schemas.devices import BreakerState
from longshore.schemas.failures import LongshoreError
from longshore.worker_host.breakers import Breaker
from longshore.worker_host.stores.checkouts import Checkouts

ABSENT = "0123456789" * 4


@pytest.fixture
def repository(tmp_path):
    """A model repository with two commits, a tag on the first, and what must not come out of it."""
    root = tmp_path / "served" / "model"
    (root / "src" / "inner").mkdir(parents=True)
    git(root, "init", "-q", "-b", "main")
    (root / "src" / "model.py").write_bytes(b"VERSION = 1\r\n")
    (root / "src" / "inner" / "helper.py").write_text("x = 1\n")
    (root / "src" / "link.py").symlink_to("/etc/passwd")
    (root / "README.md").write_text("a model\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "one")
    git(root, "tag", "v1.0.0")
    (root / "src" / "model.py").write_bytes(b"VERSION = 2\r\n")
    # None of these may change what comes out: conversion, a filter, leaving files out.
    (root / ".gitattributes").write_text("*.py text eol=crlf export-ignore filter=lfs\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "two")
    return root


@pytest.fixture
def first(repository):
    return git(repository, "rev-parse", "v1.0.0")


@pytest.fixture
def checkouts(tmp_path, breaker):
    return Checkouts(tmp_path / "cache", breaker)


def files(root):
    return sorted(str(entry.relative_to(root)) for entry in root.rglob("*") if not entry.is_dir())


async def failing(checkouts, *args):
    with pytest.raises(LongshoreError) as caught:
        await checkouts.materialise(*args)
    return caught.value.failure


async def test_the_subtree_stands_below_the_root_under_its_own_path(checkouts, repository, first):
    """`src/` of the commit, as it was committed, without links; nothing else of the repository."""
    root = await checkouts.materialise(f"file://{repository}", first, "src/")
    assert files(root) == ["src/inner/helper.py", "src/model.py"]
    assert (root / "src" / "model.py").read_bytes() == b"VERSION = 1\r\n"


async def test_attributes_of_the_repository_are_not_obeyed(checkouts, repository):
    """Line ends, filters and export rules change nothing: bytes come out as they were committed."""
    head = git(repository, "rev-parse", "HEAD")
    root = await checkouts.materialise(f"file://{repository}", head, "src")
    blob = git(repository, "cat-file", "blob", f"{head}:src/model.py")
    assert (root / "src" / "model.py").read_text().strip() == blob
    assert (root / "src" / "inner" / "helper.py").read_bytes() == b"x = 1\n"


async def test_a_dot_is_the_whole_tree(checkouts, repository, first):
    """And a plain path is as good as a URL."""
    root = await checkouts.materialise(str(repository), first, ".")
    assert files(root) == ["README.md", "src/inner/helper.py", "src/model.py"]


async def test_what_was_fetched_needs_no_network_again(checkouts, repository, first):
    """The same commit and path is answered from the disk, another path of it from the mirror."""
    url = f"file://{repository}"
    root = await checkouts.materialise(url, first, "src")
    repository.rename(repository.with_name("gone"))
    assert await checkouts.materialise(url, first, "src/") == root
    assert files(await checkouts.materialise(url, first, "src/inner")) == ["src/inner/helper.py"]


@pytest.mark.parametrize("modern", [True, False], ids=["bare ids served", "bare ids refused"])
async def test_an_old_commit_comes_over_http(checkouts, repository, git_server, modern):
    """A commit that no ref names comes too; a server that refuses bare ids is asked for its branches and tags."""
    git_server.modern = modern
    git(repository, "commit", "-q", "--allow-empty", "-m", "three")
    middle = git(repository, "rev-parse", "HEAD~1")
    root = await checkouts.materialise(f"{git_server.server.url}/model/.git", middle, "src")
    assert "src/model.py" in files(root)


async def test_requests_for_one_commit_fetch_it_once(checkouts, first, git_server):
    """Replicas and retries that come together share one checkout."""
    url = f"{git_server.server.url}/model/.git"
    await checkouts.materialise(url, first, "src/inner")
    once = git_server.fetches
    roots = await asyncio.gather(*(checkouts.materialise(url, first, "src") for _ in range(5)))
    assert len(set(roots)) == 1
    assert git_server.fetches == once


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("modern", [True, False], ids=["bare ids served", "bare ids refused"])
async def test_an_absent_commit_is_not_tried_again(checkouts, git_server, modern):
    """The repository answers, so the ref is wrong: REF_NOT_FOUND."""
    git_server.modern = modern
    failure = await failing(checkouts, f"{git_server.server.url}/model/.git", ABSENT, "src")
    assert failure.code == "REF_NOT_FOUND"


@pytest.mark.parametrize(
    ("status", "code"), [(401, "AUTH_FAILED"), (403, "AUTH_FAILED"), (503, "GIT_UNREACHABLE"), (404, "GIT_UNREACHABLE")]
)
async def test_a_refusal_and_an_outage_are_told_apart(checkouts, git_server, status, code):
    """And nobody is prompted for a password, nor is one shown."""
    git_server.status = status
    url = git_server.server.url.replace("//", "//user:secret@")
    failure = await failing(checkouts, f"{url}/model/.git", ABSENT, "src")
    assert failure.code == code
    assert "secret" not in failure.model_dump_json()


async def test_a_host_that_is_not_there_is_unreachable(checkouts, tmp_path):
    """Neither a closed port nor a missing folder is the model's fault."""
    closed = await failing(checkouts, "http://127.0.0.1:9/model.git", ABSENT, "src")
    missing = await failing(checkouts, f"file://{tmp_path}/nothing", ABSENT, "src")
    assert (closed.code, missing.code) == ("GIT_UNREACHABLE", "GIT_UNREACHABLE")


async def test_five_outages_open_the_circuit(tmp_path):
    """A git host that is down is left alone; what is in the mirror is served all the same."""
    breaker = Breaker("git")
    checkouts = Checkouts(tmp_path / "cache", breaker)
    for _ in range(5):
        await failing(checkouts, f"file://{tmp_path}/nothing", ABSENT, "src")
    assert breaker.state is BreakerState.OPEN
    assert (await failing(checkouts, f"file://{tmp_path}/nothing", ABSENT, "src")).code == "CIRCUIT_OPEN"


@pytest.mark.parametrize(
    "path", ["../x", "src/../..", "/etc", "-rf", "a\\b", "a\0b", "a\nb", "", ".git/hooks", "src/.GIT"]
)
async def test_a_path_that_leads_elsewhere_is_refused(checkouts, repository, first, path):
    """Before git is asked anything."""
    assert (await failing(checkouts, f"file://{repository}", first, path)).code == "CODE_PATH_INVALID"


@pytest.mark.parametrize("path", ["nothing", "README.md", "src/link.py"])
async def test_a_path_that_is_no_folder_is_refused(checkouts, repository, first, path):
    """Absent, a file, a link."""
    assert (await failing(checkouts, f"file://{repository}", first, path)).code == "CODE_PATH_INVALID"


async def test_submodules_are_not_followed(checkouts, repository):
    """They leave nothing behind."""
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{ABSENT},src/sub")
    git(repository, "commit", "-qm", "a submodule")
    root = await checkouts.materialise(f"file://{repository}", git(repository, "rev-parse", "HEAD"), "src")
    assert not (root / "src" / "sub").exists()


@pytest.mark.parametrize("victim", ["objects", "HEAD", "shallow.lock"])
async def test_a_corrupt_mirror_is_fetched_again(checkouts, repository, first, tmp_path, victim):
    """Torn objects, a missing HEAD, a lock left by a killed git: the operator hears nothing of it."""
    url = f"file://{repository}"
    await checkouts.materialise(url, first, "src")
    (mirror,) = (tmp_path / "cache" / "mirrors").glob("[0-9a-f]*")
    if victim == "objects":
        for file in mirror.glob("objects/??/*"):
            file.chmod(0o600)
            os.truncate(file, 5)
    elif victim == "HEAD":
        (mirror / "HEAD").unlink()
    else:
        (mirror / "shallow.lock").touch()
    head = git(repository, "rev-parse", "HEAD")
    assert files(await checkouts.materialise(url, head, "src/inner")) == ["src/inner/helper.py"]
    assert files(await checkouts.materialise(url, first, "src/inner")) == ["src/inner/helper.py"]


async def test_cancellation_leaves_neither_git_nor_half_a_checkout(
    *, checkouts, first, git_server, tmp_path, until, children, entries
):
    """And the next attempt succeeds."""
    git_server.stall = True
    url = f"{git_server.server.url}/model/.git"
    running = asyncio.create_task(checkouts.materialise(url, first, "src"))
    await until(git_server.server.stalled.is_set)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert children("git") == []
    assert entries(tmp_path / "cache" / "checkouts") == []
    git_server.stall = False
    git_server.server.released.set()
    assert files(await checkouts.materialise(url, first, "src")) == ["src/inner/helper.py", "src/model.py"]


async def test_what_a_killed_daemon_left_is_swept(repository, first, tmp_path, breaker):
    """Half a checkout of an earlier life is gone after the start, and was never found."""
    left_over = tmp_path / "cache" / "checkouts" / ".staging" / "dead" / "tree"
    left_over.mkdir(parents=True)
    started = Checkouts(tmp_path / "cache", breaker)
    assert not left_over.exists()
    assert files(await started.materialise(f"file://{repository}", first, "src"))
