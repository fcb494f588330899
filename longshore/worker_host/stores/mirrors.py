"""One bare git mirror per repository, holding just the commits that were asked for.

Nothing of a repository runs here: no hooks, no filters, no submodules, no attributes; files come out as they were
committed. A mirror is only a cache, so whatever is wrong with it, the remedy is to delete it and fetch again.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import structlog

from longshore.schemas.failures import LongshoreError
from longshore.worker_host import processes
from longshore.worker_host.breakers import Breaker
from longshore.worker_host.stores.shelves import Shelf

log = structlog.get_logger()

# A whole fetch; a large repository over a slow line takes minutes (FAULTS 40).
FETCH_TIMEOUT_SECONDS = 900.0
# Reading from the mirror is local work.
LOCAL_TIMEOUT_SECONDS = 120.0
# Bytes per second, and seconds below that, after which a transfer counts as stuck (FAULTS 41).
LOW_SPEED_LIMIT = "1000"
LOW_SPEED_SECONDS = "30"

_CONFIG = (
    "advice.detachedHead=false",
    "core.hooksPath=/dev/null",
    "fetch.recurseSubmodules=false",
    "gc.auto=0",
    "maintenance.auto=false",
)

# $GIT_DIR/info/attributes outranks every .gitattributes: no line-end conversion, no LFS, no keyword expansion.
_ATTRIBUTES = "* -text -eol -filter -ident -working-tree-encoding\n"

_AUTH = (
    "authentication failed",
    "could not read username",
    "could not read password",
    "permission denied",
    "host key verification failed",
    "returned error: 401",
    "returned error: 403",
    "access denied",
    "dubious ownership",
)
_REF = ("not our ref", "unadvertised object", "couldn't find remote ref", "could not find remote ref")
_NETWORK = (
    "unable to access",
    "could not resolve",
    "could not read from remote",
    "connection refused",
    "connection reset",
    "connection timed out",
    "operation timed out",
    "too slow",
    "early eof",
    "hung up",
    "rpc failed",
    "does not appear to be a git repository",
    "does not exist",
    "repository not found",
    "unexpected disconnect",
)


class MirrorBrokenError(Exception):
    """Git failed in a way that names neither the remote nor the request: the mirror itself is in doubt."""


class Mirrors:
    """The mirrors of one device. `breaker` is asked before every fetch."""

    def __init__(self, root: Path, breaker: Breaker) -> None:
        self._shelf = Shelf(root / "mirrors")
        self._breaker = breaker

    async def materialise(self, repository: str, commit: str, path: str, target: Path) -> None:
        """Write the regular files of `commit:path` below `target`, under their own full names.

        `path` is "" for the whole tree. A corrupt mirror is deleted and fetched again, once (FAULTS 52).
        Raises GIT_UNREACHABLE (retriable), AUTH_FAILED, REF_NOT_FOUND, CODE_PATH_INVALID, DISK_FULL, CIRCUIT_OPEN.
        """
        key = hashlib.sha256(repository.encode()).hexdigest()[:32]
        async with self._shelf.lock(key):
            try:
                await self._attempt(key, repository, commit, path, target)
            except MirrorBrokenError as broken:
                log.warning("git_cache_rebuilt", repository=processes.redact(repository), reason=str(broken))
                await self._shelf.drop(key)
                try:
                    await self._attempt(key, repository, commit, path, target)
                except MirrorBrokenError as again:
                    raise _failure("GIT_UNREACHABLE", repository, "git failed", str(again)) from again

    async def _attempt(self, key: str, repository: str, commit: str, path: str, target: Path) -> None:
        mirror = self._shelf.find(key) or await self._create(key)
        git = _Git(mirror)
        if not await git.has(commit):
            async with self._breaker.guard():
                await _fetch(git, repository, commit)
        if path and not await git.is_folder(commit, path):
            raise LongshoreError("CODE_PATH_INVALID", f"{path} is no folder of {commit[:12]}")
        await git.write_files(commit, path, target)

    async def _create(self, key: str) -> Path:
        async with self._shelf.staging() as aside:
            bare = aside / "bare"
            await _Git(bare).local("init", "--quiet", "--bare", "--template=", str(bare), cwd=aside)
            (bare / "info").mkdir()
            (bare / "info" / "attributes").write_text(_ATTRIBUTES)
            return await self._shelf.put(bare, key)


class _Git:
    """Git on one mirror."""

    def __init__(self, mirror: Path) -> None:
        self._mirror = mirror

    async def local(self, *args: str, cwd: Path | None = None, **settings: str) -> str:
        """Run a command that needs no network and must succeed. Raises MirrorBrokenError, DISK_FULL."""
        done = await self.ask(*args, cwd=cwd, **settings)
        if done.returncode:
            _raise_if_full(done.stderr)
            raise MirrorBrokenError(f"git {args[0]}: {done.stderr.strip()[-500:]}")
        return done.stdout

    async def ask(self, *args: str, cwd: Path | None = None, **settings: str) -> processes.Completed:
        """Run a command that needs no network and may fail. Raises IO_ERROR where the disk takes for ever."""
        try:
            return await self.run(*args, cwd=cwd, timeout=LOCAL_TIMEOUT_SECONDS, **settings)
        except processes.ProcessTimeoutError as error:
            raise LongshoreError("IO_ERROR", f"git {args[0]} did not end within {LOCAL_TIMEOUT_SECONDS:g} s") from error

    async def run(
        self,
        *args: str,
        timeout: float,  # noqa: ASYNC109 (handed on to processes.run)
        cwd: Path | None = None,
        **settings: str,
    ) -> processes.Completed:
        """Run any git command. Raises ProcessTimeoutError, PROGRAM_MISSING."""
        options = [word for setting in _CONFIG for word in ("-c", setting)]
        env = {**_environment(), "GIT_DIR": str(self._mirror), **settings}
        return await processes.run(["git", *options, *args], cwd=cwd or self._mirror, env=env, timeout=timeout)

    async def has(self, commit: str) -> bool:
        done = await self.ask("cat-file", "-e", f"{commit}^{{commit}}")
        return done.returncode == 0

    async def is_folder(self, commit: str, path: str) -> bool:
        done = await self.ask("cat-file", "-t", f"{commit}:{path}")
        return done.returncode == 0 and done.stdout.strip() == "tree"

    async def write_files(self, commit: str, path: str, target: Path) -> None:
        """Write `commit:path` below `target` through an index of its own, which is gone afterwards."""
        index = target.with_name("index")
        index.unlink(missing_ok=True)
        settings = {"GIT_INDEX_FILE": str(index), "GIT_WORK_TREE": str(target)}
        if path:
            await self.local("read-tree", f"--prefix={path}/", f"{commit}:{path}", cwd=target, **settings)
        else:
            await self.local("read-tree", commit, cwd=target, **settings)
        await self.local("checkout-index", "--all", "--force", "--quiet", cwd=target, **settings)


def _environment() -> dict[str, str]:
    """The device's credentials (ssh agent, credential helpers below HOME), no prompts, no system configuration."""
    return processes.environment(
        "SSH_AUTH_SOCK",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        *processes.PROXIES,
        prefixes=("GIT_SSL_", "GIT_CONFIG_"),
        GIT_CONFIG_NOSYSTEM="1",
        GIT_TERMINAL_PROMPT="0",
        GIT_ASKPASS="",
        GIT_LFS_SKIP_SMUDGE="1",
        GIT_ALLOW_PROTOCOL="file:git:http:https:ssh",
        GIT_HTTP_LOW_SPEED_LIMIT=LOW_SPEED_LIMIT,
        GIT_HTTP_LOW_SPEED_TIME=LOW_SPEED_SECONDS,
        GIT_SSH_COMMAND=os.environ.get("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=20"),
    )


async def _fetch(git: _Git, repository: str, commit: str) -> None:
    """Fetch just that commit; where the server hands out no bare ids, everything that branches and tags reach."""
    try:
        await _fetch_refs(git, repository, "--depth=1", commit)
    except _RefRefusedError:
        try:
            await _fetch_refs(git, repository, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        except _RefRefusedError as error:
            raise _failure("REF_NOT_FOUND", repository, f"has no commit {commit}", str(error)) from error
        if not await git.has(commit):
            raise _failure("REF_NOT_FOUND", repository, f"has no commit {commit}") from None


class _RefRefusedError(Exception):
    """The server does not have the commit, or does not hand it out by its id."""


async def _fetch_refs(git: _Git, repository: str, *args: str) -> None:
    options = [arg for arg in args if arg.startswith("--")]
    refs = [arg for arg in args if not arg.startswith("--")]
    try:
        done = await git.run(
            "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", *options, "--", repository, *refs,
            timeout=FETCH_TIMEOUT_SECONDS,
        )  # fmt: skip
    except processes.ProcessTimeoutError as error:
        raise _failure("GIT_UNREACHABLE", repository, "did not answer in time", error.stderr) from error
    if done.returncode == 0:
        return
    _raise_if_full(done.stderr)
    said = done.stderr.lower()
    if any(sign in said for sign in _REF):
        raise _RefRefusedError(processes.redact(done.stderr))
    if any(sign in said for sign in _AUTH):
        raise _failure("AUTH_FAILED", repository, "refused this device", done.stderr)
    if any(sign in said for sign in _NETWORK):
        raise _failure("GIT_UNREACHABLE", repository, "cannot be fetched from", done.stderr)
    raise MirrorBrokenError(processes.redact(done.stderr.strip()[-500:]))


def _raise_if_full(stderr: str) -> None:
    if "no space left on device" in stderr.lower():
        raise LongshoreError("DISK_FULL", "there is no space left for the repository", details=stderr[-2000:])


def _failure(code: str, repository: str, what: str, stderr: str = "") -> LongshoreError:
    details = processes.redact(stderr.strip())[-4000:] or None
    return LongshoreError(code, f"{processes.redact(repository)} {what}", details=details)
