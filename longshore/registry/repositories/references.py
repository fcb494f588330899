"""What a registry may refer to: the URL of a repository and a path in it, before git hears of them. Pure.

Both are outside text: an option, a transport that runs a program, or a way out of the tree must not pass (FAULTS 36,
37). A URL is read more strictly than RFC 3986 does, so that no two programs can disagree on which host it names.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Iterator

from longshore.schemas.policies import RepositoryPolicy

# Longer than any of use, short enough for an error message.
_LONGEST_URL = 2000
_LONGEST_PATH = 1024
_LONGEST_NAME = 255  # bytes; what file systems take

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/]*)(?P<path>.*)")
_AUTHORITY = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]*)@)?"
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_HELPER = re.compile(r"[A-Za-z0-9+.-]*::")
_ESCAPED_CONTROL = re.compile(r"%(?:[01][0-9A-Fa-f]|7[Ff])")
_LAST_PORT = 65535

# `git~1` is what NTFS calls `.git`, in its short form; HFS+ takes `.g<zero-width joiner>it` for it.
_GIT_FOLDER = re.compile(r"\.git|git~[0-9]+")


def repository_url_fault(url: str, policy: RepositoryPolicy) -> str | None:
    """Return why a model repository may not be fetched from `url`, or None. No answer repeats a password."""
    return next(_url_faults(url, policy), None)


def _url_faults(url: str, policy: RepositoryPolicy) -> Iterator[str]:
    """Name the faults of a URL. Whoever asks for the second must know that the first makes it doubtful."""
    if re.fullmatch(r"[!-~]*", url) is None or "\\" in url:
        yield "a URL holds visible ASCII characters only, and no backslash"
    if len(url) > _LONGEST_URL:
        yield f"a URL has at most {_LONGEST_URL} characters"
    if _HELPER.match(url):
        yield "a URL names no transport helper (`…::`)"
    parts = _URL.fullmatch(url)
    if parts is None:
        yield "a URL begins with a scheme and `//`, such as https://"
        return
    if parts["scheme"] not in policy.repository_schemes:
        yield f"the scheme {parts['scheme']} is not allowed here (only {', '.join(policy.repository_schemes)})"
    if not parts["path"].strip("/"):
        yield "the URL names no repository"
    if _ESCAPED_CONTROL.search(parts["path"]):
        yield "the URL holds an escaped control character"
    if parts["scheme"] != "file":
        yield from _authority_faults(parts["scheme"], parts["authority"], policy)
    elif parts["authority"]:
        yield "a file URL has no host: file:///…"


def _authority_faults(scheme: str, authority: str, policy: RepositoryPolicy) -> Iterator[str]:
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        yield "the URL names no plain host, or a user that is none"
        return
    if parts["host"].startswith("[") and not _is_ipv6(parts["host"][1:-1]):
        yield "what stands in brackets is an IPv6 address"
    if parts["user"] is not None and scheme != "ssh":
        yield "the URL holds a user; only ssh takes one, as in ssh://git@host/…"
    if parts["port"] is not None and not 1 <= int(parts["port"]) <= _LAST_PORT:
        yield f"a port is a number from 1 to {_LAST_PORT}"
    allowed = {host.lower() for host in policy.repository_hosts}
    if allowed and parts["host"].lower() not in allowed:
        yield f"the host {parts['host']} is not allowed here (only {', '.join(sorted(allowed))})"


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def path_fault(path: str, *, folder: bool = False) -> str | None:
    """Return why `path` may not be looked up in a commit, or None.

    With `folder` it names a folder: `.` is the whole repository, and one slash may end it.
    """
    return next(_path_faults(path, folder=folder), None)


def _path_faults(path: str, *, folder: bool) -> Iterator[str]:
    if not path.isprintable():  # controls, invisible and bidirectional characters, and bytes that are no UTF-8
        yield "a path holds no control or invisible characters"
    if len(path.encode()) > _LONGEST_PATH:
        yield f"a path has at most {_LONGEST_PATH} bytes"
    if "\\" in path:
        yield "a path has slashes, not backslashes"
    if path.startswith("/"):
        yield "a path is relative to the repository's root"
    if not (folder and path in {".", "./"}):
        names = (path.removesuffix("/") if folder else path).split("/")
        yield from filter(None, map(_name_fault, names))


def _name_fault(name: str) -> str | None:
    if name in {"", ".", ".."}:
        return "a path has no part that is empty, `.` or `..`"
    if name.startswith("-"):
        return f"no part of a path begins with a dash ({name})"
    if len(name.encode()) > _LONGEST_NAME:
        return f"no part of a path has more than {_LONGEST_NAME} bytes"
    # NTFS ignores what follows a colon, and trailing dots and spaces.
    plain = unicodedata.normalize("NFKC", name).casefold().split(":")[0].rstrip(". ")
    if _GIT_FOLDER.fullmatch(plain):
        return f"a path leads not into git's own folder ({name})"
    return None


def transport(url: str) -> str:
    """Return the protocol (as GIT_ALLOW_PROTOCOL names it) that a URL from the settings needs, scp's form included."""
    if _HELPER.match(url):
        return ""
    if parts := _URL.fullmatch(url):
        return parts["scheme"]
    return "ssh" if ":" in url.split("/", maxsplit=1)[0] else "file"


def shown_path(path: str) -> str:
    """Return a path as a message may hold it: what cannot be printed is escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in path)
