"""URLs and paths of outside: what passes means to the standard library what it means to us."""

from __future__ import annotations

import posixpath
from urllib.parse import urlsplit

from fuzzing import instrumented, run

with instrumented():
    from longshore.registry.repositories.references import path_fault, repository_url_fault, shown_path, transport
    from longshore.schemas.policies import RepositoryPolicy

SCHEMES = ("https", "ssh", "http", "git", "file")
ANY_HOST = RepositoryPolicy(repository_schemes=SCHEMES)
NO_HOST = RepositoryPolicy(repository_schemes=SCHEMES, repository_hosts=("elsewhere.example",))


def judge_url(url: str) -> None:
    if repository_url_fault(url, ANY_HOST) is not None:
        return
    assert url.isascii()
    assert url.isprintable()
    parts = urlsplit(url)
    assert parts.scheme in SCHEMES
    assert transport(url) == parts.scheme
    assert parts.password is None
    assert parts.username is None or parts.scheme == "ssh"
    if parts.scheme == "file":
        assert not parts.netloc
        return
    assert parts.hostname
    assert not parts.netloc.startswith("-")
    assert parts.port is None or parts.port > 0
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    assert repository_url_fault(url, RepositoryPolicy(repository_schemes=SCHEMES, repository_hosts=(host,))) is None
    if host != "elsewhere.example":
        assert repository_url_fault(url, NO_HOST) is not None


def judge_path(path: str) -> None:
    assert shown_path(path).isprintable()
    for folder in (False, True):
        if path_fault(path, folder=folder) is None:
            assert path.isprintable()
            inside = posixpath.normpath(posixpath.join("/base", path))
            assert inside.startswith("/base/") or (folder and inside == "/base"), inside
            assert ".git" not in inside.lower().split("/")


def judge(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    judge_url(text)
    judge_path(text)


if __name__ == "__main__":
    run(judge)
