"""Signed commits: real keys of both kinds, and every way in which a signature does not count."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import psutil
import pytest

from longshore.registry.repositories.git_process import git_environment
from longshore.registry.repositories.repository import Repository
from longshore.registry.repositories.signing import AllowedKeys, require_verifiable, signature_issue
from longshore.schemas.failures import LongshoreError
from longshore.schemas.issues import Audience, Issue

ENVIRONMENT = git_environment(os.environ)


class SshKey:
    def __init__(self, folder: Path, name: str) -> None:
        self.file = folder / name
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.file))
        self.fingerprint = run("ssh-keygen", "-l", "-f", str(self.file)).split()[1]

    @property
    def signing(self) -> tuple[str, ...]:
        return ("-c", "gpg.format=ssh", "-c", f"user.signingkey={self.file}")

    def allowed(self, options: str = "") -> Path:
        """Write an allowed_signers file with this key and return its path."""
        path = self.file.with_suffix(".allowed")
        path.write_text(f"olga@acme.com {options} {self.file.with_suffix('.pub').read_text()}")
        return path


class GpgKey:
    """A key in a keyring of its own. `when` is the day on which its owner lives."""

    def __init__(self, home: Path, *, expires: str = "never", when: str | None = None) -> None:
        self.home = home
        home.mkdir(mode=0o700)
        self.program = home / "program"
        faked = f"--faked-system-time {when}T000000" if when else ""
        self.program.write_text(f'#!/bin/sh\nexec gpg --homedir {home} {faked} --batch --quiet --no-tty "$@"\n')
        self.program.chmod(0o755)
        self.gpg("--passphrase", "", "--quick-gen-key", "Olga <olga@acme.com>", "ed25519", "sign", expires)
        listed = self.gpg("--list-keys", "--with-colons").splitlines()
        self.fingerprint = next(line.split(":")[9] for line in listed if line.startswith("fpr"))

    def gpg(self, *args: str) -> str:
        return run(str(self.program), *args)

    @property
    def signing(self) -> tuple[str, ...]:
        return ("-c", f"gpg.program={self.program}", "-c", f"user.signingkey={self.fingerprint}")

    def exported(self, *options: str) -> Path:
        path = self.home / "exported"
        path.unlink(missing_ok=True)
        self.gpg(*options, "--output", str(path), "--export")
        return path

    def revoke(self) -> None:
        certificate = self.home / "openpgp-revocs.d" / f"{self.fingerprint}.rev"
        certificate.write_text(certificate.read_text().replace(":-----BEGIN", "-----BEGIN"))
        self.gpg("--import", str(certificate))


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def ssh_key(tmp_path: Path) -> SshKey:
    return SshKey(tmp_path, "olga")


@pytest.fixture
def make_gpg_key():
    """Return a function that makes a key; the agents that guard them end with the test."""
    root = Path(tempfile.mkdtemp(prefix="gpg-"))  # not tmp_path: an agent's socket has a short path
    homes = (root / str(number) for number in range(9))
    yield lambda **options: GpgKey(next(homes), **options)
    for home in root.iterdir():
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)
    shutil.rmtree(root, ignore_errors=True)  # the agent takes its sockets away itself, a moment later


@pytest.fixture
def repository(remote) -> Repository:
    remote.commit({"README.md": "A registry.\n"}, "Start without signatures")
    return Repository(remote.work / ".git", ENVIRONMENT)


def commit(remote, key: SshKey | GpgKey | None, message: str = "Deploy") -> str:
    remote.git(*(key.signing if key else ()), "commit", "-q", "--allow-empty", "-m", message, *(["-S"] if key else []))
    return remote.git("rev-parse", "HEAD")


async def refused(repository: Repository, sha: str, keys: AllowedKeys) -> str:
    issue = await signature_issue(repository, sha, keys)
    assert isinstance(issue, Issue)
    assert (issue.code, issue.file, issue.told) == ("COMMIT_UNVERIFIED", "", (Audience.OPS,))
    assert str(keys) in issue.message
    return issue.message


async def test_an_allowed_ssh_key_vouches_for_what_is_below(remote, repository, ssh_key):
    """The signed commit counts, although the history below it was begun without signatures."""
    sha = commit(remote, ssh_key)
    assert await signature_issue(repository, sha, AllowedKeys(allowed_signers=ssh_key.allowed())) is None


async def test_an_allowed_openpgp_key_counts(remote, repository, make_gpg_key):
    """However the keyring was exported; the keys of both kinds may be given together."""
    key = make_gpg_key()
    sha = commit(remote, key)
    for options in ((), ("--armor",)):
        assert await signature_issue(repository, sha, AllowedKeys(openpgp_keys=key.exported(*options))) is None


async def test_a_signed_merge_vouches_for_an_unsigned_branch(remote, repository, ssh_key):
    """Whoever signs the merge answers for both of its sides; without a signature the merge is refused."""
    remote.git("checkout", "-q", "-b", "side")
    commit(remote, None, "On a branch")
    remote.git("checkout", "-q", "main")
    keys = AllowedKeys(allowed_signers=ssh_key.allowed())
    remote.git("merge", "-q", "--no-ff", "-m", "Unsigned", "side")
    assert "it is not signed" in await refused(repository, remote.git("rev-parse", "HEAD"), keys)
    remote.git(*ssh_key.signing, "commit", "-q", "--amend", "-S", "--no-edit")
    assert await signature_issue(repository, remote.git("rev-parse", "HEAD"), keys) is None


async def test_an_unsigned_commit_is_refused(remote, repository, ssh_key):
    """Even on top of a signed one."""
    commit(remote, ssh_key)
    message = await refused(repository, commit(remote, None), AllowedKeys(allowed_signers=ssh_key.allowed()))
    assert "it is not signed" in message


async def test_a_signature_in_the_message_is_none(remote, repository, ssh_key):
    """Only the header of the commit counts, whatever its text looks like."""
    commit(remote, ssh_key)
    raw = remote.git("cat-file", "commit", "HEAD")
    signature = raw[raw.index("gpgsig ") : raw.index("-----END SSH SIGNATURE-----")]
    sha = commit(remote, None, f"Deploy\n\n{signature}-----END SSH SIGNATURE-----")
    assert "it is not signed" in await refused(repository, sha, AllowedKeys(allowed_signers=ssh_key.allowed()))


async def test_a_foreign_ssh_key_is_named(remote, repository, ssh_key, tmp_path):
    """The operator reads which key it was, so that it can be allowed or asked about."""
    stranger = SshKey(tmp_path, "stranger")
    message = await refused(repository, commit(remote, stranger), AllowedKeys(allowed_signers=ssh_key.allowed()))
    assert f"the SSH key {stranger.fingerprint} is not allowed" in message


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ('valid-before="20200101"', "SSH key {} was not valid at the time of the commit"),
        ('valid-after="20990101"', "SSH key {} was not valid at the time of the commit"),
        ('namespaces="file"', "its SSH key does not count for git: the namespace differs"),
    ],
)
async def test_an_ssh_key_counts_only_when_and_for_what_it_is_allowed(remote, repository, ssh_key, options, reason):
    """The options of the allowed_signers file hold."""
    message = await refused(repository, commit(remote, ssh_key), AllowedKeys(allowed_signers=ssh_key.allowed(options)))
    assert reason.format(ssh_key.fingerprint) in message


async def test_an_ssh_signature_for_something_else_does_not_count(remote, repository, ssh_key, tmp_path):
    """A signature that its owner gave to a file of the same content, not to a commit."""
    unsigned = remote.git("cat-file", "commit", commit(remote, None)) + "\n"
    content = tmp_path / "content"
    content.write_text(unsigned)
    run("ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", str(ssh_key.file), str(content))
    signature = (tmp_path / "content.sig").read_text().strip().replace("\n", "\n ")
    header, _, text = unsigned.partition("\n\n")
    forged = f"{header}\ngpgsig {signature}\n\n{text}"
    sha = remote._run("hash-object", "-t", "commit", "-w", "--stdin", stdin=forged)
    message = await refused(repository, sha, AllowedKeys(allowed_signers=ssh_key.allowed()))
    assert "does not count for git: the namespace differs" in message


@pytest.mark.parametrize("kind", ["ssh", "openpgp"])
async def test_an_altered_commit_is_refused(remote, repository, ssh_key, make_gpg_key, kind):
    """A signature that was taken from another commit."""
    key = ssh_key if kind == "ssh" else make_gpg_key()
    keys = AllowedKeys(ssh_key.allowed()) if kind == "ssh" else AllowedKeys(openpgp_keys=key.exported())
    raw = remote.git("cat-file", "commit", commit(remote, key)).replace("Deploy", "Destroy") + "\n"
    sha = remote._run("hash-object", "-t", "commit", "-w", "--stdin", stdin=raw)
    assert "did not sign this content: the commit has been altered" in await refused(repository, sha, keys)


async def test_openpgp_keys_that_expired_were_revoked_or_are_unknown(remote, repository, make_gpg_key):
    """Each is named with its reason."""
    key, stranger = make_gpg_key(), make_gpg_key()
    old = make_gpg_key(expires="2020-02-01", when="20200115")
    keys = AllowedKeys(openpgp_keys=key.exported())
    message = await refused(repository, commit(remote, stranger), keys)
    assert f"the OpenPGP key {stranger.fingerprint[-16:]} is not allowed" in message
    message = await refused(repository, commit(remote, old), AllowedKeys(openpgp_keys=old.exported()))
    assert f"{old.fingerprint[-16:]} has expired" in message
    sha = commit(remote, key)
    key.revoke()
    assert f"{key.fingerprint[-16:]} has been revoked" in await refused(
        repository, sha, AllowedKeys(openpgp_keys=key.exported())
    )


async def test_the_other_kind_of_key_is_not_looked_up_anywhere(remote, repository, ssh_key, make_gpg_key):
    """Where only SSH keys are allowed, the operator's own gpg keyring vouches for nobody."""
    key = make_gpg_key()
    mine = {**ENVIRONMENT, "GNUPGHOME": str(key.home), "HOME": str(key.home)}
    repository = Repository(repository.directory, mine)
    keys = AllowedKeys(allowed_signers=ssh_key.allowed())
    assert "its signature is of the kind OpenPGP" in await refused(repository, commit(remote, key), keys)
    keys = AllowedKeys(openpgp_keys=make_gpg_key().exported())
    assert "is not allowed" in await refused(repository, commit(remote, key), keys)


async def test_the_repository_does_not_say_how_it_is_verified(remote, repository, ssh_key, tmp_path):
    """Its configuration may name a program that finds every signature good."""
    yes = tmp_path / "yes"
    yes.write_text('#!/bin/sh\necho "Good \\"git\\" signature for x with ED25519 key SHA256:x"\n')
    yes.chmod(0o755)
    stranger = SshKey(tmp_path, "stranger")
    sha = commit(remote, stranger)
    for name in ("gpg.ssh.program", "gpg.program"):
        remote.git("config", name, str(yes))
    remote.git("config", "gpg.ssh.allowedSignersFile", str(stranger.allowed()))
    assert "is not allowed" in await refused(repository, sha, AllowedKeys(allowed_signers=ssh_key.allowed()))


async def test_nothing_of_a_keyring_stays_behind(remote, repository, make_gpg_key, tmp_path, monkeypatch):
    """No folder with keys, and no agent in it."""
    key = make_gpg_key()
    sha = commit(remote, key)
    keys = AllowedKeys(openpgp_keys=key.exported())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "homes"))
    (tmp_path / "homes").mkdir()
    await require_verifiable(keys, ENVIRONMENT)
    assert await signature_issue(repository, sha, keys) is None
    assert list((tmp_path / "homes").iterdir()) == []
    running = (" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    assert not any(str(tmp_path / "homes") in command for command in running)


@pytest.mark.parametrize("program", ["ssh-keygen", "gpg"])
async def test_a_missing_program_is_told_at_the_start(program, ssh_key, tmp_path):
    """Not when the first commit comes."""
    keys = AllowedKeys(ssh_key.allowed()) if program == "ssh-keygen" else AllowedKeys(openpgp_keys=ssh_key.file)
    with pytest.raises(LongshoreError, match=f"PROGRAM_MISSING: {program}"):
        await require_verifiable(keys, ENVIRONMENT | {"PATH": str(tmp_path)})


@pytest.mark.parametrize("kind", ["ssh", "openpgp"])
async def test_a_program_that_vanished_refuses_no_commit(remote, repository, ssh_key, make_gpg_key, kind):
    """It is the machine's fault: the commit is neither accepted nor called unverified."""
    key = ssh_key if kind == "ssh" else make_gpg_key()
    keys = AllowedKeys(ssh_key.allowed()) if kind == "ssh" else AllowedKeys(openpgp_keys=key.exported())
    sha = commit(remote, key)
    folder = remote.bare / "only-git"
    folder.mkdir()
    (folder / "git").symlink_to(shutil.which("git"))
    repository = Repository(repository.directory, ENVIRONMENT | {"PATH": str(folder)})
    with pytest.raises(LongshoreError, match="PROGRAM_MISSING"):
        await signature_issue(repository, sha, keys)


async def test_files_without_keys_are_told_at_the_start(ssh_key, tmp_path):
    """A broker with them would refuse everything."""
    await require_verifiable(AllowedKeys(), ENVIRONMENT)
    for keys in (AllowedKeys(tmp_path / "none"), AllowedKeys(openpgp_keys=tmp_path / "none")):
        with pytest.raises(LongshoreError, match=r"IO_ERROR: cannot read the allowed keys in .*none"):
            await require_verifiable(keys, ENVIRONMENT)
    with pytest.raises(LongshoreError, match="IO_ERROR: gpg finds no public keys"):
        await require_verifiable(AllowedKeys(openpgp_keys=ssh_key.file), ENVIRONMENT)
