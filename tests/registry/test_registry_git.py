"""Git in: heads, ancestry, refs and files of real repositories."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil

import psutil
import pytest

from longshore.registry.repositories.git import Git
from longshore.registry.repositories.git_process import git_environment, remote_failure, shown
from longshore.schemas.failures import LongshoreError


async def eventually(condition) -> None:
    """Wait until `condition()` holds; what it watches happens in another process, which rings no bell."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 (see above)
            await asyncio.sleep(0.02)


async def test_the_head_of_a_branch_is_fetched_each_time(git, remote):
    """A push is seen by the next fetch, a forced one too."""
    first = remote.commit({"a": "1"})
    assert await git.fetch_branch(remote.url, "main") == first
    second = remote.commit({"a": "2"})
    assert await git.fetch_branch(remote.url, "main") == second
    remote.git("reset", "-q", "--hard", first)
    remote.push("--force")
    assert await git.fetch_branch(remote.url, "main") == first


async def test_files_are_read_at_their_commit_byte_for_byte(git, remote):
    """Old commits stay readable, and the last byte of each file is its own."""
    old = remote.commit({"models/a.yaml": "one\n", "models/ü b.yaml": "two", "empty": ""})
    new = remote.commit({"models/a.yaml": "changed\n\n"})
    await git.fetch_branch(remote.url, "main")
    assert set(await git.tree(remote.url, old)) == {"models/a.yaml", "models/ü b.yaml", "empty"}
    read = await git.read(remote.url, old, ["models/a.yaml", "models/ü b.yaml", "empty", "absent", "models"])
    assert read == {"models/a.yaml": b"one\n", "models/ü b.yaml": b"two", "empty": b""}
    assert (await git.read(remote.url, new, ["models/a.yaml"])) == {"models/a.yaml": b"changed\n\n"}


async def test_a_commit_says_who_and_what(git, remote):
    """Author, subject and time come from the commit."""
    sha = remote.commit({"a": "1"}, "Scale up\n\nBecause of the sale.")
    await git.fetch_branch(remote.url, "main")
    info = await git.commit(remote.url, sha)
    assert (info.sha, info.author, info.subject) == (sha, "Olga Ops <olga@acme.com>", "Scale up")
    assert info.time.tzinfo is not None


async def test_bookkeeping_on_top_does_not_move_the_effective_head(git, remote):
    """Commits that touch only transactions/ and errors/ are not news; one that touches more is."""
    change = remote.commit({"models/a.yaml": "1", "transactions/.gitkeep": ""})
    remote.commit({"transactions/actual-state.yaml": "x"})
    head = remote.commit({"errors/e.yaml": "x"})
    await git.fetch_branch(remote.url, "main")
    assert await git.effective_head(remote.url, head) == change
    both = remote.commit({"errors/f.yaml": "x", "README.md": "more"})
    await git.fetch_branch(remote.url, "main")
    assert await git.effective_head(remote.url, both) == both


async def test_a_merge_of_bookkeeping_with_a_change_is_effective(git, remote):
    """An operator who pulls the broker's commits and pushes makes news, that descends from all that was applied."""
    base = remote.commit({"models/a.yaml": "1"})
    remote.git("checkout", "-q", "-b", "operator")
    change = remote.commit({"models/a.yaml": "2"})
    remote.git("checkout", "-q", "main")
    remote.commit({"transactions/actual-state.yaml": "x"})
    remote.git("merge", "-q", "--no-ff", "-m", "merge", "operator")
    remote.push()
    head = remote.commit({"transactions/actual-state.yaml": "y"})
    await git.fetch_branch(remote.url, "main")
    effective = await git.effective_head(remote.url, head)
    assert effective == remote.git("rev-parse", "HEAD~1")
    assert await git.is_ancestor(remote.url, base, effective)
    assert await git.is_ancestor(remote.url, change, effective)


async def test_a_merge_that_keeps_one_side_still_descends_from_the_other(git, remote):
    """`merge -s ours` leaves the files as they were, yet what was applied before must not look rewritten."""
    remote.commit({"models/a.yaml": "1"})
    remote.git("checkout", "-q", "-b", "operator")
    remote.commit({"models/a.yaml": "3"})
    remote.git("checkout", "-q", "main")
    applied = remote.commit({"models/a.yaml": "2"})
    remote.git("checkout", "-q", "operator")
    remote.git("merge", "-q", "-s", "ours", "-m", "mine", "main")
    remote.git("checkout", "-q", "main")
    remote.git("merge", "-q", "--ff-only", "operator")
    head = remote.commit({"errors/e.yaml": "x"})
    await git.fetch_branch(remote.url, "main")
    effective = await git.effective_head(remote.url, head)
    assert await git.is_ancestor(remote.url, applied, effective)
    assert effective == remote.git("rev-parse", "HEAD~1")


async def test_two_branches_that_end_alike_have_their_merge_as_effective_head(git, remote):
    """Neither side's commit descends from the other's, so only the merge descends from whichever was applied."""
    remote.commit({"models/a.yaml": "1"})
    remote.git("checkout", "-q", "-b", "operator")
    one = remote.commit({"models/a.yaml": "2"}, "the same, here")
    remote.git("checkout", "-q", "main")
    other = remote.commit({"models/a.yaml": "2"}, "the same, there")
    remote.git("merge", "-q", "-m", "merge", "operator")
    merge = remote.git("rev-parse", "HEAD")
    head = remote.commit({"transactions/x": "x"})
    await git.fetch_branch(remote.url, "main")
    effective = await git.effective_head(remote.url, head)
    assert effective == merge
    assert await git.is_ancestor(remote.url, one, effective)
    assert await git.is_ancestor(remote.url, other, effective)


async def test_a_registry_of_bookkeeping_only_has_its_head(git, remote):
    """There is nothing else to answer with."""
    head = remote.commit({"transactions/.gitkeep": ""})
    await git.fetch_branch(remote.url, "main")
    assert await git.effective_head(remote.url, head) == head


async def test_a_broker_with_an_empty_cache_sees_that_history_was_rewritten(git, remote):
    """The commit that runs may be on no host any more: nothing descends from it, and it from nothing."""
    applied = remote.commit({"a": "1"})
    remote.git("commit", "-q", "--amend", "-m", "rewritten")
    remote.push("--force")
    remote.in_bare("gc", "-q", "--prune=now")
    forced = await git.fetch_branch(remote.url, "main")
    assert not await git.is_ancestor(remote.url, forced, applied)
    assert not await git.is_ancestor(remote.url, applied, forced)


async def test_ancestry_tells_forward_from_rewritten(git, remote):
    """A commit is its own ancestor; one that the rewritten branch dropped, or that nobody knows, is none."""
    first = remote.commit({"a": "1"})
    dropped = remote.commit({"a": "2"})
    await git.fetch_branch(remote.url, "main")
    remote.git("reset", "-q", "--hard", first)
    remote.write({"a": "3"})
    remote.git("commit", "-q", "-am", "rewritten")
    remote.push("--force")
    forced = await git.fetch_branch(remote.url, "main")
    assert await git.is_ancestor(remote.url, first, forced)
    assert await git.is_ancestor(remote.url, forced, forced)
    assert not await git.is_ancestor(remote.url, dropped, forced)
    assert not await git.is_ancestor(remote.url, "0" * 40, forced)


async def test_a_commit_is_fetched_where_another_broker_saw_it_first(git, remote):
    """Every question brings what this cache does not have, even a commit that no branch holds any more."""
    first = remote.commit({"a": "1"})
    second = remote.commit({"a": "2"})
    remote.git("reset", "-q", "--hard", first)
    remote.push("--force")
    for number, ask in enumerate(("tree", "commit", "effective_head")):
        assert await getattr(Git(git._root / str(number)), ask)(remote.url, second)
    assert await git.read(remote.url, second, ["a"]) == {"a": b"2"}


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("file:///nowhere/at/all.git", "REPOSITORY_NOT_FOUND"),
        ("http://127.0.0.1:1/registry.git", "GIT_UNREACHABLE"),
        ("ext::sh -c 'touch {mark}'", "GIT_UNREACHABLE"),
    ],
)
async def test_a_host_that_does_not_answer_has_a_code(git, tmp_path, url, code):
    """What may come back is retriable, what is not there is not, and no program is started from a URL."""
    mark = tmp_path / "mark"
    with pytest.raises(LongshoreError, match=code):
        await git.fetch_branch(url.format(mark=mark), "main")
    assert not mark.exists()


async def test_a_branch_that_is_not_there_makes_the_registry_unreadable(git, remote):
    """An empty repository, another default branch, a deleted head: the branch is named, and nothing is retried."""
    with pytest.raises(LongshoreError, match=r"REGISTRY_UNREADABLE.*no branch main"):
        await git.fetch_branch(remote.url, "main")
    sha = remote.commit({"a": "1"})
    with pytest.raises(LongshoreError, match=r"REGISTRY_UNREADABLE.*no branch other"):
        await git.fetch_branch(remote.url, "other")
    assert await git.fetch_branch(remote.url, "main") == sha
    remote.in_bare("update-ref", "-d", "refs/heads/main")
    with pytest.raises(LongshoreError, match=r"REGISTRY_UNREADABLE.*no branch main"):
        await git.fetch_branch(remote.url, "main")


async def test_many_tasks_and_two_processes_share_a_cache(git, remote):
    """Concurrent fetches of one repository do not trip over git's own locks."""
    sha = remote.commit({"a": "1"}, tag="v1.0.0")
    other = Git(git._root, git.policy)
    answers = await asyncio.gather(
        *(g.fetch_branch(remote.url, "main") for g in (git, other) for _ in range(4)),
        *(g.resolve(remote.url, "v1.0.0") for g in (git, other)),
    )
    assert set(answers) == {sha}


@pytest.mark.parametrize("damage", ["refs/heads/main.lock", "half made", "torn", "emptied"])
async def test_a_damaged_cache_is_built_again(git, remote, damage):
    """A lock left by kill -9 or a torn object costs a second fetch, not an operator."""
    first = remote.commit({"a": "1"})
    await git.fetch_branch(remote.url, "main")
    cache = git._registry(remote.url).directory
    if damage.endswith(".lock"):
        (cache / damage).touch()
    elif damage == "half made":
        shutil.rmtree(cache / "objects")
    else:
        for file in (cache / "objects").rglob("*"):
            if file.is_file():
                file.chmod(0o600)
                file.write_bytes(b"" if damage == "emptied" else b"torn")
    second = remote.commit({"a": "2"})
    for _ in range(2):
        with contextlib.suppress(LongshoreError):
            await git.fetch_branch(remote.url, "main")
    assert await git.fetch_branch(remote.url, "main") == second
    assert await git.read(remote.url, second, ["a"]) == {"a": b"2"}
    assert await git.is_ancestor(remote.url, first, second)


async def test_a_cancelled_fetch_leaves_no_process(tmp_path):
    """The whole process group goes with the task."""
    mark = tmp_path / "ssh-was-here"
    ssh = f"sh -c 'echo $$ > {mark}; sleep 60' x"
    git = Git(tmp_path / "cache", environment={**os.environ, "GIT_SSH_COMMAND": ssh})
    task = asyncio.create_task(git.fetch_branch("ssh://host/registry.git", "main"))
    await eventually(lambda: mark.exists() and mark.read_text().endswith("\n"))
    pid = int(mark.read_text())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_only_what_git_needs_of_the_environment_passes():
    """A GIT_DIR inherited from a hook, or configuration by variables, would redirect us."""
    passed = git_environment(
        {"PATH": "/bin", "GIT_DIR": "/x", "GIT_CONFIG_COUNT": "1", "SSH_AUTH_SOCK": "/s", "SECRET": "s"}
    )
    assert passed["PATH"] == "/bin"
    assert passed["SSH_AUTH_SOCK"] == "/s"
    assert not {"GIT_DIR", "GIT_CONFIG_COUNT", "SECRET"} & set(passed)


def test_no_message_shows_a_token_of_a_url():
    """People put tokens in URLs; messages and files do not repeat them."""
    url = "https://user:s3cret@git.acme.com/x.git"
    assert shown(url) == "https://git.acme.com/x.git"
    assert shown("https://user:p@ss@git.acme.com/x.git") == "https://git.acme.com/x.git"
    failure = remote_failure(url, f"fatal: unable to access '{url}/': Could not resolve host").failure
    assert "s3cret" not in failure.model_dump_json()
