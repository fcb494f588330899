"""Questions to one object database: no network, no work tree, nothing but what is already there."""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from longshore.registry.repositories.entries import Entry, Kind
from longshore.registry.repositories.git_process import GitFailed, run_git
from longshore.schemas.failures import LongshoreError

# What the broker writes, and all that it may write. A commit that touches nothing else starts nothing (DESIGN §7).
BROKERS_OWN = ("transactions", "errors")
# No dot begins a name and no line ends in one: neither `..` nor a second command for git fast-import gets through.
_BROKERS_FILE = re.compile(rf"({'|'.join(BROKERS_OWN)})(/[A-Za-z0-9][A-Za-z0-9._-]*)+")
_ALL_BUT_BROKERS_OWN = ("--", ".", *(f":(exclude,top){folder}" for folder in BROKERS_OWN))


@dataclass(frozen=True)
class CommitInfo:
    sha: str
    author: str
    """`Name <e-mail>`."""
    subject: str
    time: datetime
    """When it was committed, in UTC."""


@dataclass(frozen=True)
class Author:
    """Who writes a commit, and when."""

    name: str
    email: str
    time: datetime


_KINDS = {"120000": Kind.LINK, "160000": Kind.SUBMODULE}  # by mode; all else is a file


class Repository:
    """One git directory, bare or not. Methods raise GitFailed where git cannot read what should be there."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = directory
        self.environment = environment

    async def git(self, *args: str, stdin: bytes = b"", accept: Collection[int] = (0,), limit: float = 60.0) -> str:
        ended = await run_git(
            self.directory, args, environment=self.environment, stdin=stdin, accept=tuple(accept), limit=limit
        )
        return ended.text

    async def commit_id(self, name: str) -> str | None:
        """Return the full id of the commit that `name` (any revision) leads to, or None."""
        found = await self.git(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}", accept=(0, 1, 128)
        )
        return found or None

    async def commits_with_prefix(self, prefix: str) -> list[str]:
        """Return the ids of all commits that begin with `prefix` (at least 4 hex digits), if there is a repository."""
        candidates = (await self.git("rev-parse", f"--disambiguate={prefix}", accept=(0, 128))).split()
        if not candidates:
            return []
        types = await self.git(
            "cat-file", "--batch-check=%(objectname) %(objecttype)", stdin="\n".join(candidates).encode() + b"\n"
        )
        return [line.split()[0] for line in types.splitlines() if line.endswith(" commit")]

    async def commit(self, sha: str) -> CommitInfo:
        text = await self.git("show", "--no-patch", "--format=%H%n%an <%ae>%n%ct%n%s", "--end-of-options", sha)
        full, author, seconds, subject = (*text.split("\n", 3), "")[:4]
        return CommitInfo(full, author, subject, datetime.fromtimestamp(int(seconds), UTC))

    async def tree(self, treeish: str) -> dict[str, Entry]:
        """Return what lies at every path of a commit or tree, folders apart."""
        listing = ("ls-tree", "-r", "-l", "-z", "--full-tree", "--end-of-options", treeish)
        ended = await run_git(self.directory, listing, environment=self.environment)
        return dict(map(_entry, filter(None, ended.stdout.decode("utf-8", "surrogateescape").split("\0"))))

    async def top(self, commit: str) -> dict[str, str]:
        """Return what the root folder of a commit holds: name → mode, type and id, that of a folder for all in it."""
        listing = await self.git("ls-tree", "-z", "--full-tree", "--end-of-options", commit)
        entries = (entry.split("\t", 1) for entry in listing.split("\0") if entry)
        return {name: meta for meta, name in entries}

    async def kind(self, commit: str, path: str) -> Kind | None:
        """Return what lies at `path`; None for a folder, or for nothing."""
        listing = ("ls-tree", "-z", "--full-tree", "--end-of-options", commit, path)
        literal = {**self.environment, "GIT_LITERAL_PATHSPECS": "1"}
        ended = await run_git(self.directory, listing, environment=literal)
        mode, kind = (*ended.stdout.decode("utf-8", "surrogateescape").split(), "", "")[:2]
        return None if kind in {"", "tree"} else _KINDS.get(mode, Kind.FILE)

    async def size(self, name: str) -> int | None:
        """Return the size in bytes of an object, or None where it was never fetched."""
        question = ("cat-file", "--batch-check=%(objectsize)")
        ended = await run_git(self.directory, question, environment=self.environment, stdin=name.encode() + b"\n")
        if ended.text.isdigit():
            return int(ended.text)
        if ended.stderr:  # it is here, and torn
            raise GitFailed("cat-file", ended)
        return None

    async def blobs(self, names: Collection[str]) -> dict[str, bytes]:
        """Return the content of each blob, named by id or as `<commit>:<path>`; what is no blob is left out."""
        names = [name for name in names if "\n" not in name]
        if not names:
            return {}
        ended = await run_git(
            self.directory,
            ("cat-file", "--batch"),
            environment=self.environment,
            stdin="\n".join(names).encode("utf-8", "surrogateescape") + b"\n",
        )
        contents: dict[str, bytes] = {}
        rest = memoryview(ended.stdout)
        for name in names:
            header, _, _ = bytes(rest[: len(name.encode("utf-8", "surrogateescape")) + 200]).partition(b"\n")
            rest = rest[len(header) + 1 :]
            if header.endswith((b" missing", b" ambiguous")):
                continue
            _, kind, size = header.split()
            if kind == b"blob":
                contents[name] = bytes(rest[: int(size)])
            rest = rest[int(size) + 1 :]
        return contents

    async def add_commit(self, base: str, files: Mapping[str, bytes], message: str, author: Author) -> str:
        """Put `files` on top of commit `base` and return the new commit's id; no branch moves.

        It is the only way in which a commit of ours comes about. Raises LongshoreError INTERNAL_ERROR for a file that
        is not the broker's to write (B123).
        """
        for path in files:
            if _BROKERS_FILE.fullmatch(path) is None:
                raise LongshoreError("INTERNAL_ERROR", f"the broker was about to write {path!r}; nothing was committed")
        name = f"refs/longshore/{uuid.uuid4().hex}"
        who = f"committer {author.name} <{author.email}> {int(author.time.timestamp())} +0000\n"
        stream = [f"commit {name}\n{who}".encode(), _sized(message.encode()), f"from {base}\n".encode()]
        for path, content in files.items():
            stream += [f"M 100644 inline {path}\n".encode(), _sized(content)]
        await self.git("fast-import", "--quiet", "--force", stdin=b"".join(stream))
        commit = await self.git("rev-parse", name)
        await self.git("update-ref", "-d", name)
        return commit

    async def is_ancestor(self, older: str, newer: str) -> bool:
        """Tell whether `newer` descends from `older`, or is it. A commit that is not there is nobody's ancestor."""
        ended = await run_git(
            self.directory,
            ("merge-base", "--is-ancestor", older, newer),
            environment=self.environment,
            accept=(0, 1, 128),
        )
        return ended.code == 0

    async def effective_head(self, head: str) -> str:
        """Return the newest commit up to `head` that is more than the broker's own bookkeeping.

        It is an ancestor of `head` from which every other such commit can be reached, so that one that was applied
        never looks as if it had been rewritten; where two branches ended alike, that is the merge of them.
        """
        candidate = await self._newest_effective(head)
        if candidate is None:
            return head
        while (other := await self._newest_effective(head, candidate)) is not None:
            if not await self.is_ancestor(candidate, other):
                return await self._oldest_merge_of_all(head, candidate)
            candidate = other
        return candidate

    async def line(self, head: str, limit: int) -> list[str]:
        """Return up to `limit` commits from `head` along first parents, newest first, without the broker's own."""
        found = await self.git("rev-list", "--first-parent", "-n", str(limit), head, *_ALL_BUT_BROKERS_OWN)
        return found.split()

    async def _newest_effective(self, head: str, *without: str) -> str | None:
        # --full-history: of parents that left the files alike, git otherwise follows only one.
        found = await self.git(
            "rev-list", "--full-history", "-n", "1", head, *(f"^{sha}" for sha in without), *_ALL_BUT_BROKERS_OWN
        )
        return found or None

    async def _oldest_merge_of_all(self, head: str, candidate: str) -> str:
        merges = await self.git("rev-list", "--topo-order", "--reverse", "--merges", head, f"^{candidate}")
        for merge in merges.split():
            if await self._newest_effective(head, merge) is None:
                return merge
        return head


def _entry(line: str) -> tuple[str, Entry]:
    """Read `<mode> <type> <id> <size>\t<path>`."""
    meta, path = line.split("\t", 1)
    mode, _, _, size = meta.split()
    kind = _KINDS.get(mode, Kind.FILE)
    return path, Entry(kind, int(size)) if kind is Kind.FILE else Entry(kind)


def _sized(data: bytes) -> bytes:
    """Return `data` as git fast-import reads it: its length before it."""
    return b"data %d\n%s\n" % (len(data), data)
