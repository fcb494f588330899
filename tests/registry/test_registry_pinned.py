"""Pinned refs of model repositories: where a tag or a commit id leads, and a file at that commit."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from longshore.registry.repositories.git import Git
from longshore.schemas.failures import LongshoreError
from longshore.schemas.policies import RepositoryPolicy


def another(git: Git, name: str) -> Git:
    """Return the git of a process that has seen nothing yet."""
    return Git(git._root / name, git.policy)


async def test_a_ref_is_a_tag_or_a_commit_id(git, remote):
    """Annotated and plain tags, full and short ids lead to the full id of the commit."""
    sha = remote.commit({"a": "1"}, tag="v1.0.0")
    remote.git("tag", "-a", "-m", "annotated", "v1.0.1")
    remote.push()
    remote.commit({"a": "2"})
    for ref in ("v1.0.0", "v1.0.1", sha, sha[:7], sha[:20]):
        resolving = another(git, ref)
        assert await resolving.resolve(remote.url, ref) == sha
        assert await resolving.read_file(remote.url, sha, "a") == b"1"


async def test_only_one_commit_is_fetched_of_a_tag(git, remote):
    """A deep history costs nothing."""
    before = remote.commit({"a": "1"})
    remote.commit({"a": "2"}, tag="v1.0.0")
    await git.resolve(remote.url, "v1.0.0")
    shutil.rmtree(remote.bare)
    with pytest.raises(LongshoreError, match="REPOSITORY_NOT_FOUND"):
        await git.read_file(remote.url, before, "a")


@pytest.mark.parametrize(
    "ref", ["main", "v1.0", "v1.0.0\n", "v१.0.0", "-v1.0.0", "v1.0.0^{}", "HEAD", "abcdef", "a" * 41, "A" * 40]
)
async def test_a_ref_that_is_not_pinned_is_refused(git, remote, ref):
    """Whatever the manifest's own check let through, git is not asked."""
    remote.commit({"a": "1"}, tag="v1.0.0")
    with pytest.raises(LongshoreError, match="REF_UNPINNED"):
        await git.resolve(remote.url, ref)


@pytest.mark.parametrize("branch", ["v9.9.9", "refs/tags/v9.9.9", "tags/v9.9.9"])
async def test_a_branch_never_serves_as_a_tag(git, remote, branch):
    """Not even one that git's own rules of abbreviation would take for it."""
    remote.commit({"a": "1"})
    remote.git("branch", branch)
    remote.push()
    code = "REF_NOT_TAG" if branch == "v9.9.9" else "REF_NOT_FOUND"
    with pytest.raises(LongshoreError, match=code):
        await git.resolve(remote.url, "v9.9.9")


@pytest.mark.parametrize("name", ["deadbeef", "deadbeef" * 5])
async def test_a_ref_that_looks_like_an_id_is_none(git, remote, name):
    """Only an object's id counts for an id."""
    sha = remote.commit({"a": "1"})
    for kind in ("heads", "tags"):
        remote.in_bare("update-ref", f"refs/{kind}/{name}", sha)
    with pytest.raises(LongshoreError, match=r"REF_NOT_FOUND.*no commit deadbeef"):
        await git.resolve(remote.url, name)


@pytest.mark.parametrize("target", ["HEAD:small", "HEAD:large", "HEAD^{tree}"])
@pytest.mark.parametrize("annotated", [True, False])
async def test_a_tag_of_something_else_is_refused(git, remote, target, annotated):
    """A tag on a file or a folder leads to no commit, and leaves the commit's other tags alone."""
    remote.in_bare("config", "uploadpack.allowFilter", "true")
    sha = remote.commit({"small": "1", "large": "x" * 300_000}, tag="v1.0.0")
    options = ("-a", "-m", "odd") if annotated else ()
    remote.git("tag", *options, "v1.0.1", remote.git("rev-parse", target))
    remote.push()
    with pytest.raises(LongshoreError, match=r"REF_NOT_COMMIT.*no commit"):
        await git.resolve(remote.url, "v1.0.1")
    assert await git.resolve(remote.url, "v1.0.0") == sha
    assert await git.resolve(remote.url, sha[:8]) == sha


async def test_a_tag_that_was_put_right_is_found(git, remote):
    """A refused tag is asked for again."""
    sha = remote.commit({"a": "1"})
    remote.git("tag", "v1.0.0", remote.git("rev-parse", "HEAD:a"))
    remote.push()
    with pytest.raises(LongshoreError, match="REF_NOT_COMMIT"):
        await git.resolve(remote.url, "v1.0.0")
    remote.git("tag", "-f", "v1.0.0", sha)
    remote.push("--force")
    assert await git.resolve(remote.url, "v1.0.0") == sha


async def test_an_id_of_something_else_is_refused(git, remote):
    """The id of a file, a folder or an annotated tag is no commit's."""
    remote.commit({"a": "1"})
    remote.git("tag", "-a", "-m", "annotated", "v1.0.0")
    remote.push()
    for what in ("HEAD:a", "HEAD^{tree}", "v1.0.0"):
        with pytest.raises(LongshoreError, match="REF_NOT_COMMIT"):
            await git.resolve(remote.url, remote.git("rev-parse", what))


async def test_an_ambiguous_id_names_its_candidates(git, remote):
    """Two commits with one prefix are an error that lists both."""
    # 30,000 commits with fixed contents and times, hence fixed ids, of which some share seven digits.
    when = "Olga <olga@acme.com> 1700000000 +0000"
    stream = "".join(f"commit refs/heads/main\ncommitter {when}\ndata 5\n{number:05}\n" for number in range(30_000))
    remote.in_bare("fast-import", "--quiet", stdin=stream)
    prefixes: dict[str, list[str]] = {}
    for sha in remote.in_bare("rev-list", "main").split():
        prefixes.setdefault(sha[:7], []).append(sha)
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
    assert await Git(git._root, git.policy).resolve(remote.url, "v1.0.0") == first


async def test_what_was_read_once_needs_no_git_again(git, remote):
    """Resolved refs and contents are remembered: a second validation starts no process, and needs no host."""
    sha = remote.commit({"model-card.yaml": "x"}, tag="v1.0.0")
    await git.resolve(remote.url, "v1.0.0")
    await git.read_file(remote.url, sha, "model-card.yaml")
    shutil.rmtree(remote.bare)
    shutil.rmtree(git._root)
    git._root.mkdir()
    assert await git.resolve(remote.url, "v1.0.0") == sha
    assert await git.read_file(remote.url, sha, "model-card.yaml") == b"x"


async def test_one_repository_can_be_the_registry_and_a_model(git, remote):
    """What is fetched of it in one role has gaps, and never meets what is fetched in the other."""
    first = remote.commit({"a": "1"})
    second = remote.commit({"a": "2"}, tag="v1.0.0")
    assert await git.resolve(remote.url, "v1.0.0") == second
    assert await git.fetch_branch(remote.url, "main") == second
    assert await git.is_ancestor(remote.url, first, second)


async def test_many_tasks_and_two_processes_resolve_at_once(git, remote):
    """Concurrent fetches of one repository do not trip over git's own locks."""
    shas = {f"v1.0.{number}": remote.commit({"a": str(number)}, tag=f"v1.0.{number}") for number in range(4)}
    other = Git(git._root, git.policy)
    answers = await asyncio.gather(*(one.resolve(remote.url, tag) for one in (git, other) for tag in (*shas, *shas)))
    assert answers == [*shas.values()] * 4


async def test_a_host_of_the_old_protocol_hands_out_commits_too(tmp_path: Path, remote):
    """One that gives no commit by its id alone is asked for everything, after a tag of it as well."""
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\nunset GIT_PROTOCOL\nfor command; do :; done\nexec sh -c "$command"\n')
    ssh.chmod(0o755)
    git = Git(tmp_path / "cache", RepositoryPolicy(), environment={**os.environ, "GIT_SSH_COMMAND": str(ssh)})
    url = f"ssh://git@host.example{remote.bare}"
    first = remote.commit({"a": "1"})
    second = remote.commit({"a": "2"}, tag="v1.0.0")
    assert await git.resolve(url, "v1.0.0") == second
    assert await git.resolve(url, first) == first
    assert await git.read_file(url, first, "a") == b"1"
    with pytest.raises(LongshoreError, match=f"REF_NOT_FOUND.*no commit {'1' * 40}"):
        await git.resolve(url, "1" * 40)


@pytest.mark.parametrize("path", ["absent", "folder", ":a", ":(top)a", "*", "a:b", "é", " a", "a "])
async def test_what_is_no_file_is_not_there(git, remote, path):
    """git takes no path for a pattern, and none for more than it says."""
    sha = remote.commit({"a": "1", "folder/b": "2"}, tag="v1.0.0")
    assert await git.read_file(remote.url, sha, path) is None
    assert await git.read_file(remote.url, sha, "a") == b"1"
    assert await git.read_file(remote.url, sha, "folder/b") == b"2"


@pytest.mark.parametrize("path", ["../a", "/a", "./a", "a/", "a//b", "", ".", "-a", "--batch", "a\nb", ".git/config"])
async def test_a_path_that_could_mislead_is_refused(git, remote, path):
    """Whatever a manifest names as its card's path, git is not asked."""
    sha = remote.commit({"a": "1"})
    with pytest.raises(LongshoreError, match="PATH_FORBIDDEN"):
        await git.read_file(remote.url, sha, path)


async def test_links_and_submodules_are_not_followed(git, remote):
    """A card is a regular file, or none."""
    sha = remote.commit({"secret": "s"})
    (remote.work / "link").symlink_to("secret")
    (remote.work / "outside").symlink_to("/etc/passwd")
    (remote.work / "folder").symlink_to(".")
    remote.git("add", "-A")
    remote.git("update-index", "--add", "--cacheinfo", f"160000,{sha},module")
    remote.git("commit", "-q", "-m", "links")
    remote.push()
    sha = remote.git("rev-parse", "HEAD")
    for path, what in (("link", "link"), ("outside", "link"), ("folder", "link"), ("module", "submodule")):
        with pytest.raises(LongshoreError, match=f"PATH_NOT_REGULAR.*{path} is a .*{what}"):
            await git.read_file(remote.url, sha, path)
    for path in ("folder/secret", "module/secret"):
        assert await git.read_file(remote.url, sha, path) is None


async def test_an_executable_file_is_a_file(git, remote):
    """Mode 100755 is regular, too."""
    remote.write({"a": "1"})
    (remote.work / "a").chmod(0o755)
    sha = remote.commit({})
    assert await git.read_file(remote.url, sha, "a") == b"1"
