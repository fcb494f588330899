"""The I/O of validation: fetch what a registry refers to, then let `validation` judge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import TypeVar

import structlog

from longshore.registry.documents.schema_checks import check_interfaces
from longshore.registry.records.pins import NO_PINS, Pins
from longshore.registry.repositories.entries import Tree
from longshore.registry.repositories.git import Git
from longshore.registry.repositories.git_process import shown
from longshore.registry.repositories.repository import CommitInfo
from longshore.registry.validation.cards import CodeRef, FetchedCard, code_refs, repository_issue
from longshore.registry.validation.contents import read_contents
from longshore.registry.validation.layout import is_manifest, wanted
from longshore.registry.validation.resolving import Resolver, unconfirmed_issues
from longshore.registry.validation.verdict import Verdict, judge, read_cards
from longshore.schemas.commits import ValidationResult
from longshore.schemas.deployments import ModelCardRef
from longshore.schemas.failures import FAILURES, Failure, LongshoreError
from longshore.schemas.issues import Issue, Severity
from longshore.schemas.registries import RegistrySnapshot

log = structlog.get_logger()

# So many model repositories are fetched at once: enough to hide their latency, few enough for any host's limits.
_AT_ONCE = 8

# An issue takes at most about 1 KB: 200 of them stay far under Temporal's 2 MB, and no one reads more.
MAX_ISSUES = 200

Key = TypeVar("Key")
Result = TypeVar("Result")


@dataclass(frozen=True)
class LoadedCommit:
    commit: CommitInfo
    snapshot: RegistrySnapshot | None
    """None where the commit is rejected."""
    issues: tuple[Issue, ...]
    confirmed: Mapping[str, bytes]
    """The manifests whose tags their hosts have confirmed, or had confirmed before they were last changed."""

    @property
    def result(self) -> ValidationResult:
        """Return what a RegistryCommitWorkflow is told: errors first, capped."""
        issues = sorted(self.issues, key=lambda issue: list(Severity).index(issue.severity))
        return ValidationResult(
            sha=self.commit.sha,
            author=self.commit.author,
            subject=self.commit.subject,
            issues=tuple(issues[:MAX_ISSUES]),
            truncated=max(0, len(issues) - MAX_ISSUES),
            deployments=len(self.snapshot.manifests) if self.snapshot else 0,
            workers=tuple(sorted(self.snapshot.workers)) if self.snapshot else (),
        )


async def load_snapshot(
    git: Git,
    url: str,
    sha: str,
    *,
    today: date | None,
    pins: Pins = NO_PINS,
    confirmed: Mapping[str, bytes] = {},
    found: Collection[Issue] = (),
) -> LoadedCommit:
    """Take commit `sha` of the registry at `url` through the six steps of PRD §5.1.

    `today` is when it is judged; None where it was accepted before, and is only read again. `confirmed` is that of the
    commit accepted before it, `found` what is known to be wrong with this one already.
    Raises LongshoreError GIT_UNREACHABLE (retriable) when a host does not answer and nothing else is wrong: a commit
    is not rejected for that. Where something else is wrong too, the commit is rejected with all of it.
    """
    started = time.perf_counter()
    commit = await git.commit(url, sha)
    log.info("registry_commit_detected", commit_sha=sha, author=commit.author, timestamp=commit.time.isoformat())
    log.info("registry_validation_started", commit_sha=sha)
    tree = await git.tree(url, sha)
    files = await git.read(url, sha, wanted(tree))
    verdict = await examine(git, sha, tree, files, today, pins=pins, confirmed=confirmed, found=found)
    errors = [issue for issue in verdict.issues if issue.severity is Severity.ERROR]
    if errors and all(FAILURES[issue.code].retriable for issue in errors):
        raise LongshoreError(errors[0].code, errors[0].message)
    if errors:
        log.error("registry_validation_failed", commit_sha=sha, validation_errors=[str(issue) for issue in errors])
    else:
        milliseconds = round((time.perf_counter() - started) * 1000)
        log.info("registry_validation_success", commit_sha=sha, duration_ms=milliseconds)
    settled = {path: files[path] for path in filter(is_manifest, files) if path not in verdict.unconfirmed}
    return LoadedCommit(commit, verdict.snapshot, verdict.issues, settled)


async def examine(
    git: Git,
    sha: str,
    tree: Tree,
    files: Mapping[str, bytes],
    today: date | None,
    *,
    pins: Pins = NO_PINS,
    confirmed: Mapping[str, bytes] = {},
    found: Collection[Issue] = (),
) -> Verdict:
    """Judge a registry given by its tree and the content of what of it is `wanted`; a failed fetch is an issue.

    Hosts are asked where tags lead, but for manifests that are as in `confirmed`. Without `today` none is asked, and no
    schema is compiled again.
    """
    contents = read_contents(tree, files)
    at_once = asyncio.Semaphore(_AT_ONCE)
    resolver = Resolver(git, pins.commits)
    new = {entry.card_ref for entry in contents.manifests if confirmed.get(entry.file) != files[entry.file]}
    asked = new if today is not None else set()

    async def fetch(ref: ModelCardRef) -> FetchedCard:
        async with at_once:
            return await _fetch_card(git, ref, await resolver.resolve(ref.repository, ref.ref, ask=ref in asked))

    async def resolve(code: CodeRef, *, ask: bool) -> str:
        async with at_once:
            return await resolver.resolve(*code, ask=ask)

    refs = {entry.card_ref for entry in contents.manifests if entry.card_ref is not None}
    fetched = await _each((ref, fetch(ref)) for ref in refs)
    cards = read_cards(fetched)
    codes_asked = code_refs({ref: card for ref, card in cards.items() if ref in asked})
    codes = await _each((code, resolve(code, ask=code in codes_asked)) for code in code_refs(cards))
    documents = {ref: card.document for ref, card in cards.items()}
    interfaces = await check_interfaces(documents) if today is not None else {}
    doubts = tuple(unconfirmed_issues(contents.manifests, cards, resolver.doubts))
    repositories = (repository_issue(entry, git.policy) for entry in contents.manifests)
    issues = (*contents.issues, *found, *doubts, *filter(None, [pins.issue, *repositories]))
    verdict = judge(sha, replace(contents, issues=issues), fetched, codes, interfaces=interfaces, today=today)
    return replace(verdict, unconfirmed=frozenset(issue.file for issue in doubts))


async def _fetch_card(git: Git, ref: ModelCardRef, commit: str) -> FetchedCard:
    data = await git.read_file(ref.repository, commit, ref.path)
    if data is None:
        raise LongshoreError("CARD_NOT_FOUND", f"{shown(ref.repository)} has no file {ref.path} at {ref.ref}")
    return FetchedCard(commit, data)


async def _each(questions: Iterable[tuple[Key, Awaitable[Result]]]) -> dict[Key, Result | Failure]:
    """Ask all questions at once; each gets its answer or its own failure."""

    async def ask(question: Awaitable[Result]) -> Result | Failure:
        try:
            return await question
        except LongshoreError as error:
            return error.failure

    keys, awaitables = [], []
    for key, question in questions:
        keys.append(key)
        awaitables.append(ask(question))
    return dict(zip(keys, await asyncio.gather(*awaitables), strict=True))
