"""Lines of `runtime.dependencies` that are no `name==version`, and lines that contradict (FAULTS 45, 46)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

# What pip would take for something else than a name: an option, a URL, a path, an archive, a second line.
_FORBIDDEN = re.compile(
    r"\s*-|\s*\.|.*\s-|.*[@/\\\x00-\x08\x0a-\x1f\x7f-\x9f]|.*\.(whl|zip|tar\.\w+|tgz)\s*$", re.DOTALL
)


def is_forbidden(line: str) -> bool:
    """Tell whether an installer would do something else with `line` than look for a package of that name."""
    return _FORBIDDEN.match(line) is not None


def contradictions(lines: Any) -> Iterator[tuple[int, str]]:
    """Yield the index of each line that names an earlier package in another version, and what to say about it."""
    first: dict[str, tuple[int, Version]] = {}
    for index, line in enumerate(lines if isinstance(lines, list) else ()):
        try:
            requirement = Requirement(line if isinstance(line, str) else "")
            (pin,) = requirement.specifier
            version = Version(pin.version)
        except (InvalidRequirement, InvalidVersion, ValueError):
            continue  # a finding of its own
        name = canonicalize_name(requirement.name)
        earlier, wanted = first.setdefault(name, (index, version))
        if wanted != version:
            yield index, f"{name} is wanted as {version} here and as {wanted} in runtime.dependencies[{earlier}]"
