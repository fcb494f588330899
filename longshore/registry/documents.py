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

from longshore.registry.git_process import shown
from longshore.registry.yaml import YamlDocument, describe, parse
from longshore.registry.yaml_gate import Place
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

# Fields that become part of a command, and so of a history that keeps them for months (DESIGN §4).
_URLS: dict[DocumentKind, tuple[tuple[str, str], ...]] = {
    DocumentKind.MANIFEST: (("model_card_ref", "repository"),),
    DocumentKind.MODEL_CARD: (("code", "repository"), ("artifacts", "model_path"), ("artifacts", "config_path")),
    DocumentKind.WORKER_CONFIG: (),
}

# `https://token@…` and `ssh://user:password@…`; the user of `ssh://git@…` is no secret.
_CREDENTIALS = re.compile(r"https?://[^/]*@|[a-z][a-z0-9+.-]*://[^/]*:[^/]*@")

# An issue is a line for a person, and hundreds of them travel in one Temporal payload.
_LONGEST_MESSAGE = 400

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
    model = None if findings else kind.model.model_validate_json(json.dumps(yaml.value))
    return ReadDocument(yaml, model, tuple(findings))


def _schema_findings(kind: DocumentKind, yaml: YamlDocument) -> Iterator[Finding]:
    seen: set[Place] = set()
    for error in validator(kind).iter_errors(yaml.value):
        base: Place = tuple(error.instance_path)
        reasons = jsonschema_rs.ValidationErrorKind
        if isinstance(error.kind, reasons.AdditionalProperties):
            for name in error.kind.unexpected:
                place = (*base, name)
                yield Finding("UNKNOWN_FIELD", _unknown(kind, base, name), place, yaml.line_of(place))
        elif isinstance(error.kind, reasons.Required):
            message = f"{error.kind.property} is missing"
            yield Finding(_INVALID[kind], message, base, yaml.line_of(base))
        elif base not in seen:  # a line feed breaks both the pattern and the `not` beside it
            seen.add(base)
            code = "REF_UNPINNED" if base == _PINNED.get(kind) else _INVALID[kind]
            yield Finding(code, _reason(code, error), base, yaml.line_of(base))


def _credential_findings(kind: DocumentKind, yaml: YamlDocument) -> Iterator[Finding]:
    for block, name in _URLS[kind]:
        fields = yaml.value.get(block) if isinstance(yaml.value, dict) else None
        url = fields.get(name) if isinstance(fields, dict) else None
        if isinstance(url, str) and _CREDENTIALS.match(url):
            message = f"{shown(url)} is given with credentials, which everyone who reads git would have"
            yield Finding("CREDENTIALS_IN_URL", message, (block, name), yaml.line_of((block, name)))


def _unknown(kind: DocumentKind, base: Place, name: str) -> str:
    node: dict[str, Any] = schema(kind)
    for key in base:
        node = node.get("items", {}) if isinstance(key, int) else node.get("properties", {}).get(key, {})
    similar = difflib.get_close_matches(name, node.get("properties", {}), n=1)
    return f"{name} is no field here" + (f": did you mean {similar[0]}?" if similar else "")


def _reason(code: str, error: jsonschema_rs.ValidationError) -> str:
    if code == "REF_UNPINNED":
        reason = f"{error.instance!r} is neither a tag vX.Y.Z nor a commit id of 7 to 40 hexadecimal digits"
    elif isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Enum):
        reason = f"{error.instance!r} is none of {', '.join(map(str, error.kind.options))}"
    else:
        reason = error.message
    reason = shown(reason)
    return reason if len(reason) <= _LONGEST_MESSAGE else f"{reason[:_LONGEST_MESSAGE]}…"
