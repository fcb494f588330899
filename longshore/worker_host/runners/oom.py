"""Whether the kernel has killed something for want of memory (DESIGN §5 "Memory"). Linux only; elsewhere, never."""

from __future__ import annotations

import re
from pathlib import Path

_CGROUP = re.compile(r"[0-9]+:(?P<controllers>[^:]*):(?P<path>.*)")
_COUNT = re.compile(r"^oom_kill ([0-9]+)$", re.MULTILINE)


def kills(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return a number that rises with every OOM kill on this machine or in our cgroup."""
    return sum(_count(path) for path in (proc / "vmstat", *_cgroup_files(_read(proc / "self/cgroup"), cgroups)))


def _cgroup_files(memberships: str, cgroups: Path) -> list[Path]:
    """Return where our cgroups count: `memory.events` in version 2, `memory.oom_control` in version 1."""
    files = []
    for match in map(_CGROUP.fullmatch, memberships.splitlines()):
        if match and not match["controllers"]:
            files.append(cgroups / match["path"].lstrip("/") / "memory.events")
        elif match and "memory" in match["controllers"].split(","):
            files.append(cgroups / "memory" / match["path"].lstrip("/") / "memory.oom_control")
    return files


def _count(path: Path) -> int:
    match = _COUNT.search(_read(path))
    return int(match[1]) if match else 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # another kernel, another cgroup version, or hidden from us
        return ""


class OomWatch:
    """Says whether there was an OOM kill since the last `sample()`, which is taken every few seconds."""

    def __init__(self) -> None:
        self._before = kills()

    def sample(self) -> None:
        self._before = kills()

    def rose(self) -> bool:
        return kills() > self._before
