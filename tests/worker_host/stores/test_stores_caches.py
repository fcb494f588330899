"""The collector: what has not been asked for the longest goes first, and what is named stays."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from longshore.worker_host.stores.caches import collect
from longshore.worker_host.stores.shelves import Shelf

MIB = 1024 * 1024
NOW = 1_800_000_000.0
HOUR = 3600.0


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def shelf(cache):
    return Shelf(cache / "environments")


@pytest.fixture
def place():
    """Put a folder of a size on a shelf, last asked for some hours before NOW."""

    def put(shelf, key, *, mebibytes=1, hours=10):
        entry = shelf.entry(key)
        entry.mkdir()
        (entry / "bin").mkdir()
        (entry / "bin" / "python").symlink_to("/usr/bin/python3")
        (entry / "data").write_bytes(os.urandom(mebibytes * MIB))
        os.utime(entry, (NOW - hours * HOUR,) * 2)
        return entry

    return put


async def test_the_least_recently_used_goes_first(cache, shelf, place):
    """And no more than is needed."""
    for hours, key in enumerate(("young", "middle", "old"), start=5):
        place(shelf, key, hours=hours)
    result = await collect(cache, set(), int(2.5 * MIB), now=NOW)
    assert [path.name for path in result.removed] == ["old"]
    assert not shelf.entry("old").exists()
    assert shelf.entry("middle").exists()
    assert result.used <= 2.5 * MIB
    assert result.freed >= MIB


async def test_nothing_goes_below_the_bound(cache, shelf, place):
    """A cache that fits is left alone, however old."""
    place(shelf, "old", hours=1000)
    assert (await collect(cache, set(), 2 * MIB, now=NOW)).removed == ()


async def test_what_is_named_stays(cache, shelf, place):
    """Even the oldest, even when only a part of it is named, and that part a link that leads elsewhere."""
    old = place(shelf, "old", hours=1000)
    place(shelf, "young", hours=5)
    result = await collect(cache, {old / "bin" / "python"}, 0, now=NOW)
    assert [path.name for path in result.removed] == ["young"]
    assert (old / "data").exists()


async def test_what_was_asked_for_lately_stays(cache, shelf, place):
    """A command that is still collecting its materials has named nothing yet."""
    place(shelf, "fresh", hours=1)
    assert (await collect(cache, set(), 0, now=NOW)).removed == ()


async def test_being_asked_for_makes_young(cache, shelf, place):
    """Age is counted from the last use, not from the making."""
    place(shelf, "old", hours=1000)
    assert shelf.find("old")
    assert (await collect(cache, set(), 0)).removed == ()


async def test_a_file_with_two_names_is_counted_once(cache, place):
    """An artifact that a kept folder links to would free nothing: it stays, and is not counted twice."""
    objects, views = Shelf(cache / "objects"), Shelf(cache / "artifacts")
    view = place(views, "view", mebibytes=4, hours=5)
    os.link(view / "data", objects.entry("0" * 64))
    os.utime(objects.entry("0" * 64), (NOW - 1000 * HOUR,) * 2)
    kept = await collect(cache, {view}, 0, now=NOW)
    assert kept.removed == ()
    assert kept.used < 5 * MIB
    assert len((await collect(cache, set(), 0, now=NOW)).removed) == 2


async def test_shelves_of_all_kinds_are_one_cache(cache, shelf, place):
    """The bound is for all of it together."""
    other = Shelf(cache / "checkouts")
    place(shelf, "env", hours=5)
    place(other, "code", hours=6)
    result = await collect(cache, set(), int(1.5 * MIB), now=NOW)
    assert [path.name for path in result.removed] == ["code"]


async def test_what_is_no_shelf_is_not_touched(cache, shelf, place):
    """A folder that is not ours stays, whatever is in it."""
    place(shelf, "old")
    (cache / "strange").mkdir()
    (cache / "strange" / "file").write_bytes(bytes(MIB))
    os.utime(cache / "strange" / "file", (0, 0))
    await collect(cache, set(), 0, now=NOW)
    assert (cache / "strange" / "file").exists()


async def test_a_crash_half_way_leaves_whole_entries(cache, shelf, place, monkeypatch):
    """What was being removed is already out of sight, and the next start takes the rest away."""
    place(shelf, "old")

    def killed(*_args, **_options):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(MemoryError):
            await collect(cache, set(), 0, now=NOW)
    assert not shelf.entry("old").exists()
    assert any((cache / "environments" / ".staging").iterdir())
    Shelf(cache / "environments")
    assert not any((cache / "environments" / ".staging").iterdir())


async def test_an_entry_that_cannot_be_removed_keeps_no_other(cache, shelf, place, monkeypatch):
    """A sick disk under one entry ends neither the collection nor whoever has asked for it."""
    for hours, key in enumerate(("young", "old", "stuck"), start=5):
        place(shelf, key, hours=hours)
    rename = Path.rename

    def refuse_one(path, target):
        if path.name == "stuck":
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_one)
    result = await collect(cache, set(), int(2.5 * MIB), now=NOW)
    assert [path.name for path in result.removed] == ["old"]
