"""The git repositories of the corpus: all cases in two of them, made at once.

Each case is a commit of the registry's branch, and a git namespace of the model's repository (gitnamespaces(7)), which
it finds at the same address as every other case: `ssh` is a program that serves it whatever host is asked for.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from registry_cases import Case, Content

from longshore.registry.records.pins import Pin, Pins

_BASE = "base"
"""The namespace of the model as the cases find it that do not change it."""

# git knows by the name `ssh` how to call it: the host, then what to run there.
_SSH = """\
#!/bin/sh
export GIT_NAMESPACE="$1"
for last; do :; done
case "$last" in
  "git-upload-pack '"*"/sentiment'" | "git-upload-pack '"*"/sentiment.git'") exec git upload-pack {model} ;;
esac
echo "fatal: this does not appear to be a git repository" >&2
exit 128
"""

_OBJECTS = {"commit": "", "tree": "^{tree}", "blob": ":model-card.yaml"}
_PLACEHOLDER = re.compile(r"@(commit|tree|blob)(?::([0-9]+))?@")
_WHO = "Olga Ops <olga@acme.com> 1750000000 +0000"


class Hosts:
    """The registry at `url`, with one commit per case, and the host of the model's repository."""

    def __init__(self, folder: Path, cases: Sequence[Case]) -> None:
        self._model, registry = folder / "model.git", folder / "registry.git"
        self._make_model([case for case in cases if case.changes_model])
        _import(registry, b"".join(_commit("refs/heads/main", self._placed(case)) for case in cases))
        commits = _git(registry, "rev-list", "--reverse", "main").splitlines()
        self._heads = {case.title: commit for case, commit in zip(cases, commits, strict=True)}
        self._ssh = folder / "ssh"
        self._ssh.write_text(_SSH.format(model=self._model))
        self._ssh.chmod(0o700)
        self.url = registry.as_uri()

    def head(self, case: Case) -> str:
        return self._heads[case.title]

    def ssh(self, case: Case) -> str:
        """Return a GIT_SSH_COMMAND for the model as the case has it."""
        return f"{self._ssh} {_namespace(case)}"

    def _make_model(self, cases: Sequence[Case]) -> None:
        released = "create refs/namespaces/{0}/refs/tags/v1.0.0 refs/namespaces/{0}/refs/heads/main\n"
        base = Case("", "", ())
        stream = [_commit(f"refs/namespaces/{_BASE}/refs/heads/main", base.model_files())]
        updates = [released.format(_BASE)]
        for case in cases:
            name = _namespace(case)
            prefix = f"refs/namespaces/{name}/"
            stream.append(_commit(f"{prefix}refs/heads/main", case.model_files()))
            if "refs/tags/v1.0.0" not in case.refs:
                updates.append(released.format(name))
            for ref, kind in case.refs.items():
                if kind in _OBJECTS:
                    updates.append(f"create {prefix}{ref} {prefix}refs/heads/main{_OBJECTS[kind]}\n")
                elif kind == "annotated":
                    tag = f"tag {name}/{ref}\nfrom {prefix}refs/heads/main\n{_signed('tagger', 'release')}"
                    stream.append(tag.encode())
                    updates.append(f"create {prefix}{ref} refs/tags/{name}/{ref}\n")
                elif kind is not None:
                    stream.append(f"commit {prefix}{ref}\n{_signed('committer', kind)}\n".encode())
        _import(self._model, b"".join(stream))
        _git(self._model, "update-ref", "--stdin", stdin="".join(updates).encode())

    def pins(self, case: Case) -> Pins:
        """Return what the broker remembers of the model's tags."""
        repository, seen = "ssh://git@git.acme.com/sentiment.git", "2025-10-01T00:00:00Z"
        commits = {ref: self._resolved(case, commit) for ref, commit in case.pinned.items()}
        pins = [Pin(repository=repository, ref=ref, commit=commit, first_seen=seen) for ref, commit in commits.items()]
        return Pins({pin.tag: pin for pin in pins})

    def _placed(self, case: Case) -> dict[str, Content]:
        files = case.registry_files()
        texts = {path: text for path, text in files.items() if isinstance(text, str)}
        return {**files, **{path: self._resolved(case, text) for path, text in texts.items()}}

    def _resolved(self, case: Case, text: str) -> str:
        """Put ids of the model's objects in the place of `@commit@`, `@tree:7@`."""
        main = f"refs/namespaces/{_namespace(case)}/refs/heads/main"

        def object_id(match: re.Match[str]) -> str:
            return _git(self._model, "rev-parse", main + _OBJECTS[match[1]])[: int(match[2] or 40)]

        return _PLACEHOLDER.sub(object_id, text)


def _namespace(case: Case) -> str:
    return case.title if case.changes_model else _BASE


def _signed(role: str, message: str) -> str:
    return f"{role} {_WHO}\ndata {len(message)}\n{message}\n"


def _commit(ref: str, files: Mapping[str, Content]) -> bytes:
    """Return a commit of exactly these files on top of `ref`, as git fast-import reads it."""
    parts = [f"commit {ref}\n{_signed('committer', 'change')}deleteall\n".encode()]
    for path, content in files.items():
        quoted = '"' + path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
        name = quoted.encode("utf-8", "surrogateescape")
        mode, data = content if isinstance(content, tuple) else ("100644", content)
        if mode == "160000":
            parts.append(b"M 160000 %s %s\n" % (data.encode(), name))
            continue
        raw = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
        parts += [b"M %s inline %s\n" % (mode.encode(), name), b"data %d\n" % len(raw), raw, b"\n"]
    return b"".join([*parts, b"\n"])


def _import(repository: Path, stream: bytes) -> None:
    repository.mkdir(parents=True)
    _git(repository, "init", "--quiet", "--bare", "--initial-branch=main", ".")
    _git(repository, "config", "uploadpack.allowFilter", "true")
    _git(repository, "config", "uploadpack.allowAnySHA1InWant", "true")
    _git(repository, "fast-import", "--quiet", stdin=stream)


def _git(repository: Path, *args: str, stdin: bytes | None = None) -> str:
    done = subprocess.run(["git", *args], cwd=repository, input=stdin, check=True, capture_output=True)
    return done.stdout.decode().strip()
