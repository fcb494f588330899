"""Running git: one clean environment, one process group per call, and what its refusals mean.

git by argv rather than GitPython: GitPython runs the same program, but synchronously, with the caller's environment
and configuration, with long-lived helper processes, and it cannot be cancelled. Here a call that is cancelled or
takes too long takes its whole process group with it.

No configuration of the machine or the user counts; HOME is handed on all the same, since credentials lie below it
(`~/.netrc`, `~/.ssh`). Nothing of a repository runs or is followed: no hooks, no filters, no submodules (FAULTS 39).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from longshore.schemas.failures import LongshoreError
from longshore.schemas.policies import Scheme
from longshore.schemas.redaction import without_userinfo

# Where to find programs, and how the operator's host reaches and proves itself to git hosts. Nothing else passes:
# an inherited GIT_DIR, GIT_INDEX_FILE or GIT_CONFIG_* (as inside a hook) would redirect what we do.
_INHERITED = frozenset({"PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR"}) | {
    *("SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "GIT_ASKPASS", "SSH_ASKPASS", "GIT_SSL_CAINFO", "SSL_CERT_FILE"),
    *("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"),
}

_FIXED = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "LC_ALL": "C",
}

_OPTIONS = (
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false"),  # a work tree's own configuration could name a program
    *("-c", "core.symlinks=false"),
    *("-c", "submodule.recurse=false", "-c", "fetch.recurseSubmodules=false"),
    *("-c", "gc.autoDetach=false"),  # a collector in the background would outlive the lock that it needs
    # Not transfer.fsckObjects: it refuses old repositories for harmless oddities, and what it guards is a checkout.
)

# `ulimit` counts blocks of 512 bytes (POSIX), in some shells of 1024: the limit is never lower than asked for. Where
# the system has set a lower one already, that one counts.
_LIMITED = ("sh", "-c", 'ulimit -f "$1" 2>/dev/null; shift; exec git "$@"', "sh")
FILE_SIZE_BLOCK = 512


@dataclass(frozen=True)
class Ended:
    """How one git process ended."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode("utf-8", "replace").strip()


class GitFailed(Exception):
    """git ended with a code that its caller had no use for."""

    def __init__(self, command: str, ended: Ended) -> None:
        super().__init__(f"git {command}: {ended.stderr.strip() or ended.code}")
        self.stderr = ended.stderr


def git_environment(inherited: Mapping[str, str], protocols: Collection[str] = get_args(Scheme)) -> dict[str, str]:
    """Return the environment of every git process: what of `inherited` may pass, what is fixed, how it may fetch."""
    passed = {name: value for name, value in inherited.items() if name in _INHERITED}
    ssh = {"GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=15"}
    return {**ssh, **passed, **_FIXED, "GIT_ALLOW_PROTOCOL": ":".join(protocols)}


async def run_git(
    directory: Path,
    args: Sequence[str],
    *,
    environment: Mapping[str, str],
    stdin: bytes = b"",
    limit: float = 60.0,
    accept: Sequence[int] = (0,),
    discover: bool = False,
    max_file_bytes: int | None = None,
) -> Ended:
    """Run git for at most `limit` seconds and return how it ended.

    `directory` is the git directory itself or, with `discover`, any folder of a work tree. No file that it writes
    becomes larger than `max_file_bytes`: it dies of trying. Raises GitFailed for a code not in `accept`,
    LongshoreError GIT_TIMEOUT when the time is up, GIT_UNREACHABLE when git is missing.
    """
    limited = () if max_file_bytes is None else (*_LIMITED, str(max(1, max_file_bytes // FILE_SIZE_BLOCK)))
    try:
        process = await asyncio.create_subprocess_exec(
            *(limited or ("git",)),
            *_OPTIONS,
            # Told, not found: an empty cache inside somebody's work tree must not become that work tree's repository.
            *(() if discover else ("--git-dir=.",)),
            *args,
            cwd=directory,
            env=dict(environment),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            process_group=0,
        )
    except FileNotFoundError as error:
        raise LongshoreError("GIT_UNREACHABLE", f"cannot run git in {directory}: {error.strerror}") from error
    try:
        async with asyncio.timeout(limit):
            stdout, stderr = await process.communicate(stdin)
    except TimeoutError as error:
        raise LongshoreError("GIT_TIMEOUT", f"git {args[0]} did not end within {limit:g} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    ended = Ended(process.returncode or 0, stdout, stderr.decode("utf-8", "replace"))
    if ended.code not in accept:
        raise GitFailed(args[0], ended)
    return ended


# Texts of git hold URLs, and people put tokens into them.
shown = without_userinfo

_NOT_FOUND = re.compile(
    r"does not appear to be a git repository|repository '.*' not found|Repository not found|returned error: 404"
)
_AUTH = re.compile(r"Authentication failed|Permission denied|could not read (Username|Password)|returned error: 40[13]")
_SLOW = re.compile(r"Operation too slow")
_LOCAL = re.compile(
    r"\.lock': File exists|could not lock config file|is corrupt|is empty|bad object|unable to read"
    r"|not send all necessary|bad config|not a git repository: '\.'"
)
_FILTER = re.compile(r"filter '.*' not supported|not send all necessary")

# Someone else's push came first; the last two when it came within the same instant.
_CONFLICT = re.compile(r"stale info|fetch first|non-fast-forward|cannot lock ref|failed to update ref")


def damaged(stderr: str) -> bool:
    """Tell whether git complains about our own copy (a torn object, a lock left by kill -9), not about its host."""
    return bool(_LOCAL.search(stderr))


def filter_refused(stderr: str) -> bool:
    """Tell whether a fetch may succeed without a filter.

    The host does not offer that kind, or a ref leads straight to an object that the filter leaves out.
    """
    return bool(_FILTER.search(stderr))


def remote_failure(url: str, stderr: str) -> LongshoreError:
    """Return what a failed fetch or push from `url` means. What is not known to be permanent is worth another try."""
    stderr = shown(stderr)
    lines = [line for line in stderr.splitlines() if line.startswith(("fatal:", "error:", "remote:", "ssh:"))]
    reason = (lines or [stderr.strip() or "git gave no reason"])[0].removeprefix("fatal: ")
    if _NOT_FOUND.search(stderr):
        return LongshoreError("REPOSITORY_NOT_FOUND", f"{shown(url)}: {reason}", details=stderr)
    if _AUTH.search(stderr):
        return LongshoreError("AUTH_FAILED", f"{shown(url)}: {reason}", details=stderr)
    code = "GIT_TIMEOUT" if _SLOW.search(stderr) else "GIT_UNREACHABLE"
    return LongshoreError(code, f"{shown(url)}: {reason}", details=stderr)


def push_failure(url: str, stderr: str) -> LongshoreError:
    """Return what a failed push to `url` means."""
    if _CONFLICT.search(stderr):
        return LongshoreError("STATE_PUSH_CONFLICT", f"the branch of {shown(url)} has moved")
    if "[remote rejected]" in stderr:  # a protected branch, or a hook
        reason = next(line.strip() for line in stderr.splitlines() if "[remote rejected]" in line)
        return LongshoreError("AUTH_FAILED", f"{shown(url)} refuses the broker's push: {reason}", details=stderr)
    return remote_failure(url, stderr)
