"""The registry as the broker's activities ask for it: one git cache, and each commit loaded once per process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Protocol

import structlog

from longshore.registry.records.pins import PINS_FILE, Pins, parse_pins
from longshore.registry.records.state import STATE_FILE, last_applied
from longshore.registry.repositories.git import Git
from longshore.registry.repositories.signing import ANY_KEYS, AllowedKeys
from longshore.registry.validation.loading import LoadedCommit, load_snapshot
from longshore.schemas.commits import ValidationResult
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.failures import LongshoreError
from longshore.schemas.issues import Issue
from longshore.schemas.reconciliations import LastApplied
from longshore.schemas.registries import RegistrySnapshot
from longshore.schemas.rollouts import SpecRequest
from longshore.schemas.wording import short
from longshore.telemetry.metrics import BrokerMetrics

log = structlog.get_logger()

# How far back the newest commit is searched that can have been applied. Each costs one question and perhaps a load.
LINE_SEARCHED = 50

# A snapshot of 100 deployments takes about 1 MB; the newest commits are asked for by validation, plan and rollouts.
SNAPSHOTS_KEPT = 8


class Commits(Protocol):
    async def planned(self, sha: str) -> int | None:
        """Return the generation of this commit's plan, by its own workflow; None where none knows of one."""


class RegistryService:
    """One branch of one registry. Methods raise LongshoreError GIT_UNREACHABLE while a host does not answer."""

    def __init__(
        self,
        git: Git,
        url: str,
        branch: str,
        *,
        keys: AllowedKeys = ANY_KEYS,
        metrics: BrokerMetrics | None = None,
    ) -> None:
        """Serve commits that one of `keys` has signed."""
        self._git = git
        self._url = url
        self._branch = branch
        self._keys = keys
        self._metrics = metrics or BrokerMetrics()
        self._head: str | None = None
        self._loaded: dict[str, LoadedCommit] = {}
        self._loading: dict[str, asyncio.Lock] = {}
        self._confirmed: Mapping[str, bytes] = {}

    async def look(self) -> str:
        """Return the newest commit of the branch that touches more than what the broker writes."""
        self._head = head = await self._git.fetch_branch(self._url, self._branch)
        return await self._git.effective_head(self._url, head)

    async def has(self, sha: str) -> bool:
        """Return whether the branch, as it was last looked at, contains the commit."""
        return self._head is not None and await self._git.is_ancestor(self._url, sha, self._head)

    async def validate(self, sha: str) -> ValidationResult:
        """Judge the commit by what holds today; a commit that runs is never judged again."""
        started = time.perf_counter()
        signature = await self._git.signature_issue(self._url, sha, self._keys) if self._keys else None
        loaded = await self._load(sha, today=datetime.now(UTC).date(), found=(signature,) if signature else ())
        if loaded.snapshot is not None:
            self._confirmed = loaded.confirmed
        incompatible = sum(issue.code == "SCHEMA_INCOMPATIBLE" for issue in loaded.issues)
        self._metrics.validated(
            accepted=loaded.snapshot is not None, seconds=time.perf_counter() - started, incompatible=incompatible
        )
        return loaded.result

    async def snapshot(self, sha: str) -> RegistrySnapshot:
        """Return what the commit says should run. Raises the first error of a commit that is rejected."""
        loaded = await self._load(sha, today=None)
        if loaded.snapshot is None:
            issue = loaded.result.issues[0]  # errors come first
            raise LongshoreError(issue.code, str(issue))
        return loaded.snapshot

    async def is_ancestor(self, older: str, newer: str) -> bool:
        return await self._git.is_ancestor(self._url, older, newer)

    async def last_applied(self, commits: Commits) -> LastApplied:
        """Return what was applied last, newest first: what a commit's workflow has planned, or the state records.

        Where neither is known, it is the newest ancestor of the head that validates: what was pushed last may have
        been rejected, or be held back.
        """
        head = await self.look()
        recorded = await self._recorded()
        generation = recorded.generation
        line = await self._git.line(self._url, head, LINE_SEARCHED + 1)
        for sha in line:
            planned = await commits.planned(sha)
            is_applied = planned is not None or sha == recorded.sha
            if is_applied and (found := await self._as_applied(sha, max(planned or 0, generation))):
                return found
        for sha in ([recorded.sha] if recorded.sha else []) + line[1:]:
            if found := await self._as_applied(sha, generation):
                return found
        return LastApplied(sha=None, generation=generation)

    async def spec(self, request: SpecRequest) -> DeploymentSpec:
        """Return the spec that the plan saw. Raises TAG_MOVED where the references lead elsewhere by now."""
        spec = (await self.snapshot(request.sha)).specs.get(request.deployment_id)
        if spec is None or spec.digest != request.digest:
            raise LongshoreError(
                "TAG_MOVED", f"{request.deployment_id} reads otherwise than when {short(request.sha)} was planned"
            )
        return spec

    async def _recorded(self) -> LastApplied:
        """Return what the recorded state says, as it was last looked at."""
        files = await self._git.read(self._url, self._head, [STATE_FILE]) if self._head is not None else {}
        return last_applied(files.get(STATE_FILE, b""))

    async def _as_applied(self, sha: str, generation: int) -> LastApplied | None:
        try:
            snapshot = (await self._load(sha, today=None)).snapshot
        except LongshoreError as error:
            if error.failure.kind.retriable:
                raise
            return None  # it has vanished
        if snapshot is None:
            return None
        return LastApplied(sha=sha, generation=generation, workers=tuple(sorted(snapshot.workers)))

    async def _load(self, sha: str, *, today: date | None, found: tuple[Issue, ...] = ()) -> LoadedCommit:
        async with self._loading.setdefault(sha, asyncio.Lock()):
            loaded = self._loaded.pop(sha, None)
            if loaded is None or today is not None:
                pins = await self._pins(sha, fetch=today is not None)
                loaded = await load_snapshot(
                    self._git, self._url, sha, today=today, pins=pins, confirmed=self._confirmed, found=found
                )
            self._loaded[sha] = loaded  # at the end: the dictionary is ordered by last use
        while len(self._loaded) > SNAPSHOTS_KEPT:
            oldest = next(iter(self._loaded))
            del self._loaded[oldest]
            self._loading.pop(oldest, None)
        return loaded

    async def _pins(self, sha: str, *, fetch: bool) -> Pins:
        """Return what is remembered of tags at the newest head: at `sha` that of its own tags is not there yet."""
        await self._git.require(self._url, sha)
        if fetch:
            try:
                await self._git.fetch_branch(self._url, self._branch)
            except LongshoreError as error:
                log.warning("pins_may_be_old", commit_sha=sha, error=str(error))
        head = await self._git.known_head(self._url, self._branch) or sha
        return parse_pins((await self._git.read(self._url, head, [PINS_FILE])).get(PINS_FILE))
