"""What lies at each path of a tree, known before anything is read: from a commit, a folder, or bytes in memory. Pure.

The caps of FAULTS 26 are here. A manifest has about 1 KB and a card with its schemas 10 KB: the caps leave room for
ten times what anyone writes, and keep what is read of one commit far below the 256 MiB that a broker should need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

MAX_FILE_BYTES = 256 * 1024
MAX_FILES = 2000
"""Of `models/` and `workers/` together."""
MAX_TOTAL_BYTES = 16 * 1024 * 1024
"""Of all files of one registry that are read."""


class Kind(StrEnum):
    FILE = "file"
    LINK = "symbolic link"
    SUBMODULE = "submodule"


@dataclass(frozen=True)
class Entry:
    kind: Kind
    size: int = 0
    """In bytes, of a file."""

    @property
    def fault(self) -> tuple[str, str] | None:
        """Return why it is not read, as a code and the end of a sentence that begins with its path."""
        if self.kind is not Kind.FILE:
            return "PATH_NOT_REGULAR", f"is a {self.kind}, not a file"
        if self.size > MAX_FILE_BYTES:
            return "FILE_TOO_LARGE", f"has more than {MAX_FILE_BYTES:,} bytes"
        return None


Tree = Mapping[str, Entry]
"""Path → what lies there; bytes of a path that are no UTF-8 are surrogates, as `os.fsdecode` makes them."""


def tree_of(files: Mapping[str, bytes]) -> dict[str, Entry]:
    """Return the tree of files that are in memory."""
    return {path: Entry(Kind.FILE, len(data)) for path, data in files.items()}
