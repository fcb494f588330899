"""Running git: one clean environment, one process group per call, and what its refusals mean.

git by argv rather than GitPython: GitPython runs the same program, but synchronously, with the caller's environment
and configuration, with long-lived helper processes, and it cannot be cancelled. Here a call that is cancelled or
takes too long takes its whole process group with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from longshore.schemas.failures import LongshoreError
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
    "GIT_ALLOW_PROTOCOL": "https:http:ssh:git:file",
    "LC_ALL": "C",
}

_OPTIONS = (
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "gc.autoDetach=false"),  # a collector in the background would outlive the lock that it needs
    # A host that sends less than 1 kB/s for 30 s is as good as gone.
    *("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=30"),
)


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


def git_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of every git process: what of `inherited` may pass, and what is fixed."""
    passed = {name: value for name, value in inherited.items() if name in _INHERITED}
    return {"GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=15", **passed, **_FIXED}


async def run_git(
    directory: Path,
    args: Sequence[str],
    *,
    environment: Mapping[str, str],
    stdin: bytes = b"",
    limit: float = 60.0,
    accept: Sequence[int] = (0,),
    discover: bool = False,
) -> Ended:
    """Run git for at most `limit` seconds and return how it ended.

    `directory` is the git directory itself or, with `discover`, any folder of a work tree. Raises GitFailed for a code
    not in `accept`, LongshoreError GIT_UNREACHABLE when the time is up or git is missing.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            "git",
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
        raise LongshoreError("GIT_UNREACHABLE", f"git {args[0]} did not end within {limit:g} s") from error
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
_LOCAL = re.compile(
    r"\.lock': File exists|is corrupt|is empty|bad object|unable to read|not send all necessary|bad config"
)

# Someone else's push came first; the last two when it came within the same instant.
_CONFLICT = re.compile(r"stale info|fetch first|non-fast-forward|cannot lock ref|failed to update ref")


def damaged(stderr: str) -> bool:
    """Tell whether git complains about our own copy (a torn object, a lock left by kill -9), not about its host."""
    return bool(_LOCAL.search(stderr))


def remote_failure(url: str, stderr: str) -> LongshoreError:
    """Return what a failed fetch or push from `url` means. What is not known to be permanent is worth another try."""
    stderr = shown(stderr)
    lines = [line for line in stderr.splitlines() if line.startswith(("fatal:", "error:", "remote:", "ssh:"))]
    reason = (lines or [stderr.strip() or "git gave no reason"])[0].removeprefix("fatal: ")
    if _NOT_FOUND.search(stderr):
        return LongshoreError("REPOSITORY_NOT_FOUND", f"{shown(url)}: {reason}", details=stderr)
    if _AUTH.search(stderr):
        return LongshoreError("AUTH_FAILED", f"{shown(url)}: {reason}", details=stderr)
    return LongshoreError("GIT_UNREACHABLE", f"{shown(url)}: {reason}", details=stderr)


def push_failure(url: str, stderr: str) -> LongshoreError:
    """Return what a failed push to `url` means."""
    if _CONFLICT.search(stderr):
        return LongshoreError("STATE_PUSH_CONFLICT", f"the branch of {shown(url)} has moved")
    if "[remote rejected]" in stderr:  # a protected branch, or a hook
        reason = next(line.strip() for line in stderr.splitlines() if "[remote rejected]" in line)
        return LongshoreError("AUTH_FAILED", f"{shown(url)} refuses the broker's push: {reason}", details=stderr)
    return remote_failure(url, stderr)
