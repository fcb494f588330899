"""URLs and paths that a manifest or card may hold, and those that it may not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore.registry.repositories.references import path_fault, repository_url_fault, shown_path, transport
from longshore.schemas.policies import RepositoryPolicy

DEFAULT = RepositoryPolicy()
EVERY_SCHEME = RepositoryPolicy(repository_schemes=("https", "ssh", "http", "git", "file"))
ONE_HOST = RepositoryPolicy(repository_hosts=("Git.Acme.com",))


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/acme/model.git",
        "https://git.acme.com:8443/ml/sentiment-analysis",
        "https://GitHub.com/acme/model.git/",
        "https://10.0.0.7/model.git",
        "https://[2001:db8::1]:8443/model.git",
        "https://git_host.internal/~team/model.git",
        "ssh://git@github.com/acme/model.git",
        "ssh://git@git.acme.com:2222/srv/model.git",
        "ssh://git.acme.com/model.git",
        "https://host/a%20b.git",
    ],
)
def test_what_people_write_is_allowed(url):
    """Every host over https or ssh, by default."""
    assert repository_url_fault(url, DEFAULT) is None
    assert repository_url_fault(url, EVERY_SCHEME) is None


@pytest.mark.parametrize(
    "url",
    [
        *("", "-", "--upload-pack=x", "-u", "/srv/model.git", "model.git", "../model.git", "C:\\models", "~/model"),
        *("git@github.com:acme/model.git", "github.com:acme/model.git", "https:/x/y", "https:x", "//host/x"),
        *("ext::sh -c id", "ext::sh%20-c%20id", "fd::17/x", "::x", "https::https://host/x", "ext://sh/x"),
        *("https://", "https:///x", "https://host", "https://host/", "https://host//", "ssh://git@/x"),
        *("ssh://-oProxyCommand=id/x", "ssh://git@-oProxyCommand=id/x", "ssh://-o@host/x", "https://-host/x"),
        *("https://user@host/x", "https://user:pw@host/x", "https://:@host/x", "https://@host/x", "http://t@host/x"),
        *("ssh://git:pw@host/x", "ssh://git%40a@host/x", "ssh://a@b@host/x", "ssh://@host/x", "git://u@host/x"),
        *("https://host/x\n", "https://host/\nx", "https://host/x\r\n", "https://ho\tst/x", "https://host/\x00", " https://h/x"),
        *("https://höst/x", "https://host/ü", "https://xn--/é", "https://host\u200b/x"),
        *("https://host\\@evil/x", "https:\\\\host\\x", "https://ho%73t/x", "https://%2doProxy/x", "https://host%00/x"),
        *("https://host/%0a", "https://host/x%0D%0Ay", "https://host/%00", "https://host/%7f"),
        *("https://host:0/x", "https://host:65536/x", "https://host:99999999999/x", "https://host:/x", "https://host:x/x"),
        *("https://host:-1/x", "https://host#@evil/x", "https://host?@evil/x", "https://a,b/x", "https://host./x"),
        *("https://[::1/x", "https://::1/x", "https://[evil.com]/x", "https://[:]/x", "https://host/" + "x" * 2000),
        *("file://host/srv/x", "file://", "file:///", "file:x", "ftp://host/x", "git+ssh://host/x", "HTTPS://host/x"),
    ],
)  # fmt: skip
def test_what_could_mislead_git_is_refused(url):
    """Whatever the schemes allowed: no option, no program, no credentials, no host that two programs read as two."""
    assert repository_url_fault(url, EVERY_SCHEME) is not None
    assert repository_url_fault(url, DEFAULT) is not None


@pytest.mark.parametrize("url", ["http://host/x", "git://host/x", "file:///srv/model.git"])
def test_other_schemes_want_to_be_allowed(url):
    """The message says which are."""
    assert "only https, ssh" in str(repository_url_fault(url, DEFAULT))
    assert repository_url_fault(url, EVERY_SCHEME) is None


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        *(("git.acme.com", True), ("GIT.ACME.COM", True), ("git.acme.com:8443", True)),
        *(("acme.com", False), ("x.git.acme.com", False), ("git.acme.com.evil.org", False), ("git-acme.com", False)),
    ],
)
def test_a_host_is_compared_as_a_whole(host, allowed):
    """In any case of letters, but neither by its end nor by its beginning."""
    assert (repository_url_fault(f"https://{host}/x.git", ONE_HOST) is None) == allowed
    assert (repository_url_fault(f"ssh://git@{host}/x.git", ONE_HOST) is None) == allowed


@pytest.mark.parametrize("url", ["https://user:s3cret@host/x", "ssh://git:s3cret@host/x", "https://s3cret@host/x"])
def test_no_fault_repeats_a_password(url):
    """The message goes into logs and files."""
    assert "s3cret" not in str(repository_url_fault(url, EVERY_SCHEME))


@given(st.text() | st.from_regex(r"(https|ssh|ext|file):+/*[!-~]*", fullmatch=True))
def test_what_is_allowed_is_harmless(url):
    """Whatever is written, what passes is one visible word that begins with an allowed scheme and a host."""
    if repository_url_fault(url, DEFAULT) is None:
        scheme, rest = url.split("://", 1)
        assert scheme in DEFAULT.repository_schemes
        assert rest[0].isalnum() or rest[0] in "_["
        assert all("!" <= char <= "~" for char in url)


@pytest.mark.parametrize("path", ["model-card.yaml", "a/b/c.yaml", ".github/x", ".gitignore", "a b", "é", "a:b", "..a"])
def test_a_plain_path_is_allowed(path):
    """For a file and for a folder."""
    assert path_fault(path) is None
    assert path_fault(path, folder=True) is None


@pytest.mark.parametrize("path", ["src/", "a/b/", ".", "./"])
def test_a_folder_may_end_in_a_slash_or_be_the_root(path):
    """A file may not."""
    assert path_fault(path, folder=True) is None
    assert path_fault(path) is not None


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/etc/passwd", "//", "..", "../x", "a/../../x", "a/..", "./a", "a/./b", "a//b", "a//", "...//"),
        *("\x00", "a\x00b", "a\nb", "a\tb", "a\x7f", "a\u202eb", "a\u200bb", "a\ufeff", "a\udcff"),
        *("a\\b", "..\\x", "C:\\x", "-rf", "--batch", "a/-x", "-/x"),
        *(".git", ".git/config", "a/.git", ".GIT/x", ".Git", "git~1", "GIT~1/x", "git~27", ".git.", ".git ", ".git . "),
        *(".git::$INDEX_ALLOCATION", ".git:x", ".\uff47it", "x" * 256, "é" * 128, "x/" * 600 + "x"),
    ],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_refused(path):
    """Out of the tree, into git's own folder on any system, or into an option."""
    assert path_fault(path) is not None
    assert path_fault(path, folder=True) is not None


@given(st.text())
def test_what_is_allowed_stays_inside(path):
    """Whatever is written, what passes can be printed, and has only names between its slashes."""
    if path_fault(path) is None:
        assert path.isprintable()
        assert not {"", ".", ".."} & set(path.split("/"))
    assert shown_path(path).isprintable()


@pytest.mark.parametrize(
    ("url", "protocol"),
    [
        ("https://host/x", "https"),
        ("ssh://git@host/x", "ssh"),
        ("git@host:x.git", "ssh"),
        ("host:x.git", "ssh"),
        ("file:///srv/x", "file"),
        ("/srv/x:y", "file"),
        ("./x", "file"),
        ("ext::sh -c id", ""),
    ],
)
def test_the_registrys_own_url_opens_one_protocol(url, protocol):
    """As git reads it; a program is none."""
    assert transport(url) == protocol
