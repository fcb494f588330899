"""Where findings stand: the text of each faulty file, cards included, and the manifests that refer to a card."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from longshore.registry.repositories.git import Git
from longshore.registry.validation.cards import card_name
from longshore.registry.validation.contents import read_manifest
from longshore.registry.validation.layout import is_manifest
from longshore.schemas.deployments import ModelCardRef
from longshore.schemas.failures import LongshoreError
from longshore.schemas.issues import Issue


@dataclass(frozen=True)
class Reference:
    """A manifest that refers to a card, and the line where it does."""

    file: str
    line: int | None


@dataclass(frozen=True)
class Sources:
    files: Mapping[str, bytes] = field(default_factory=dict)
    """By the name under which findings speak of the file."""
    references: Mapping[str, tuple[Reference, ...]] = field(default_factory=dict)
    """By the card's name, for those cards that have findings."""


async def read_sources(git: Git, files: Mapping[str, bytes], issues: Iterable[Issue]) -> Sources:
    """Return the sources of a registry's `issues`. `git` has just read the cards, so none is fetched again."""
    faulty = {issue.file for issue in issues}
    texts = dict(files)
    references: dict[str, list[Reference]] = defaultdict(list)
    for path in sorted(filter(is_manifest, files)):
        entry = read_manifest(path, files[path])
        if entry.card_ref is None or (name := card_name(entry.card_ref)) not in faulty:
            continue
        references[name].append(Reference(path, entry.document.yaml.line_of(("model_card_ref", "ref"))))
        if name not in texts:
            texts |= await _card(git, entry.card_ref, name)
    return Sources(texts, {name: tuple(found) for name, found in references.items()})


async def _card(git: Git, ref: ModelCardRef, name: str) -> dict[str, bytes]:
    try:
        commit = await git.resolve(ref.repository, ref.ref)
        found = await git.read_file(ref.repository, commit, ref.path)
    except LongshoreError:  # whatever is the matter is among the findings; this one is told without its line
        return {}
    return {} if found is None else {name: found}
