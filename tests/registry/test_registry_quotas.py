"""Model repositories that are too large, too slow, damaged, or that would have git do something else."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from longshore.registry.repositories.git import Git
from longshore.registry.repositories.git_cache import FetchLimits
from longshore.schemas.failures import LongshoreError
from longshore.schemas.policies import RepositoryPolicy

SMALL = RepositoryPolicy(repository_schemes=("http", "file"), repository_max_size="1Mi")


def noise(size: int) -> bytes:
    """Return bytes that do not compress."""
    return os.urandom(size)


def in_cache(root: Path) -> int:
    return sum(file.stat().st_size for file in root.rglob("*") if file.is_file())


@pytest.fixture
def small(tmp_path: Path) -> Git:
    return Git(tmp_path / "cache", SMALL)


@contextmanager
def drip(interval: float) -> Iterator[str]:
    """Serve an HTTP answer that never ends, one byte in each `interval` (seconds)."""
    stop = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(
                        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n"
                        b"Connection: close\r\n\r\n001e# service=git-upload-pack\n"
                    )
                    while not stop.wait(interval):
                        connection.sendall(b"0")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/model.git"
        finally:
            stop.set()
            listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("ref", ["tag", "full id", "short id"])
async def test_a_repository_over_the_quota_is_refused_and_leaves_nothing(small, remote, ref):
    """Where the host leaves nothing out, the quota holds while the pack arrives, and the half of it is removed."""
    remote.write({"a": "1"})
    (remote.work / "large").write_bytes(noise(3_000_000))
    sha = remote.commit({}, tag="v1.0.0")
    wanted = {"tag": "v1.0.0", "full id": sha, "short id": sha[:9]}[ref]
    for _ in range(2):
        with pytest.raises(LongshoreError, match=r"REPO_TOO_LARGE.*1,048,576 bytes"):
            await small.resolve(remote.url, wanted)
    assert in_cache(small._root) < 50_000


@pytest.mark.parametrize("filters", ["all", "none of these"])
async def test_large_files_are_left_out_where_the_host_can(small, remote, filters):
    """A large repository costs what its small files take; a host with other filters sends all that the quota lets."""
    remote.in_bare("config", "uploadpack.allowFilter", "true")
    if filters == "none of these":
        remote.in_bare("config", "uploadpackfilter.allow", "false")
    size = 3_000_000 if filters == "all" else 400_000
    (remote.work / "large").write_bytes(noise(size))
    sha = remote.commit({"model-card.yaml": "card"}, tag="v1.0.0")
    for ref in ("v1.0.0", sha[:8]):
        assert await small.resolve(remote.url, ref) == sha
    assert await small.read_file(remote.url, sha, "model-card.yaml") == b"card"
    with pytest.raises(LongshoreError, match=r"FILE_TOO_LARGE.*large has more than 262,144 bytes"):
        await small.read_file(remote.url, sha, "large")
    assert (in_cache(small._root) < 100_000) == (filters == "all")


async def test_the_largest_file_is_read(small, remote):
    """The limit itself is allowed."""
    remote.in_bare("config", "uploadpack.allowFilter", "true")
    sha = remote.commit({"a": "x" * 262_144, "b": "x" * 262_145})
    assert len(await small.read_file(remote.url, sha, "a") or b"") == 262_144
    with pytest.raises(LongshoreError, match="FILE_TOO_LARGE"):
        await small.read_file(remote.url, sha, "b")


async def test_many_versions_do_not_pile_up(small, remote):
    """A cache that has grown over the quota is begun anew, and what it held is fetched again when asked for."""
    shas = []
    for number in range(5):
        (remote.work / "weights").write_bytes(noise(600_000))
        shas.append(remote.commit({"a": str(number)}, tag=f"v1.0.{number}"))
        assert await small.resolve(remote.url, f"v1.0.{number}") == shas[-1]
    assert in_cache(small._root) < 2 * SMALL.max_bytes
    assert [await small.read_file(remote.url, sha, "a") for sha in shas] == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("role", ["registry", "model"])
async def test_a_host_that_sends_next_to_nothing_is_given_up(tmp_path: Path, role):
    """One byte a second is no answer; what is slow may be quicker the next time."""
    limits = FetchLimits(seconds=60, low_speed_bytes=1000, low_speed_seconds=1)
    git = Git(tmp_path / "cache", SMALL, limits=limits)
    with drip(1.0) as url, pytest.raises(LongshoreError, match="GIT_TIMEOUT") as caught:
        await (git.fetch_branch(url, "main") if role == "registry" else git.resolve(url, "v1.0.0"))
    assert caught.value.failure.kind.retriable


async def test_a_host_that_takes_too_long_is_given_up(tmp_path: Path):
    """However much it sends: the clock counts too."""
    git = Git(tmp_path / "cache", SMALL, limits=FetchLimits(seconds=0.5))
    with drip(0.1) as url, pytest.raises(LongshoreError, match=r"GIT_TIMEOUT.*within 0\.5 s"):
        await git.resolve(url, "v1.0.0")


@pytest.mark.parametrize("hosts", [(), ("127.0.0.1",)])
async def test_an_allowed_host_cannot_send_us_elsewhere(tmp_path: Path, hosts):
    """A redirect is followed only where any host would do."""
    reached = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self):
            reached.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            """Tests are quiet."""

    class Redirecting(Elsewhere):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{elsewhere.server_port}{self.path}")
            self.end_headers()

    with serving(Elsewhere) as elsewhere, serving(Redirecting) as host:
        policy = RepositoryPolicy(repository_schemes=("http",), repository_hosts=hosts)
        with pytest.raises(LongshoreError):
            await Git(tmp_path / "cache", policy).resolve(f"http://127.0.0.1:{host.server_port}/x.git", "v1.0.0")
    assert bool(reached) == (hosts == ())


@pytest.mark.parametrize("damage", ["shallow.lock", "torn", "tmp_pack"])
async def test_a_damaged_cache_is_built_again(small, remote, damage):
    """What a killed git has left behind costs a second fetch, and the log has its code."""
    first = remote.commit({"a": "1"}, tag="v1.0.0")
    await small.resolve(remote.url, "v1.0.0")
    (cache,) = small._root.glob("model-*.git")
    if damage == "tmp_pack":
        (cache / "objects/pack/tmp_pack_x").write_bytes(noise(2_000_000))
    elif damage == "torn":
        for pack in (cache / "objects/pack").iterdir():
            pack.chmod(0o600)
            pack.write_bytes(b"torn")
    else:
        (cache / damage).touch()
    second = remote.commit({"a": "2"}, tag="v1.0.1")
    restarted = Git(small._root, SMALL)
    with capture_logs() as logs:
        with contextlib.suppress(LongshoreError):  # damage that shows in reading costs one attempt
            await restarted.resolve(remote.url, "v1.0.0")
        for tag, sha, content in (("v1.0.0", first, b"1"), ("v1.0.1", second, b"2")):
            assert await restarted.resolve(remote.url, tag) == sha
            assert await restarted.read_file(remote.url, sha, "a") == content
    rebuilt = [entry["code"] for entry in logs if entry["event"] == "git_cache_rebuilt"]
    assert rebuilt == ([] if damage == "tmp_pack" else ["GIT_CACHE_REBUILT"])
    assert in_cache(small._root) < 50_000


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c 'touch {mark}'",
        "ext::sh%20-c%20touch%20{mark}",
        "ext://sh -c touch% {mark}",
        "fd::17/{mark}",
        "--upload-pack=touch {mark}",
        "ssh://-oProxyCommand=touch${{IFS}}{mark}/x.git",
        "ssh://git@-oProxyCommand=touch${{IFS}}{mark}/x.git",
        "git@-oProxyCommand=touch:x.git",
    ],
)
async def test_no_url_makes_git_run_a_program(tmp_path: Path, url):
    """Not even where every scheme is allowed that can be."""
    policy = RepositoryPolicy(repository_schemes=("https", "ssh", "http", "git", "file"))
    git, mark = Git(tmp_path / "cache", policy), tmp_path / "mark"
    with pytest.raises(LongshoreError, match="REPO_URL_FORBIDDEN"):
        await git.resolve(url.format(mark=mark), "v1.0.0")
    with pytest.raises(LongshoreError, match="REPO_URL_FORBIDDEN"):
        await git.read_file(url.format(mark=mark), "1" * 40, "a")
    assert not mark.exists()
    assert not git._root.exists()


async def test_a_scheme_that_is_not_allowed_is_not_used(tmp_path: Path, remote):
    """By default a folder of the broker's own disk is no model repository, while it may be the registry."""
    sha = remote.commit({"a": "1"}, tag="v1.0.0")
    git = Git(tmp_path / "cache")
    with pytest.raises(LongshoreError, match="REPO_URL_FORBIDDEN"):
        await git.resolve(remote.url, "v1.0.0")
    assert await git.fetch_branch(remote.url, "main") == sha


async def test_hooks_filters_and_submodules_of_a_repository_do_nothing(small, remote, tmp_path):
    """What a repository brings is bytes."""
    mark = tmp_path / "mark"
    files = {
        ".gitattributes": "* filter=evil diff=lfs\n*.bin filter=lfs\n",
        ".gitmodules": f'[submodule "x"]\npath = x\nurl = ext::sh -c "touch {mark}"\n',
        ".lfsconfig": "[lfs]\nurl = http://127.0.0.1:1/\n",
        "weights.bin": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    }
    remote.write(files)
    remote.git("add", "-A")
    remote.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},x")
    remote.git("commit", "-q", "-m", "release")
    remote.git("tag", "v1.0.0")
    remote.push()
    sha = await small.resolve(remote.url, "v1.0.0")
    for path, text in files.items():
        assert await small.read_file(remote.url, sha, path) == text.encode()
    assert not mark.exists()
