"""`errors/<time>-<cause>-<kind>.yaml` (PRD §4.5): what went wrong, for the people who will mend it. Pure.

The cause (the rejected commit, or a hash of commit, deployment, generation and worker) is in the name: a repeated
activity finds its file there, and two failures within one second have two names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from longshore.registry.documents.yaml import dump
from longshore.registry.records.state import file_time, timestamp, worker_status
from longshore.registry.repositories.repository import CommitInfo
from longshore.schemas.commands import Action
from longshore.schemas.commits import CommitOutcome, CommitResult
from longshore.schemas.devices import DeviceView, ModelReport
from longshore.schemas.failures import FAILURES, Category, Failure
from longshore.schemas.held import VERBS
from longshore.schemas.issues import Severity
from longshore.schemas.lifecycle import ModelState
from longshore.schemas.redaction import beginning, end
from longshore.schemas.registries import RegistrySnapshot
from longshore.schemas.rollouts import RolloutAnswer, RolloutOutcome, SlotResult

# FAULTS 53. A file that would be larger gets shorter texts and fewer issues, until it fits.
MAX_BYTES = 64 * 1024

# A traceback of a hundred frames; its end, where the cause stands, is kept.
_LONGEST_TEXT = 16_000
_ENDS_MATTER = frozenset({"stack_trace", "details"})

_KINDS = {Action.LOAD: "load-failure", Action.RELOAD: "reload-failure", Action.UNLOAD: "unload-failure"}


@dataclass(frozen=True)
class ErrorFile:
    kind: str
    """What the file's name ends with: `load-failure`, `validation-error`, …"""
    cause: str
    """8 hexadecimal digits that stand for what went wrong, however often it is reported."""
    time: datetime
    content: bytes

    @property
    def path(self) -> str:
        return f"errors/{file_time(self.time)}-{self.cause}-{self.kind}.yaml"

    def is_among(self, paths: Collection[str]) -> bool:
        """Tell whether this was written before, perhaps with another time."""
        return any(path.startswith("errors/") and path.endswith(f"-{self.cause}-{self.kind}.yaml") for path in paths)


def error_files(
    result: CommitResult,
    commit: CommitInfo,
    snapshot: RegistrySnapshot | None,
    devices: Mapping[str, DeviceView],
    now: datetime,
    *,
    next_steps: Sequence[str] = (),
) -> tuple[ErrorFile, ...]:
    """Return a file for everything that went wrong with a commit: its rejection, or each failure of its rollouts.

    `snapshot` (None for a commit that was rejected or held back) and `devices` only add context; `next_steps` is what
    will be done after.
    """
    match result.outcome:
        case CommitOutcome.REJECTED:
            return (_rejection(result, commit, next_steps, now),)
        case CommitOutcome.HISTORY_REWRITTEN | CommitOutcome.MASS_UNLOAD_BLOCKED:
            return (_held_back(result, commit, next_steps, now),)
    return tuple(rollout_errors(result.answers, commit, snapshot, devices, next_steps, now))


def _rejection(result: CommitResult, commit: CommitInfo, next_steps: Sequence[str], now: datetime) -> ErrorFile:
    codes = dict.fromkeys(issue.code for issue in result.issues if issue.severity is Severity.ERROR)
    content = {
        "timestamp": timestamp(now),
        "error_type": "validation_error",
        "severity": "high",
        "commit": commit_fields(commit),
        "error": {"message": result.summary},
        "issues": [
            {
                "severity": str(issue.severity),
                "code": issue.code,
                "file": issue.file,
                **({"line": issue.line} if issue.line is not None else {}),
                **({"place": issue.place} if issue.place else {}),
                "message": issue.message,
            }
            for issue in result.issues
        ],
        "actions_taken": ["Rejected the commit: nothing that runs was changed", *next_steps],
        "recommended_actions": [f"{code}: {FAILURES[code].remedy}" for code in codes],
    }
    return ErrorFile("validation-error", commit.sha[:8], now, rendered(content))


def _held_back(result: CommitResult, commit: CommitInfo, next_steps: Sequence[str], now: datetime) -> ErrorFile:
    code = result.outcome.upper()
    sound = {
        "HISTORY_REWRITTEN": "Push forward from the commit that runs: a history that is rewritten takes nothing back",
        "MASS_UNLOAD_BLOCKED": "Restore what was taken away by mistake, and push: that is then carried out by itself",
    }[code]
    content = {
        "timestamp": timestamp(now),
        "error_type": str(result.outcome),
        "severity": "high",
        "commit": commit_fields(commit),
        "error": {"code": code, "message": result.summary},
        "actions_taken": ["Held the commit back: nothing that runs was changed", *next_steps],
        "recommended_actions": [sound, f"Where it is meant so, let it through: longshore {VERBS[code]} {commit.sha}"],
    }
    return ErrorFile(result.outcome.replace("_", "-"), commit.sha[:8], now, rendered(content))


def rollout_errors(  # noqa: PLR0917 (what failures are made of)
    answers: Sequence[RolloutAnswer],
    commit: CommitInfo,
    snapshot: RegistrySnapshot | None,
    devices: Mapping[str, DeviceView],
    next_steps: Sequence[str],
    now: datetime,
) -> Iterator[ErrorFile]:
    """Yield a file for each command that failed, and for each deployment that lacks a place.

    What was given up was told by its failures: it lacks no place.
    """
    for answer in answers:
        deployment = deployment_fields(answer.deployment_id, snapshot)
        causes = (commit.sha, answer.deployment_id, str(answer.generation))
        for slot in answer.results:
            if slot.failure is None or slot.failure.kind.category is Category.CONTROL:
                continue  # superseded or fenced: nothing is broken
            content = _slot_error(answer, slot, slot.failure, deployment, devices.get(slot.worker_id), commit, now)
            content["actions_taken"] += next_steps
            yield ErrorFile(_KINDS[slot.action], cause_of(*causes, slot.worker_id), now, rendered(content))
        if answer.outcome is RolloutOutcome.INCOMPLETE and not answer.given_up:
            content = {
                "timestamp": timestamp(now),
                "error_type": "placement_failure",
                "severity": "medium",
                "commit": commit_fields(commit),
                "deployment": deployment,
                "error": {"message": answer.message or "not every wanted replica has a place"},
                "actions_taken": [_left_out(answer), *next_steps],
                "recommended_actions": [FAILURES[_code_of(answer)].remedy],
            }
            yield ErrorFile("placement-failure", cause_of(*causes), now, rendered(content))


def _left_out(answer: RolloutAnswer) -> str:
    return f"Left it as it is: {answer.held}" if answer.held else "Placed as many replicas as fit"


def _code_of(answer: RolloutAnswer) -> str:
    """Return the code whose remedy helps a deployment that lacks replicas."""
    if not answer.held:
        return "CAPACITY_INSUFFICIENT"
    return "QUARANTINED" if answer.held.startswith("quarantined") else "ABORTED"


def rendered(content: Mapping[str, Any]) -> bytes:
    """Return the file: redacted, at most `MAX_BYTES`, and saying how many of its issues it leaves out."""
    longest, issues = _LONGEST_TEXT, len(content.get("issues", ()))
    while len(data := dump(_shortened(content, longest, issues))) > MAX_BYTES:
        longest, issues = longest // 2, issues // 2
    return data


def _shortened(content: Mapping[str, Any], longest: int, issues: int) -> dict[str, Any]:
    shortened: dict[str, Any] = {name: _text(name, value, longest) for name, value in content.items()}
    left_out = len(content.get("issues", ())) - issues
    if left_out:
        shortened["issues"] = shortened["issues"][:issues]
        shortened["left_out"] = f"{left_out} issues: the commit's workflow has them"
    return shortened


def _text(name: str, value: Any, longest: int) -> Any:
    if isinstance(value, str):
        return end(value, longest) if name in _ENDS_MATTER else beginning(value, longest)
    if isinstance(value, Mapping):
        return {key: _text(key, child, longest) for key, child in value.items()}
    return [_text(name, child, longest) for child in value] if isinstance(value, list) else value


def error_fields(failure: Failure) -> dict[str, str]:
    """Return PRD §4.5's `error`."""
    error = {"code": failure.code, "message": failure.message}
    if failure.step:
        error["step"] = failure.step
    if failure.details:
        error["stack_trace" if "Traceback" in failure.details else "details"] = failure.details
    return error


def report_of(deployment_id: str, device: DeviceView | None) -> ModelReport | None:
    models: Sequence[ModelReport] = device.report.models if device and device.report else ()
    return next((model for model in models if model.deployment_id == deployment_id), None)


def _slot_error(  # noqa: PLR0917 (what one failure is made of)
    answer: RolloutAnswer,
    slot: SlotResult,
    failure: Failure,
    deployment: dict[str, Any],
    device: DeviceView | None,
    commit: CommitInfo,
    now: datetime,
) -> dict[str, Any]:
    worker = {"id": slot.worker_id, **({"status": worker_status(device)} if device else {})}
    return {
        "timestamp": timestamp(now),
        "error_type": f"model_{slot.action.lower()}_failure",
        "severity": "high",
        "commit": commit_fields(commit),
        "deployment": deployment,
        "worker": worker,
        "error": error_fields(failure),
        "actions_taken": _actions_taken(slot.action, report_of(answer.deployment_id, device)),
        "recommended_actions": [failure.remedy],
    }


def _actions_taken(action: Action, report: ModelReport | None) -> list[str]:
    """Return what the device reports to have done; nothing is claimed that it does not."""
    actions = []
    if report and report.retry and report.retry.attempts > 1:
        actions.append(f"Retried {action.lower()} {report.retry.attempts - 1} times")
    if report and report.state is ModelState.READY:
        actions.append(f"Kept version {report.version} serving")
    if report and report.state is ModelState.FAILED:
        actions.append("Marked the model as failed")
    return actions


def commit_fields(commit: CommitInfo) -> dict[str, str]:
    return {"id": commit.sha, "author": commit.author, "subject": commit.subject}


def deployment_fields(deployment_id: str, snapshot: RegistrySnapshot | None) -> dict[str, Any]:
    manifest = snapshot.manifests.get(deployment_id) if snapshot else None
    if manifest is None:
        return {"id": deployment_id}
    ref = manifest.model_card_ref
    return {"id": deployment_id, "model_card_ref": {"repository": ref.repository, "ref": ref.ref}}


def cause_of(*parts: str) -> str:
    """Return what stands for a failure in its file's name, made of what does not change when it is told again."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
