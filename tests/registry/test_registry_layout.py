"""What lies where in a registry, and what keeps a file from being read."""

from __future__ import annotations

import os

import pytest

from longshore.registry.repositories.entries import MAX_FILE_BYTES, MAX_FILES, Entry, Kind, tree_of
from longshore.registry.repositories.git import Git
from longshore.registry.repositories.local import read_local
from longshore.registry.validation.contents import read_contents
from longshore.registry.validation.layout import wanted
from longshore.registry.validation.loading import load_snapshot

FOLDERS = tree_of(
    dict.fromkeys(
        [
            f"{folder}/.gitkeep"
            for folder in ("models/production", "models/staging", "transactions", "workers", "errors")
        ],
        b"",
    )
)
FILE = Entry(Kind.FILE, 10)
A = "models/production/a.yaml"


def told(entries: dict[str, Entry]) -> list[tuple[str, str, str]]:
    """Return what is found in a registry of which nothing can be read."""
    tree = FOLDERS | entries
    found = read_contents(tree, dict.fromkeys(wanted(tree), b""))
    return [(issue.code, issue.file, issue.message) for issue in found.issues if "INVALID" not in issue.code] + [
        (issue.code, issue.file, issue.message) for issue in found.issues if issue.code == "STRUCTURE_INVALID"
    ]


@pytest.mark.parametrize("kind", [Kind.LINK, Kind.SUBMODULE])
@pytest.mark.parametrize(
    "path", [A, "workers/w.yaml", "workers/secrets/w.yaml", "models/staging/team", "models/README"]
)
def test_a_document_is_a_regular_file(kind, path):
    """A link or a submodule where documents are read is reported at its path, and not read."""
    assert told({path: Entry(kind)}) == [("PATH_NOT_REGULAR", path, f"{path} is a {kind}, not a file")]
    assert wanted(FOLDERS | {path: Entry(kind)}) == []


@pytest.mark.parametrize("folder", ["errors", "workers", "models/staging"])
def test_a_folder_is_a_folder(folder):
    """A link or a file in its place has one finding."""
    tree = {path: entry for path, entry in FOLDERS.items() if not path.startswith(folder)}
    for entry, code in ((Entry(Kind.LINK), "PATH_NOT_REGULAR"), (FILE, "STRUCTURE_INVALID")):
        found = read_contents(tree | {folder: entry}, {}).issues
        assert [(issue.code, issue.file) for issue in found] == [(code, folder)]


def test_links_elsewhere_are_nobodys_business():
    """Only what Longshore reads counts."""
    assert (
        told({"README.md": Entry(Kind.LINK), "tools": Entry(Kind.SUBMODULE), "transactions/x": Entry(Kind.LINK)}) == []
    )


def test_a_file_has_a_largest_size():
    """One byte more is not read, and nothing else is said of it; other files are none of it."""
    big = Entry(Kind.FILE, MAX_FILE_BYTES + 1)
    assert wanted(FOLDERS | {A: Entry(Kind.FILE, MAX_FILE_BYTES)}) == [A]
    assert wanted(FOLDERS | {A: big}) == []
    assert told({A: big}) == [("FILE_TOO_LARGE", A, f"{A} has more than 262,144 bytes")]
    assert told({"models/production/notes.md": big, "transactions/history/x.yaml": big}) == []


def test_a_registry_has_a_largest_number_of_files():
    """Past it nothing is read: there is one finding, not thousands."""
    files = {f"models/production/m{number}.yaml": FILE for number in range(MAX_FILES)}
    assert len(wanted(files)) == MAX_FILES
    found = told(files)
    assert [(code, file) for code, file, _ in found] == [("FILE_TOO_LARGE", "models")]
    assert "2,003 files; the limit is 2,000" in found[0][2]


def test_a_registry_has_a_largest_size():
    """Many files of an allowed size are too much together."""
    files = {f"models/production/m{number}.yaml": Entry(Kind.FILE, MAX_FILE_BYTES) for number in range(65)}
    found = told(files)
    assert [(code, file) for code, file, _ in found] == [("FILE_TOO_LARGE", "models")]
    assert "17,039,360 bytes; the limit is 16,777,216" in found[0][2]


@pytest.mark.parametrize(
    ("one", "other"),
    [(A, "models/production/A.yaml"), (A, "models/Production/a.yaml"), ("workers/é.yaml", "workers/e\u0301.yaml")],
)
def test_two_paths_that_some_systems_take_for_one(one, other):
    """On macOS or Windows a work tree would hold only one of them."""
    last = max(one, other)
    assert ("STRUCTURE_INVALID", last) in [
        (code, file) for code, file, message in told({one: FILE, other: FILE}) if "case" in message
    ]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("models/production/a\nb.yaml", "models/production/a\\nb.yaml"),
        ("workers/\udcff.yaml", "workers/\\udcff.yaml"),
        ("workers/\u202elmay.yaml", "workers/\\u202elmay.yaml"),
        ("workers/-w.yaml", "workers/-w.yaml"),
    ],
)
def test_a_path_that_cannot_be_shown_is_refused(path, shown):
    """It is not read, and stands escaped in the finding."""
    assert [(code, file) for code, file, _ in told({path: FILE})] == [("PATH_FORBIDDEN", shown)]
    assert wanted(FOLDERS | {path: FILE}) == []


async def test_a_commit_and_a_folder_tell_the_same(git: Git, remote, valid):
    """Sizes, links, submodules and odd names are found in a work tree as in the commit that is made of it."""
    remote.write(valid)
    (remote.work / "models/staging/link.yaml").symlink_to("/etc/passwd")
    (remote.work / "workers/secrets").mkdir()
    (remote.work / "models/production/large.yaml").write_text("x" * (MAX_FILE_BYTES + 1))
    (remote.work / os.fsdecode(b"workers/\xff.yaml")).write_text("x")
    remote.git("init", "-q", "models/staging/module")
    nested = ("-C", "models/staging/module", "-c", "user.name=o", "-c", "user.email=o@acme.com")
    remote.git(*nested, "commit", "-q", "--allow-empty", "-m", "x")
    lying = await read_local(remote.work, None, wanted, os.environ)
    sha = remote.commit({})
    committed = await read_local(remote.work, "HEAD", wanted, os.environ)
    assert lying.tree == committed.tree == await git.tree(remote.url, sha)
    assert lying.files == committed.files
    loaded = await load_snapshot(git, remote.url, sha, today=None)
    assert {(issue.code, issue.file) for issue in loaded.issues} == {
        ("PATH_NOT_REGULAR", "models/staging/link.yaml"),
        ("PATH_NOT_REGULAR", "models/staging/module"),
        ("FILE_TOO_LARGE", "models/production/large.yaml"),
        ("PATH_FORBIDDEN", "workers/\\udcff.yaml"),
    }
    assert loaded.result.model_dump_json()


async def test_a_folder_without_git_tells_it_too(tmp_path):
    """As an unpacked archive would lie there."""
    (tmp_path / "models/production").mkdir(parents=True)
    (tmp_path / "models/production/a.yaml").symlink_to("/etc/passwd")
    (tmp_path / "models/production/b.yaml").write_text("b")
    local = await read_local(tmp_path, None, wanted, os.environ)
    assert local.tree == {A: Entry(Kind.LINK), "models/production/b.yaml": Entry(Kind.FILE, 1)}
    assert local.files == {"models/production/b.yaml": b"b"}
