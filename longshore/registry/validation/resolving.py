"""Which commit a ref of a document means: a tag by what is remembered of it, and by what its host says of it now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from longshore.registry.records.pins import Tag, is_tag
from longshore.registry.repositories.git import Git
from longshore.registry.repositories.git_process import shown
from longshore.registry.validation.cards import CardFile
from longshore.registry.validation.contents import ManifestFile
from longshore.schemas.deployments import ModelCardRef
from longshore.schemas.failures import Failure, LongshoreError
from longshore.schemas.issues import Issue, Severity


class Resolver:
    """The refs of one validation. Each repository's host is asked once, however many of its tags are used."""

    def __init__(self, git: Git, pins: Mapping[Tag, str]) -> None:
        """`pins` are the commits with which tags were first used."""
        self._git = git
        self._pins = pins
        self._answers: dict[str, asyncio.Task[dict[str, str]]] = {}
        self.doubts: dict[Tag, Failure] = {}
        """Tags whose host did not answer: they are taken as they are remembered."""

    async def resolve(self, repository: str, ref: str, *, ask: bool) -> str:
        """Return the full id of the commit that `ref` means; with `ask` the host must say the same of a tag.

        A tag that no accepted commit has used may still move: then it is the host that is right, not our cache.
        Raises LongshoreError TAG_MOVED, or as `Git.resolve`.
        """
        pinned = self._pins.get((repository, ref))
        if not ask or not is_tag(ref):
            return await self._git.resolve(repository, pinned or ref)
        try:
            there = (await self._tags(repository)).get(ref)
        except LongshoreError as error:
            # Whatever keeps the host from saying it, an expired token too: what is pinned cannot become something else.
            commit = await self._git.resolve(repository, pinned or ref)
            self.doubts[repository, ref] = error.failure
            return commit
        if pinned is not None and there != pinned:
            raise _moved(repository, ref, pinned, there)
        commit = await self._git.resolve(repository, ref)
        if there is None:
            raise LongshoreError("REF_NOT_FOUND", f"{shown(repository)} has no tag {ref} any more")
        return commit if commit == there else await self._git.resolve(repository, there)

    async def _tags(self, repository: str) -> dict[str, str]:
        if repository not in self._answers:
            self._answers[repository] = asyncio.create_task(self._git.tags(repository), name=f"tags of {repository}")
        return await self._answers[repository]


def unconfirmed_issues(
    manifests: tuple[ManifestFile, ...], cards: Mapping[ModelCardRef, CardFile], doubts: Mapping[Tag, Failure]
) -> Iterator[Issue]:
    """Warn at every manifest that uses a tag of `doubts`: a rollback must not depend on the git host, but is told."""
    for entry in manifests:
        if entry.card_ref is None:
            continue
        card = cards[entry.card_ref].card if entry.card_ref in cards else None
        tags = [(entry.card_ref.repository, entry.card_ref.ref)]
        tags += [(card.code.repository, card.code.ref)] if card is not None else []
        for repository, ref in dict.fromkeys(tags):
            if (failure := doubts.get((repository, ref))) is not None:
                message = f"{failure.message}; so the tag {ref} is taken as it was when it was last read"
                finding = entry.document.finding(failure.code, message, "model_card_ref", "repository")
                yield finding.in_file(entry.file).model_copy(update={"severity": Severity.WARNING})


def _moved(repository: str, ref: str, pinned: str, there: str | None) -> LongshoreError:
    now = "is gone" if there is None else f"now leads to {there}"
    return LongshoreError("TAG_MOVED", f"the tag {ref} of {shown(repository)} was first used with {pinned}, and {now}")
