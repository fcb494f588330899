"""Git in: heads, ancestry, refs and files of real repositories."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil

import psutil
import pytest

from longshore.registry.git import Git
from longshore.registry.git_process import git_environment, remote_failure, shown
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
    assert set(await git.paths(remote.url, old)) == {"models/a.yaml", "models/ü b.yaml", "empty"}
    read = await git.read(remote.url, old, ["models/a.yaml", "models/ü b.yaml", "empty", "absent", "models"])
    assert read == {"models/a.yaml": b"one\n", "models/ü b.yaml": b"two", "empty": b""}
    assert (await git.read(remote.url, new, ["models/a.yaml"])) == {"models/a.yaml": b"changed\n\n"}


@pytest.mark.parametrize("path", ["./a", "../a", "/a", ".", "", "a/", "a//b", "a\nb", "-a", ":a", "--batch", "é"])
async def test_a_path_that_no_tree_holds_is_no_file(git, remote, path):
    """Whatever a manifest names as its card's path, git answers or is not asked, and the cache stays whole."""
    sha = remote.commit({"a": "1"})
    await git.require(remote.url, sha)
    assert await git.read(remote.url, sha, [path, "a"]) == {"a": b"1"}


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
    for number, ask in enumerate(("paths", "commit", "effective_head")):
        assert await getattr(Git(git._root / str(number)), ask)(remote.url, second)
    assert await git.read(remote.url, second, ["a"]) == {"a": b"2"}


async def test_a_ref_is_a_tag_or_a_commit_id(git, remote):
    """Annotated and plain tags, full and short ids lead to the full id of the commit."""
    sha = remote.commit({"a": "1"}, tag="v1.0.0")
    remote.git("tag", "-a", "-m", "annotated", "v1.0.1")
    remote.push()
    for ref in ("v1.0.0", "v1.0.1", sha, sha[:7], sha[:20]):
        assert await Git(git._root / ref).resolve(remote.url, ref) == sha


async def test_a_branch_that_looks_like_a_ref_is_none(git, remote):
    """Only `refs/tags/` counts for a tag, and only an object's id for an id."""
    remote.commit({"a": "1"})
    remote.git("branch", "v9.9.9")
    remote.git("branch", "deadbeef")
    remote.push()
    for ref in ("v9.9.9", "deadbeef"):
        with pytest.raises(LongshoreError, match="REF_NOT_FOUND"):
            await git.resolve(remote.url, ref)


async def test_a_tag_of_something_else_is_refused(git, remote):
    """A tag on a file or a folder leads to no commit."""
    remote.commit({"a": "1"})
    remote.git("tag", "v1.0.0", remote.git("rev-parse", "HEAD:a"))
    remote.push()
    with pytest.raises(LongshoreError, match=r"REF_NOT_FOUND.*no commit"):
        await git.resolve(remote.url, "v1.0.0")


async def test_an_ambiguous_id_names_its_candidates(git, remote):
    """Two commits with one prefix are an error that lists both."""
    # 1,000 commits with fixed contents and times, hence fixed ids, of which some share four digits.
    when = "Olga <olga@acme.com> 1700000000 +0000"
    stream = "".join(f"commit refs/heads/main\ncommitter {when}\ndata 4\n{number:04}\n" for number in range(1000))
    remote.in_bare("fast-import", "--quiet", stdin=stream)
    prefixes: dict[str, list[str]] = {}
    for sha in remote.in_bare("rev-list", "main").split():
        prefixes.setdefault(sha[:4], []).append(sha)
    prefix, candidates = next(item for item in prefixes.items() if len(item[1]) > 1)
    with pytest.raises(LongshoreError, match="REF_AMBIGUOUS") as caught:
        await git.resolve(remote.url, prefix)
    assert all(sha in str(caught.value) for sha in candidates)


async def test_a_tag_keeps_the_commit_it_was_first_seen_with(git, remote):
    """Tags are immutable (PRD §1): moving one changes nothing for who has used it."""
    first = remote.commit({"a": "1"}, tag="v1.0.0")
    assert await git.resolve(remote.url, "v1.0.0") == first
    remote.commit({"a": "2"})
    remote.git("tag", "-f", "v1.0.0")
    remote.push("--force")
    assert await git.resolve(remote.url, "v1.0.0") == first
    assert await Git(git._root).resolve(remote.url, "v1.0.0") == first


async def test_what_was_read_once_needs_no_git_again(git, remote):
    """Resolved refs and contents are remembered: a second validation starts no process, and needs no host."""
    sha = remote.commit({"model-card.yaml": "x"}, tag="v1.0.0")
    await git.resolve(remote.url, "v1.0.0")
    await git.read(remote.url, sha, ["model-card.yaml"])
    shutil.rmtree(remote.bare)
    shutil.rmtree(git._root)
    git._root.mkdir()
    assert await git.resolve(remote.url, "v1.0.0") == sha


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("file:///nowhere/at/all.git", "REPOSITORY_NOT_FOUND"),
        ("http://127.0.0.1:1/registry.git", "GIT_UNREACHABLE"),
        ("ext::sh -c 'exit 1'", "GIT_UNREACHABLE"),
    ],
)
async def test_a_host_that_does_not_answer_has_a_code(git, url, code):
    """What may come back is retriable, what is not there is not, and no program is started from a URL."""
    with pytest.raises(LongshoreError, match=code):
        await git.fetch_branch(url, "main")


async def test_an_absent_branch_has_a_code(git, remote):
    """The branch is named."""
    remote.commit({"a": "1"})
    with pytest.raises(LongshoreError, match=r"REF_NOT_FOUND.*heads/other"):
        await git.fetch_branch(remote.url, "other")


async def test_many_tasks_and_two_processes_share_a_cache(git, remote):
    """Concurrent fetches of one repository do not trip over git's own locks."""
    sha = remote.commit({"a": "1"}, tag="v1.0.0")
    other = Git(git._root)
    answers = await asyncio.gather(
        *(g.fetch_branch(remote.url, "main") for g in (git, other) for _ in range(4)),
        *(g.resolve(remote.url, "v1.0.0") for g in (git, other)),
    )
    assert set(answers) == {sha}


@pytest.mark.parametrize("damage", ["lock", "pack", "empty object"])
async def test_a_damaged_cache_is_built_again(git, remote, damage):
    """A lock left by kill -9 or a torn object costs a second fetch, not an operator."""
    first = remote.commit({"a": "1"})
    await git.fetch_branch(remote.url, "main")
    cache = git._repository(remote.url).directory
    if damage == "lock":
        (cache / "refs/heads/main.lock").touch()
    else:
        for file in (cache / "objects").rglob("*"):
            if file.is_file():
                file.chmod(0o600)
                file.write_bytes(b"" if damage == "empty object" else b"torn")
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
