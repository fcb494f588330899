"""`longshore status` on a terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from longshore.cli.durations import format_duration
from longshore.cli.status.facts import CommitStatus, DeploymentState, DeploymentStatus, Status, WorkerStatus
from longshore.planning.circumstances import told
from longshore.schemas.commits import CommitOutcome
from longshore.schemas.devices import DeviceCapacity, Health
from longshore.schemas.failures import FAILURES
from longshore.schemas.lifecycle import SERVING
from longshore.schemas.quantities import format_memory

_SHORT_SHA = 7
_LETS_GO = {
    "paused": "longshore rollout resume",
    "aborted": "longshore rollout resume",
    "quarantined": "longshore quarantine release",
}
_WHOLE = {"deployment", "worker", "data plane"}  # what is copied is never broken into lines

_COLOURS: dict[str, str] = {
    Health.HEALTHY: "green",
    Health.RECOVERING: "yellow",
    Health.SUSPECT: "yellow",
    Health.FAILED: "red",
    DeploymentState.READY: "green",
    DeploymentState.IN_PROGRESS: "yellow",
    DeploymentState.INCOMPLETE: "red",
    CommitOutcome.APPLIED: "green",
    CommitOutcome.PARTLY_APPLIED: "red",
    CommitOutcome.REJECTED: "red",
    CommitOutcome.HISTORY_REWRITTEN: "red",
    CommitOutcome.MASS_UNLOAD_BLOCKED: "red",
}


def show(status: Status, console: Console | None = None, now: datetime | None = None) -> None:
    """Print the status: the last commits, the deployments, the workers, and what is wrong with its remedy."""
    console = console or Console()
    now = now or datetime.now(UTC)
    applied = status.applied_sha[:_SHORT_SHA] if status.applied_sha else "none yet"
    console.print(f"registry {status.registry}, applied commit {applied}, generation {status.generation}")
    for commit in status.commits:
        console.print(_commit(commit, now), soft_wrap=True)
    for held in status.held_back:
        what = f"held back: {held.sha[:_SHORT_SHA]} {held.code}: {held.reason}\n  → {held.what_next}"
        console.print(escape(what), soft_wrap=True)
    for pool in status.suspected:
        what = f"FLEET_SUSPECT: much of pool {pool} is silent at once: nothing lost is replaced, nothing is evicted"
        console.print(escape(f"{what}\n  → {FAILURES['FLEET_SUSPECT'].remedy}"), soft_wrap=True)
    console.print(_deployments(status.deployments), _workers(status.workers, now))
    notes = [(one.deployment_id, note) for one in status.deployments for note in _notes(one)]
    notes += [(one.worker_id, note) for one in status.workers for note in _notes_of_worker(one)]
    for name, note in notes:
        console.print(f"{escape(name)}: {escape(note)}", soft_wrap=True)


def _commit(commit: CommitStatus, now: datetime) -> str:
    outcome = commit.outcome or "…"
    said = escape(commit.summary.removeprefix(f"{outcome}: "))  # a summary may stand alone, and then begins with it
    lines = [f"  {commit.sha[:_SHORT_SHA]} {_ago(commit.started, now)} ago: {_coloured(outcome)}: {said}".rstrip(": ")]
    lines += [f"    {escape(str(issue))}\n      {escape(issue.remedy)}" for issue in commit.issues]
    if commit.issues_left_out:
        lines.append(f"    and {commit.issues_left_out} more: see errors/ in the registry")
    return "\n".join(lines)


def _deployments(deployments: tuple[DeploymentStatus, ...]) -> Table:
    table = _table("deployment", "desired", "running", "ready", "state")
    for one in deployments:
        running = ", ".join(f"{version} ×{count}" for version, count in one.running_versions.items())  # noqa: RUF001 (times)
        table.add_row(
            escape(one.deployment_id),
            one.desired_version or "–",  # noqa: RUF001 (a dash for nothing)
            running or "–",  # noqa: RUF001
            f"{one.replicas_ready}/{one.replicas_wanted}",
            _coloured(one.state),
        )
    return table


def _table(*columns: str) -> Table:
    """Return a table that fits into 80 columns and cuts nothing off: what stands in it is pasted elsewhere."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in _WHOLE)
    return table


def _notes(one: DeploymentStatus) -> list[str]:
    notes = list(one.under_way)
    notes += [f"{p.code} on {p.worker_id}: {p.message}\n  → {p.remedy}" for p in one.problems]
    lacking = one.unplaced - one.given_up
    if lacking:
        lack = "held back:" if one.holds else "no device for"
        notes.append(f"{lack} {lacking} of {one.replicas_wanted} replicas")
    if one.given_up:
        notes.append(f"{one.given_up} of {one.replicas_wanted} replicas cannot run {one.desired_version}: given up")
    notes += one.why_unplaced
    if one.deferred:
        waits = "1 command waits" if one.deferred == 1 else f"{one.deferred} commands wait"
        notes.append(f"{waits}: `longshore explain {one.deployment_id}` says for what")
    notes += [f"{told(hold)}\n  → {_LETS_GO[hold.kind]} {one.deployment_id}" for hold in one.holds]
    return notes


def _notes_of_worker(one: WorkerStatus) -> list[str]:
    notes = []
    if one.cordon is not None:
        kind = "drained" if one.cordon.kind == "drain" else "cordoned"
        by = f" by {one.cordon.by}" if one.cordon.by else ""
        why = f": {one.cordon.reason}" if one.cordon.reason else ""
        notes.append(f"{kind}{by}{why}\n  → longshore worker uncordon {one.worker_id}")
    if one.drains_itself:
        notes.append("drains itself: its host ends when its models run elsewhere")
    notes += [f"{flag}\n  → {FAILURES[flag].remedy}" for flag in one.flags if flag in FAILURES]
    return notes


def _workers(workers: tuple[WorkerStatus, ...], now: datetime) -> Table:
    gpus = any(one.capacity and one.capacity.max_gpu for one in workers)  # most fleets have none
    table = _table("worker", "health", "heard", "memory", "CPU", *(["GPU"] if gpus else []), "models", "data plane")
    for one in workers:
        room = one.capacity
        serving = sum(model.state in SERVING for model in one.models)
        table.add_row(
            one.worker_id,
            _coloured(one.health if one.status in (None, "healthy") else f"{one.health}, {one.status}"),
            f"{_ago(one.last_heard, now)} ago" if one.last_heard else "never",
            f"{format_memory(room.used_memory)}/{format_memory(room.max_memory)}" if room else "",
            f"{room.used_cpu:g}/{room.max_cpu:g}" if room else "",
            *([f"{room.used_gpu}/{room.max_gpu}" if room else ""] if gpus else []),
            _models(serving, room) if room else "",
            one.data_address,
        )
    return table


def _models(serving: int, room: DeviceCapacity) -> str:
    count = f"{room.loaded_models}/{room.max_models}"
    return count if serving == room.loaded_models else f"{count}, {serving} serving"


def _coloured(word: str) -> str:
    colour = _COLOURS.get(word.split(",", maxsplit=1)[0])
    return f"[{colour}]{word}[/{colour}]" if colour else word


def _ago(moment: datetime, now: datetime) -> str:
    seconds = max(0, round((now - moment).total_seconds()))
    # Whole minutes past the first, whole hours past the first day: an age is read, not reckoned with.
    coarse = seconds if seconds < 60 else seconds - seconds % 60  # noqa: PLR2004
    coarse = coarse if seconds < 86_400 else seconds - seconds % 3_600  # noqa: PLR2004
    return format_duration(timedelta(seconds=coarse))
