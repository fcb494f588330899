"""One file → its value, its model and everything that is wrong with it, each finding with place, line and reason."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jsonschema_rs
from pydantic import ValidationError

from longshore.registry.documents.dependencies import contradictions, is_forbidden
from longshore.registry.documents.yaml import YamlDocument, describe, parse
from longshore.registry.documents.yaml_gate import Place, shortened
from longshore.registry.repositories.git_process import shown
from longshore.schemas import limits
from longshore.schemas.base import Document
from longshore.schemas.documents import DocumentKind, schema, validator
from longshore.schemas.issues import Audience, Issue

_INVALID = {
    DocumentKind.MODEL_CARD: "CARD_INVALID",
    DocumentKind.MANIFEST: "MANIFEST_INVALID",
    DocumentKind.WORKER_CONFIG: "WORKER_CONFIG_INVALID",
}

# The two fields where a branch's name would be tempting (PRD §5.1 step 3).
_PINNED: dict[DocumentKind, Place] = {
    DocumentKind.MANIFEST: ("model_card_ref", "ref"),
    DocumentKind.MODEL_CARD: ("code", "ref"),
}

# What no URL looks like is no repository that may be named (FAULTS 36).
_REPOSITORIES: tuple[Place, ...] = (("model_card_ref", "repository"), ("code", "repository"))

# Fields that become part of a command, and so of a history that keeps them for months (DESIGN §4).
_URLS: dict[DocumentKind, tuple[tuple[str, str], ...]] = {
    DocumentKind.MANIFEST: (("model_card_ref", "repository"),),
    DocumentKind.MODEL_CARD: (("code", "repository"), ("artifacts", "model_path"), ("artifacts", "config_path")),
    DocumentKind.WORKER_CONFIG: (),
}

# `https://token@…` and `ssh://user:password@…`; the user of `ssh://git@…` is no secret.
_CREDENTIALS = re.compile(r"https?://[^/]*@|[a-z][a-z0-9+.-]*://[^/:]*:[^/@]*@")

_DEPENDENCIES: Place = ("runtime", "dependencies")
_SYSTEM_PACKAGES: Place = ("runtime", "system_packages")

_Reasons = jsonschema_rs.ValidationErrorKind
_BOUNDS = (_Reasons.Minimum, _Reasons.Maximum, _Reasons.ExclusiveMinimum, _Reasons.ExclusiveMaximum)
_FORMS = (_Reasons.Pattern, _Reasons.Not)

# So many unknown fields get a guess at what was meant, and none that is longer: guessing takes the square of it.
_MOST_GUESSES = 20
_LONGEST_GUESS = 64

# A registry of some hundred manifests and their cards, read again at each commit though most have not changed.
_REMEMBERED = 4096


@dataclass(frozen=True)
class Finding:
    """What is wrong at one place of a document, whatever the document is called."""

    code: str
    message: str
    place: Place = ()
    line: int | None = None

    def in_file(self, file: str, *told: Audience) -> Issue:
        """Return the finding as an issue of `file`, of which the Ops team is told unless it says who else."""
        place = describe(self.place)
        told = told or (Audience.OPS,)
        return Issue(code=self.code, file=file, place=place, line=self.line, message=self.message, told=told)


@dataclass(frozen=True)
class ReadDocument:
    """A document as far as it could be read. It is shared between readers: change nothing in it."""

    yaml: YamlDocument
    model: Document | None
    """None where there are findings."""
    findings: tuple[Finding, ...]

    @property
    def raw(self) -> Any:
        return self.yaml.value

    def text_at(self, *place: str) -> str | None:
        """Return the text at a place, valid or not; None where there is no text."""
        value = self.raw
        for key in place:
            value = value.get(key) if isinstance(value, dict) else None
        return value if isinstance(value, str) else None

    def sound_text_at(self, *place: str) -> str | None:
        """Return the text at a place, unless something is wrong just there: that has been said."""
        return None if any(finding.place == place for finding in self.findings) else self.text_at(*place)

    def finding(self, code: str, message: str, *place: str | int) -> Finding:
        return Finding(code, message, place, self.yaml.line_of(place))


@lru_cache(maxsize=_REMEMBERED)
def read_document(kind: DocumentKind, data: bytes) -> ReadDocument:
    """Read `data` as a document of `kind`. Never raises for what `data` holds; equal bytes are read once."""
    yaml = parse(data, schema(kind))
    findings = [Finding(fault.code, fault.message, fault.place, fault.line) for fault in yaml.faults]
    if yaml.complete:
        faulty = {fault.place for fault in yaml.faults if fault.place}
        findings += [finding for finding in _schema_findings(kind, yaml) if finding.place not in faulty]
        findings += _credential_findings(kind, yaml)
        if kind is DocumentKind.MODEL_CARD:
            findings += _contradictions(yaml)
    model = None if findings else _model(kind, yaml, findings)
    return ReadDocument(yaml, model, tuple(findings))


def _model(kind: DocumentKind, yaml: YamlDocument, findings: list[Finding]) -> Document | None:
    """Return the model of what the schema has accepted. Where the two disagree, what the model says is a finding."""
    try:
        return kind.model.model_validate_json(json.dumps(yaml.value))
    except ValidationError as error:
        findings += [
            Finding(_INVALID[kind], shortened(fault["msg"]), fault["loc"], yaml.line_of(fault["loc"]))
            for fault in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        return None


def _schema_findings(kind: DocumentKind, yaml: YamlDocument) -> Iterator[Finding]:
    seen: set[Place] = set()
    unknown = 0
    for error in validator(kind).iter_errors(yaml.value):
        base: Place = tuple(error.instance_path)
        if isinstance(error.kind, _Reasons.AdditionalProperties):
            for name in error.kind.unexpected:
                unknown += 1
                place = (*base, name)
                message = _unknown(kind, base, name, guess=unknown <= _MOST_GUESSES)
                yield Finding("UNKNOWN_FIELD", message, place, yaml.line_of(place))
        elif isinstance(error.kind, _Reasons.Required):
            message = f"{error.kind.property} is missing"
            yield Finding(_INVALID[kind], message, base, yaml.line_of(base))
        elif base not in seen:  # a line feed breaks both the pattern and the `not` beside it
            seen.add(base)
            code = _code(kind, base, error)
            yield Finding(code, _told(_reason(code, error)), base, yaml.line_of(base))


def _code(kind: DocumentKind, place: Place, error: jsonschema_rs.ValidationError) -> str:
    """Return the code that says most about what is wrong at `place`."""
    if place == _PINNED.get(kind):
        return "REF_UNPINNED"
    if isinstance(error.kind, _BOUNDS):
        return "VALUE_OUT_OF_RANGE"
    if place in _REPOSITORIES and isinstance(error.kind, _FORMS):
        return "REPO_URL_FORBIDDEN"
    if kind is DocumentKind.MODEL_CARD and isinstance(error.kind, _FORMS):
        if place[:-1] == _DEPENDENCIES:
            return "DEPENDENCY_FORBIDDEN" if is_forbidden(str(error.instance)) else "DEPENDENCY_UNPINNED"
        if place[:-1] == _SYSTEM_PACKAGES:
            return "SYSTEM_PACKAGE_FORBIDDEN"
    return _INVALID[kind]


def _contradictions(yaml: YamlDocument) -> Iterator[Finding]:
    runtime = yaml.value.get("runtime") if isinstance(yaml.value, dict) else None
    lines = runtime.get("dependencies") if isinstance(runtime, dict) else None
    for index, message in contradictions(lines):
        place = (*_DEPENDENCIES, index)
        yield Finding("DEPENDENCIES_INVALID", shortened(message), place, yaml.line_of(place))


def _credential_findings(kind: DocumentKind, yaml: YamlDocument) -> Iterator[Finding]:
    for block, name in _URLS[kind]:
        fields = yaml.value.get(block) if isinstance(yaml.value, dict) else None
        url = fields.get(name) if isinstance(fields, dict) else None
        if isinstance(url, str) and _CREDENTIALS.match(url):
            message = f"{_told(url)} is given with credentials, which everyone who reads git would have"
            yield Finding("CREDENTIALS_IN_URL", message, (block, name), yaml.line_of((block, name)))


def _unknown(kind: DocumentKind, base: Place, name: str, *, guess: bool) -> str:
    node: dict[str, Any] = schema(kind)
    for key in base:
        node = node.get("items", {}) if isinstance(key, int) else node.get("properties", {}).get(key, {})
    similar = difflib.get_close_matches(name[:_LONGEST_GUESS], node.get("properties", {}), n=1) if guess else []
    return f"{shortened(name)} is no field here" + (f": did you mean {similar[0]}?" if similar else "")


def _told(text: str) -> str:
    """Return a text of any length as a line without credentials; no URL that works is longer than what is looked at."""
    return shortened(shown(text[: limits.URI]))


def _reason(code: str, error: jsonschema_rs.ValidationError) -> str:
    what = repr(error.instance)
    if code == "REF_UNPINNED":
        return f"{what} is neither a tag vX.Y.Z nor a commit id of 7 to 40 hexadecimal digits"
    if code == "DEPENDENCY_FORBIDDEN":
        return f"{what} is an option, a URL, a path or more than one line, and no package"
    if code == "DEPENDENCY_UNPINNED":
        return f"{what} is not of the form name==version"
    if code == "SYSTEM_PACKAGE_FORBIDDEN":
        return f"{what} is no name of a Debian or RPM package"
    if isinstance(error.kind, _Reasons.Enum):
        return f"{error.instance!r} is none of {', '.join(map(str, error.kind.options))}"
    return error.message
