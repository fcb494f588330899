"""Who signed a commit, where the operator wants to know: `git verify-commit` with keys that are his own (FAULTS 19).

What must be signed is the one commit that is to be applied, and nothing below it. Its signature covers its tree, which
is all that is applied, and the ids of its parents, which are hashes over everything before: whoever signs it answers
for the whole, the merge of somebody else's unsigned branch included. To ask it of every ancestor would refuse each
registry that was begun without signatures, and would protect nothing: an unsigned commit is refused when it is the one
to be applied. The broker's own state commits need no signature, because they are never that (`effective_head`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from longshore.registry.repositories.git_process import run_git
from longshore.registry.repositories.repository import Repository
from longshore.schemas.failures import LongshoreError
from longshore.schemas.issues import Issue
from longshore.schemas.wording import short

# A keyring of a thousand keys takes a second.
_IMPORT_SECONDS = 60.0

# No daemon is started, nobody is asked for further keys, and what the operator exported is trusted as it is.
_GPG_CONFIG = "no-autostart\ndisable-dirmngr\nno-auto-key-locate\ntrust-model always\n"


@dataclass(frozen=True)
class AllowedKeys:
    """Whose signature counts. With neither file no signature is asked for."""

    allowed_signers: Path | None = None
    """SSH keys, as in ssh-keygen(1) ALLOWED SIGNERS."""
    openpgp_keys: Path | None = None
    """Public OpenPGP keys, as `gpg --export` writes them."""

    def __bool__(self) -> bool:
        return bool(self.allowed_signers or self.openpgp_keys)

    def __str__(self) -> str:
        kinds = (("SSH", self.allowed_signers), ("OpenPGP", self.openpgp_keys))
        return " or ".join(f"the {kind} keys in {file}" for kind, file in kinds if file)


ANY_KEYS = AllowedKeys()


class _Kind(NamedTuple):
    name: str
    program: str
    begins: str


_SSH = _Kind("SSH", "ssh-keygen", "-----BEGIN SSH SIGNATURE-----")
_OPENPGP = _Kind("OpenPGP", "gpg", "-----BEGIN PGP ")
_OTHER = _Kind("X.509 or unknown", os.devnull, "")

_FINGERPRINTS = {
    _SSH: re.compile(r"key (SHA256:[A-Za-z0-9+/=]+)"),
    # ERRSIG ends with the fingerprint, where the signature has it; what is known to gpg has it in VALIDSIG.
    _OPENPGP: re.compile(
        r"^\[GNUPG:\] (?:VALIDSIG|NO_PUBKEY|(?:BAD|EXP|EXPKEY|REVKEY)SIG) ([0-9A-F]{16,64})\b", re.MULTILINE
    ),
}

# In the words of ssh-keygen 8.9 to 10 and of gpg's doc/DETAILS; the first that fits.
_REASONS = {
    _SSH: (
        (re.compile(r"key has expired|not yet valid"), "was not valid at the time of the commit"),
        (re.compile(r"namespace"), "does not count for git: the namespace differs"),
        (re.compile(r"incorrect signature"), "did not sign this content: the commit has been altered"),
        (re.compile(r""), "is not allowed"),
    ),
    _OPENPGP: (
        (re.compile(r"^\[GNUPG:\] BADSIG", re.MULTILINE), "did not sign this content: the commit has been altered"),
        (re.compile(r"^\[GNUPG:\] REVKEYSIG", re.MULTILINE), "has been revoked"),
        (re.compile(r"^\[GNUPG:\] EXPKEYSIG", re.MULTILINE), "has expired"),
        (re.compile(r"^\[GNUPG:\] EXPSIG", re.MULTILINE), "made a signature that has expired"),
        (re.compile(r""), "is not allowed"),
    ),
}


async def require_verifiable(keys: AllowedKeys, environment: Mapping[str, str]) -> None:
    """See to it, before the first commit comes, that signatures can be checked.

    Raises LongshoreError PROGRAM_MISSING or IO_ERROR.
    """
    for kind, file in ((_SSH, keys.allowed_signers), (_OPENPGP, keys.openpgp_keys)):
        if file is not None:
            if shutil.which(kind.program, path=environment.get("PATH")) is None:
                raise _missing(kind)
            await asyncio.to_thread(_readable, file)
    if keys.openpgp_keys is not None:
        async with _keyring(keys.openpgp_keys, environment):
            pass


async def signature_issue(repository: Repository, sha: str, keys: AllowedKeys) -> Issue | None:
    """Return why the commit must not be applied: it has no good signature of an allowed key.

    The files of keys are read each time, so that a key counts, or no longer counts, from the next commit on.
    Raises as `require_verifiable`, and GitFailed where the commit is not there.
    """
    kind = _kind_of(await repository.git("cat-file", "commit", sha))
    file = {_SSH: keys.allowed_signers, _OPENPGP: keys.openpgp_keys}.get(kind) if kind else None
    if kind is None:
        return _issue(sha, "it is not signed", keys)
    if file is None:
        return _issue(sha, f"its signature is of the kind {kind.name}", keys)
    said = await _refusal(repository, sha, kind, await asyncio.to_thread(_readable, file))
    if said is None:
        return None
    if said.startswith("error: cannot run"):
        raise _missing(kind)
    found = _FINGERPRINTS[kind].search(said)
    key = f"the {kind.name} key {found[1]}" if found else f"its {kind.name} key"
    return _issue(sha, f"{key} {next(text for reason, text in _REASONS[kind] if reason.search(said))}", keys)


def _kind_of(commit: str) -> _Kind | None:
    header, _, _ = commit.partition("\n\n")
    signature = next((line.removeprefix("gpgsig ") for line in header.split("\n") if line.startswith("gpgsig ")), "")
    if signature and not signature.startswith((_SSH.begins, _OPENPGP.begins)):
        return _OTHER
    return next((kind for kind in (_SSH, _OPENPGP) if signature.startswith(kind.begins)), None)


async def _refusal(repository: Repository, sha: str, kind: _Kind, file: Path) -> str | None:
    """Return None where git calls the signature good, else what git and its helper said about it."""
    if kind is _SSH:
        return await _verify(repository, sha, kind, {"gpg.ssh.allowedSignersFile": str(file)}, repository.environment)
    async with _keyring(file, repository.environment) as home:
        environment = {**repository.environment, "GNUPGHOME": home}
        return await _verify(repository, sha, kind, {"gpg.minTrustLevel": "undefined"}, environment)


async def _verify(
    repository: Repository, sha: str, kind: _Kind, config: Mapping[str, str], environment: Mapping[str, str]
) -> str | None:
    # Only the program of the kind that was found can run; the repository's own configuration is overruled.
    programs = {
        "gpg.ssh.program": kind.program if kind is _SSH else os.devnull,
        **dict.fromkeys(("gpg.program", "gpg.openpgp.program"), kind.program if kind is _OPENPGP else os.devnull),
        "gpg.x509.program": os.devnull,
    }
    variables = {"GIT_CONFIG_COUNT": str(len(programs) + len(config))}
    for number, (name, value) in enumerate({**programs, **config}.items()):
        variables |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    ended = await run_git(
        repository.directory, ("verify-commit", "--raw", sha), environment={**environment, **variables}, accept=(0, 1)
    )
    return ended.stderr if ended.code else None


@asynccontextmanager
async def _keyring(openpgp_keys: Path, environment: Mapping[str, str]) -> AsyncIterator[str]:
    """Make a GNUPGHOME of nothing but the given keys; the operator's own is neither read nor changed."""
    with tempfile.TemporaryDirectory(prefix="gpg-") as home:
        await asyncio.to_thread(Path(home, "gpg.conf").write_text, _GPG_CONFIG)
        try:
            process = await asyncio.create_subprocess_exec(
                *("gpg", "--batch", "--quiet", "--no-tty", "--import", str(openpgp_keys)),
                env={**environment, "GNUPGHOME": home},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except FileNotFoundError as error:
            raise _missing(_OPENPGP) from error
        try:
            async with asyncio.timeout(_IMPORT_SECONDS):
                _, stderr = await process.communicate()
        except TimeoutError as error:
            raise LongshoreError("IO_ERROR", f"gpg did not read {openpgp_keys} in {_IMPORT_SECONDS:g} s") from error
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode:
            details = stderr.decode("utf-8", "replace")
            raise LongshoreError("IO_ERROR", f"gpg finds no public keys in {openpgp_keys}", details=details)
        yield home


def _readable(file: Path) -> Path:
    """Return the file's absolute path: git looks for it from another folder."""
    try:
        file.open("rb").close()
    except OSError as error:
        raise LongshoreError("IO_ERROR", f"cannot read the allowed keys in {file}: {error.strerror}") from error
    return file.absolute()


def _missing(kind: _Kind) -> LongshoreError:
    return LongshoreError(
        "PROGRAM_MISSING", f"{kind.program} is not installed: it checks signatures by {kind.name} keys"
    )


def _issue(sha: str, what: str, keys: AllowedKeys) -> Issue:
    message = f"the commit {short(sha)} was not signed as it must be: {what}; allowed are {keys}"
    return Issue(code="COMMIT_UNVERIFIED", file="", message=message)
