"""What a git host says of its tags, and what is made of it."""

from __future__ import annotations

import pytest

from longshore.registry.records.pins import Tag
from longshore.registry.validation.resolving import Resolver
from longshore.schemas.failures import LongshoreError


async def resolved(git, url: str, ref: str, pins: dict[Tag, str] | None = None) -> str:
    return await Resolver(git, pins or {}).resolve(url, ref, ask=True)


async def test_an_annotated_tag_leads_to_its_commit(git, remote):
    """A tag that is an object of its own is no other commit: neither for us nor for the comparison."""
    sha = remote.commit({"a": "1"})
    remote.git("tag", "-a", "v1.0.0", "-m", "Release")
    remote.git("tag", "v1.0.0-light")
    remote.push()
    assert await git.tags(remote.url) == {"v1.0.0": sha, "v1.0.0-light": sha}
    assert await resolved(git, remote.url, "v1.0.0", {(remote.url, "v1.0.0"): sha}) == sha


async def test_a_branch_or_a_folder_of_that_name_is_not_the_tag(git, remote):
    """A pinned tag is compared with the tag alone."""
    sha = remote.commit({"a": "1"}, tag="v1.0.0")
    remote.git("checkout", "-q", "-b", "v1.0.0")
    remote.commit({"a": "2"})
    remote.git("tag", "team/v1.0.0")
    remote.push()
    assert await resolved(git, remote.url, "v1.0.0", {(remote.url, "v1.0.0"): sha}) == sha


async def test_a_commit_id_is_asked_of_nobody(git, remote):
    """It cannot move, so a cached one needs no host."""
    sha = remote.commit({"a": "1"})
    await git.resolve(remote.url, sha[:10])
    remote.bare.rename(remote.bare.with_suffix(".away"))
    assert await resolved(git, remote.url, sha[:10]) == sha


async def test_a_tag_that_was_taken_away_before_its_first_use_is_not_found(git, remote):
    """Although the cache still has it."""
    remote.commit({"a": "1"}, tag="v1.0.0")
    await git.resolve(remote.url, "v1.0.0")
    remote.in_bare("tag", "-d", "v1.0.0")
    with pytest.raises(LongshoreError, match="REF_NOT_FOUND"):
        await resolved(git, remote.url, "v1.0.0")


async def test_a_pinned_commit_that_is_not_cached_waits_for_its_host(git):
    """GIT_UNREACHABLE is tried again: nothing is taken in its place."""
    with pytest.raises(LongshoreError, match="GIT_UNREACHABLE"):
        await resolved(git, "http://127.0.0.1:1/x.git", "v1.0.0", {("http://127.0.0.1:1/x.git", "v1.0.0"): "1" * 40})
