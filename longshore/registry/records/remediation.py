"""Error files of what a plan has to cope with: devices and models that failed, evictions (PRD §4.5, §5.3, §5.5). Pure.

Each says what was done about it, and by which workflow: that one tells the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from longshore.registry.records.errors import (
    ErrorFile,
    cause_of,
    commit_fields,
    deployment_fields,
    error_fields,
    rendered,
    report_of,
)
from longshore.registry.records.state import timestamp, worker_status
from longshore.registry.repositories.repository import CommitInfo
from longshore.schemas.commands import Action, UnloadReason
from longshore.schemas.devices import DeviceView, Health
from longshore.schemas.failures import FAILURES, Failure
from longshore.schemas.plans import Cause, CauseKind, ChangeType, DeploymentPlan, Plan, PlannedCommand
from longshore.schemas.registries import RegistrySnapshot
from longshore.schemas.rollouts import RolloutAnswer, RolloutOutcome, SlotResult

# A device with hundreds of models must still make a file of 64 KiB; its workflow has them all.
_MOST_ENTRIES = 100


@dataclass(frozen=True)
class Remediation:
    """A plan that is carried out, for a commit or unasked, as far as that is known."""

    plan: Plan
    cause: Cause | None
    """Only of a reconciliation."""
    answers: Sequence[RolloutAnswer]
    """Of the deployments whose rollout has ended."""
    commit: CommitInfo
    workflow_id: str
    rollout_id: Callable[[str], str]
    """By deployment id, the workflow that carries its commands out."""
    applied: Remediation | None = None
    """Of a reconciliation: the applied commit's, whose plan may have counted out a device that its cause names."""

    def answer(self, deployment_id: str) -> RolloutAnswer | None:
        return next((answer for answer in self.answers if answer.deployment_id == deployment_id), None)


@dataclass(frozen=True)
class Surroundings:
    """What only adds context."""

    snapshot: RegistrySnapshot | None
    devices: Mapping[str, DeviceView]
    next_steps: Sequence[str]
    """What will be done after the file is written."""
    now: datetime


def remediation_errors(done: Remediation, around: Surroundings) -> tuple[ErrorFile, ...]:
    """Return a file for each device that failed, pool that is suspect, model that failed and deployment evicted.

    The same plan, told again with more answers, makes files of the same causes.
    """
    return tuple(
        ErrorFile(kind, cause, around.now, rendered(_with_frame(kind, content, done, around)))
        for kind, cause, content in (
            *_failed_workers(done, around),
            *_suspect_pools(done, around),
            *_failed_models(done, around),
            *_evicted(done, around),
        )
    )


_Content = tuple[str, str, dict[str, Any]]
"""kind, cause, and the fields that are not the same in all of them."""


def _with_frame(kind: str, content: dict[str, Any], done: Remediation, around: Surroundings) -> dict[str, Any]:
    severity = content.pop("severity")
    taken = [*_shown(content.pop("actions_taken")), *around.next_steps]
    recommended = _shown(dict.fromkeys(content.pop("recommended_actions")))
    return {
        "timestamp": timestamp(around.now),
        "error_type": kind.replace("-", "_"),
        "severity": severity,
        "commit": commit_fields(done.commit),
        "workflow": done.workflow_id,
        **({"cause": done.cause.words} if done.cause else {}),
        **content,
        "actions_taken": taken,
        "recommended_actions": recommended,
    }


def _failed_workers(done: Remediation, around: Surroundings) -> Iterator[_Content]:
    affected: dict[str, list[DeploymentPlan]] = {}
    for deployment in done.plan.deployments:
        for worker_id in deployment.lost:
            if _has_failed(worker_id, done.cause, around.devices):
                affected.setdefault(worker_id, []).append(deployment)
    for worker_id, deployments in sorted(affected.items()):
        yield _counted_out(worker_id, deployments, done, around)
    yield from _without_losses(affected, done, around)


def _counted_out(
    worker_id: str, deployments: Sequence[DeploymentPlan], by: Remediation, around: Surroundings
) -> _Content:
    content = {
        "severity": "high",
        **_silence(worker_id, around.devices),
        "affected_models": [_affected(deployment) for deployment in deployments[:_MOST_ENTRIES]],
        "actions_taken": [
            f"Counted out what {worker_id} holds: nothing is commanded to it ({by.workflow_id})",
            *(action for deployment in deployments for action in _actions(by, deployment)),
        ],
        "recommended_actions": [FAILURES["DEVICE_UNREACHABLE"].remedy, *_remedies(by, deployments)],
    }
    return "worker-failure", cause_of("worker-failure", worker_id, str(by.plan.generation)), content


def _without_losses(affected: Container[str], done: Remediation, around: Surroundings) -> Iterator[_Content]:
    """Yield the devices that have failed and leave this plan nothing to replace.

    Where a commit was first, its plan says what they held, in a file that both write and only one leaves.
    """
    cause = done.cause
    if cause is None or cause.kind is not CauseKind.WORKER_FAILED or done.plan.suspects:
        return
    for worker_id in cause.workers:
        if worker_id in affected or not _has_failed(worker_id, None, around.devices):
            continue
        if done.applied and (before := [one for one in done.applied.plan.deployments if worker_id in one.lost]):
            yield _counted_out(worker_id, before, done.applied, around)
            continue
        content = {
            "severity": "high",
            **_silence(worker_id, around.devices),
            "affected_models": [],
            "actions_taken": [f"Replaced nothing of what it held: nothing is missing ({done.workflow_id})"],
            "recommended_actions": [FAILURES["DEVICE_UNREACHABLE"].remedy],
        }
        yield "worker-failure", cause_of("worker-failure", worker_id, done.workflow_id), content


def _silence(worker_id: str, devices: Mapping[str, DeviceView]) -> dict[str, Any]:
    device = devices.get(worker_id)
    heard = device.last_evidence if device else None
    since = f"since {timestamp(heard)}" if heard else "any more"
    return {
        "worker": {"id": worker_id, "status": str(Health.FAILED)},
        "error": {"code": "DEVICE_UNREACHABLE", "message": f"{worker_id}: nothing is heard of it {since}"},
    }


def _has_failed(worker_id: str, cause: Cause | None, devices: Mapping[str, DeviceView]) -> bool:
    """Tell whether the device is gone; else it is there, and only a model on it was given up."""
    if cause is not None and cause.kind is CauseKind.WORKER_FAILED and worker_id in cause.workers:
        return True
    device = devices.get(worker_id)
    return device is not None and device.health is Health.FAILED


def _affected(deployment: DeploymentPlan) -> dict[str, Any]:
    return {
        "deployment_id": deployment.deployment_id,
        **({"model_version": deployment.version} if deployment.version else {}),
        "replicas": deployment.replicas,
        "without_a_place": deployment.without_place,
    }


def _suspect_pools(done: Remediation, around: Surroundings) -> Iterator[_Content]:
    workers = around.snapshot.workers if around.snapshot else {}
    for suspect in done.plan.suspects:
        silent = [
            device
            for device in around.devices.values()
            if device.health in (Health.SUSPECT, Health.FAILED)
            and device.worker_id in workers
            and workers[device.worker_id].labels.pool == suspect.pool
        ]
        content = {
            "severity": "critical",
            "pool": suspect.pool,
            "workers": [{"id": one.worker_id, "status": worker_status(one)} for one in silent[:_MOST_ENTRIES]],
            "error": {
                "code": "FLEET_SUSPECT",
                "message": f"{suspect.unhealthy} of {suspect.alive_before} devices of the pool {suspect.pool} "
                "fell silent together: rather the network or the power than the devices",
            },
            "actions_taken": [f"Left the pool alone: nothing lost is replaced, nothing evicted ({done.workflow_id})"],
            "recommended_actions": [FAILURES["FLEET_SUSPECT"].remedy],
        }
        who = done.cause.workers if done.cause else ()
        yield "fleet-suspect", cause_of("fleet-suspect", suspect.pool, *who, str(done.plan.generation)), content


def failed_models(done: Remediation, devices: Mapping[str, DeviceView]) -> Iterator[DeploymentPlan]:
    """Yield the deployments with a model that has failed, where that is news: the cause names it, or it is lost now.

    Every later plan says again what was given up. A commit is a retry: what had failed before it was told then, and
    fails again under its own name.
    """
    if done.cause is None:
        return
    for deployment in done.plan.deployments:
        news = deployment.deployment_id in done.cause.deployments or any(
            not _has_failed(worker_id, done.cause, devices) for worker_id in deployment.lost
        )
        if news and _reason(deployment, ChangeType.FAILED_MODEL):
            yield deployment


def _failed_models(done: Remediation, around: Surroundings) -> Iterator[_Content]:
    for deployment in failed_models(done, around.devices):
        failures = _reported(deployment.deployment_id, around.devices)
        first = next(iter(failures.values()), None)
        codes = dict.fromkeys(failure.code for failure in failures.values())
        content = {
            "severity": "critical" if deployment.gives_up else "high",
            "deployment": deployment_fields(deployment.deployment_id, around.snapshot),
            "workers": [
                {
                    "id": worker_id,
                    "status": worker_status(around.devices[worker_id]),
                    "error": f"{failure.code}: {failure.message}",
                }
                for worker_id, failure in list(failures.items())[:_MOST_ENTRIES]
            ],
            "error": {
                **(error_fields(first) if first else {}),
                "message": _reason(deployment, ChangeType.FAILED_MODEL),
            },
            "actions_taken": [
                *_actions(done, deployment),
                *([f"Held back: {deployment.held}"] if deployment.held else []),
                *([f"Gave it up there ({done.workflow_id})"] if deployment.gives_up else []),
            ],
            "recommended_actions": [
                *(f"{code}: {FAILURES[code].remedy}" for code in codes if code in FAILURES),
                *_remedies(done, [deployment]),
            ],
        }
        cause = cause_of("model-failed", deployment.deployment_id, str(deployment.generation))
        yield "model-failed", cause, content


def _reported(deployment_id: str, devices: Mapping[str, DeviceView]) -> dict[str, Failure]:
    """Return, by device, with which failure it reports the deployment."""
    reports = {worker_id: report_of(deployment_id, devices[worker_id]) for worker_id in sorted(devices)}
    return {worker_id: report.error for worker_id, report in reports.items() if report and report.error}


def _evicted(done: Remediation, around: Surroundings) -> Iterator[_Content]:
    plans = {deployment.deployment_id: deployment for deployment in done.plan.deployments}
    answers = {answer.deployment_id: answer for answer in done.answers}
    for deployment_id in sorted(plans.keys() | answers.keys()):
        plan, answer = plans.get(deployment_id), answers.get(deployment_id)
        # A newer plan may have taken this one's place in the ledger: then the answer is all that is left of it.
        told: Sequence[PlannedCommand | SlotResult] = plan.commands if plan else answer.results if answer else ()
        workers = [one.worker_id for one in told if one.unload_reason is UnloadReason.EVICTED]
        if not workers:
            continue
        generation = plan.generation if plan else answer.generation if answer else 0
        lacking = plan.without_place if plan else 0
        unplaced = f"; {lacking} of {plan.replicas} replicas without a place" if plan and lacking else ""
        places = (f"{worker_id}{_newcomer(deployment_id, worker_id, done.plan)}" for worker_id in workers)
        content = {
            "severity": "medium" if unplaced else "low",
            "deployment": deployment_fields(deployment_id, around.snapshot),
            "workers": [{"id": worker_id} for worker_id in workers],
            "error": {"message": f"evicted from {', '.join(places)}{unplaced}"},
            "actions_taken": list(_actions(done, plan)) if plan else list(_results(done, answer)),
            "recommended_actions": [
                f"Raise the priority of {deployment_id} where it matters more than what takes its place",
                FAILURES["CAPACITY_INSUFFICIENT"].remedy,
            ],
        }
        yield "eviction", cause_of("eviction", deployment_id, str(generation)), content


def _newcomer(deployment_id: str, worker_id: str, plan: Plan) -> str:
    """Return for whom room is made there."""
    for one in plan.deployments:
        awaited = (awaited for command in one.commands for awaited in command.after)
        if any((a.deployment_id, a.worker_id) == (deployment_id, worker_id) for a in awaited):
            return f" for {one.deployment_id} (priority {one.priority})"
    return ""


def _actions(done: Remediation, deployment: DeploymentPlan) -> Iterator[str]:
    """Say what was commanded and how it ended, as far as that is known, and what is put off."""
    name, answer = deployment.deployment_id, done.answer(deployment.deployment_id)
    for command in deployment.commands:
        version = f" {deployment.version}" if command.action is not Action.UNLOAD else ""
        what = f"{command.action} {name}{version} on {command.worker_id}"
        yield f"{what}: {_end(command, answer)} ({done.rollout_id(name)})"
    for later in deployment.deferred:
        yield f"Put off: {later.action} {name} on {later.worker_id} ({later.reason}) until {later.waits_for}"


def _results(done: Remediation, answer: RolloutAnswer | None) -> Iterator[str]:
    if answer is not None:
        for result in answer.results:
            what = f"{result.action} {answer.deployment_id} on {result.worker_id}"
            yield f"{what}: {_result(result)} ({done.rollout_id(answer.deployment_id)})"


def _end(command: PlannedCommand, answer: RolloutAnswer | None) -> str:
    if answer is None:
        return "under way"
    result = next((r for r in answer.results if (r.action, r.worker_id) == (command.action, command.worker_id)), None)
    return str(answer.outcome) if result is None else _result(result)


def _result(result: SlotResult) -> str:
    return "done" if result.failure is None else f"failed with {result.failure.code}"


def _remedies(done: Remediation, deployments: Iterable[DeploymentPlan]) -> Iterator[str]:
    """Say what helps the deployments that are not as wanted after all that was done."""
    for deployment in deployments:
        name = deployment.deployment_id
        if deployment.without_place:
            yield f"{name}: {FAILURES['CAPACITY_INSUFFICIENT'].remedy}"
        if deployment.given_up:
            yield f"{name}: Mend what has failed, then push: each push tries {deployment.version} again."
        answer = done.answer(name)
        if answer is None or answer.outcome is not RolloutOutcome.FAILED:
            continue
        for code in dict.fromkeys(result.failure.code for result in answer.results if result.failure):
            yield f"{code}: {FAILURES[code].remedy}"


def _reason(deployment: DeploymentPlan, kind: ChangeType) -> str:
    return "; ".join(change.reason for change in deployment.changes if change.type is kind)


def _shown(lines: Iterable[str]) -> list[str]:
    every = list(lines)
    left_out = len(every) - _MOST_ENTRIES
    return [*every[:_MOST_ENTRIES], *([f"… and {left_out} more: the workflow has them"] if left_out > 0 else [])]
