"""The cases of `tests/corpus/registry/`: a valid registry, its model, and what a case changes in them."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

CORPUS = Path(__file__).parents[1] / "corpus" / "registry"
BASE = {path.stem: path.read_text() for path in (CORPUS / "base").iterdir()}

NAMED = {"manifest": "models/production/sentiment.yaml", "worker": "workers/worker-a.yaml"}
"""What the cases call the two files that most of them are about."""

FOLDERS = ("models/production", "models/staging", "transactions", "workers", "errors")
REGISTRY = {
    **{f"{folder}/.gitkeep": "" for folder in FOLDERS},
    "README.md": "A registry.\n",
    **{path: BASE[name] for name, path in NAMED.items()},
}
CARD = "model-card.yaml"
MODEL = {CARD: BASE["card"], "src/model.py": ""}

Content = str | bytes | tuple[str, str]
"""A text, bytes, or a git mode and what belongs to it: a link's target, a submodule's commit."""


@dataclass(frozen=True)
class Case:
    """One input and what is to be said of it; tests/corpus/registry/README.md describes the fields."""

    name: str
    topic: str
    expect: tuple[str, ...]
    manifest: Any = field(default_factory=dict)
    worker: Any = field(default_factory=dict)
    card: Any = field(default_factory=dict)
    files: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    refs: Mapping[str, str | None] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    pinned: Mapping[str, str] = field(default_factory=dict)
    today: str = "2025-11-01"

    @property
    def title(self) -> str:
        """What git and pytest may call it."""
        return re.sub(r"[^A-Za-z0-9]+", "-", f"{self.topic}-{self.name}").strip("-")

    @property
    def changes_model(self) -> bool:
        return bool(self.card or self.model or self.refs)

    def registry_files(self) -> dict[str, Content]:
        named = {NAMED["manifest"]: self.manifest, NAMED["worker"]: self.worker}
        return _changed(REGISTRY, {**named, **self.files})

    def model_files(self) -> dict[str, Content]:
        return _changed(MODEL, {CARD: self.card, **self.model})


def cases(kind: str) -> list[Case]:
    """Return the `accepted` or the `rejected` cases, file by file."""
    return list(_cases(kind))


def _cases(kind: str) -> Iterator[Case]:
    for file in sorted((CORPUS / kind).glob("*.yaml")):
        for entry in YAML(typ="safe", pure=True).load(file):
            expect = entry.pop("expect", [])
            yield Case(topic=file.stem, expect=tuple([expect] if isinstance(expect, str) else expect), **entry)


def _changed(files: Mapping[str, Content], changes: Mapping[str, Any]) -> dict[str, Content]:
    result = dict(files)
    for path, change in changes.items():
        if change is None:
            del result[path]
        elif not isinstance(change, dict) or "repeat" in change:
            result[path] = _text(change)
        elif "symlink" in change:
            result[path] = ("120000", change["symlink"])
        elif "submodule" in change:
            result[path] = ("160000", change["submodule"])
        elif "noise" in change:
            result[path] = random.Random(path).randbytes(change["noise"])
        elif "copies" in change:
            text = _text(change.get("text", ""))
            result |= {path.replace("*", str(number)): text for number in range(change["copies"])}
        elif change:
            result[path] = _edited(files, path, change)
    return result


def _edited(files: Mapping[str, Content], path: str, change: Mapping[str, Any]) -> Content:
    """Return a file of the base, by default `path` itself, with texts replaced each of which stands in it once."""
    edits = dict(change)
    source = edits.pop("copy", path)
    encoding, line_end = edits.pop("encoding", None), edits.pop("line end", "\n")
    text = files[NAMED.get(source, source)]
    for old, new in edits.items():
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {source}"
        text = text.replace(old, _text(new))
    text = text.replace("\n", line_end)
    return text if encoding is None else text.encode(encoding)


def _text(value: Any) -> str:
    """Return a text that may be given in parts, and a part as `{repeat: text, times: n}`."""
    if isinstance(value, list):
        return "".join(map(_text, value))
    return value["repeat"] * value["times"] if isinstance(value, dict) else value
