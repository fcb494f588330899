"""Where a git host has a repository, read out of its URL: the registry's, or one that a webhook's sender names."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urlsplit

_SCP = re.compile(r"(?:[^/@:]+@)?([^/@:]+):(.+)")


class Located(NamedTuple):
    scheme: str
    """http, https, ssh or git."""
    host: str
    """With the port of http or https. An address for ssh says nothing of the port of the Web."""
    path: str
    """`owner/name`, or `group/subgroup/name`, as it is written."""


def located(url: str) -> Located | None:
    """Return what a URL, or git's `user@host:path`, names; None where that is no host, whatever the text is."""
    if "://" not in url:
        scp = _SCP.fullmatch(url)
        return Located("ssh", scp[1], _plain(scp[2])) if scp else None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or parts.scheme not in {"https", "http", "ssh", "git"}:
        return None
    if parts.scheme in {"https", "http"} and port is not None:
        host = f"{host}:{port}"
    return Located(parts.scheme, host, _plain(parts.path))


def _plain(path: str) -> str:
    return path.strip("/").removesuffix(".git")
