"""What the Temporal Web UI shows of our workflows: markdown for someone who has not seen the code. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from longshore.schemas.commits import CommitOutcome, ValidationResult
from longshore.schemas.devices import DeviceRecord, DeviceReport, Health
from longshore.schemas.failures import FAILURES
from longshore.schemas.held import Accepted, HeldBack
from longshore.schemas.orders import Cordon, Hold
from longshore.schemas.plans import Cause, DeploymentPlan, Plan, PlannedCommand
from longshore.schemas.rollouts import RolloutAnswer, RolloutOutcome, RolloutTarget, Steering
from longshore.schemas.slots import Slot
from longshore.schemas.wording import counted, short

# The details travel with every view of the workflow: enough to read, never a page that does not end.
LINES_SHOWN = 100
LONGEST_CELL = 300

# The Web UI draws tables without any space between their cells, and markdown strips ordinary ones.
_GAP = "\u2003"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    if not lines:
        return "_none_"
    rule = "|".join(" --- " for _ in header)
    return "\n".join([f"| {' | '.join(map(_cell, header))} |", f"|{rule}|", *_shown(lines)])


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(_shown([f"- {line}" for line in lines])) or "_none_"


def command_summary(plan: DeploymentPlan, command: PlannedCommand) -> str:
    """Return one line such as `LOAD 1.1.0 on worker-a: least loaded of 3 devices`."""
    what = f"{command.action} {plan.version}" if plan.version else str(command.action)
    return f"{what} on {command.worker_id}: {command.reason}"[:200]


def room_words(command: PlannedCommand) -> str:
    """Return whose room the command waits for: `churn-prod, fraud-prod`."""
    return ", ".join(sorted({awaited.deployment_id for awaited in command.after}))


def plan_words(plan: Plan) -> str:
    """Return the plan in its own words, or that there is nothing to do."""
    changes = [f"{d.deployment_id} {change.type}: {change.reason}" for d in plan.deployments for change in d.changes]
    return "; ".join(changes) or "everything already is as this commit wants it"


def commit_story(
    step: str,
    validation: ValidationResult | None = None,
    plan: Plan | None = None,
    answers: Mapping[str, RolloutAnswer] | None = None,
    accepted: Iterable[Accepted] = (),
) -> str:
    parts = [f"**{step}**"]
    if validation is not None:
        who = f" by {validation.author}" if validation.author else ""
        parts.append(f"Commit `{short(validation.sha)}` {validation.subject!r}{who}")
        verdict = "accepted" if validation.accepted else "rejected: nothing that runs has changed"
        findings = f"\n\n{bullets(map(str, validation.issues))}" if validation.issues else ", no findings"
        parts.append(f"### Validation: {verdict}{findings}")
    if plan is not None:
        let_through = "".join(f"{one}\n\n" for one in accepted)
        parts.append(f"### Plan (generation {plan.generation})\n\n{let_through}{_plan_details(plan)}")
        rows = [
            (d.deployment_id, d.version, *_answer_cells((answers or {}).get(d.deployment_id))) for d in plan.deployments
        ]
        parts.append("### Deployments\n\n" + table(("deployment", "version", "outcome", "what happened"), rows))
    return "\n\n".join(parts)


def fleet_story(
    applied: str | None,
    generation: int,
    devices: Mapping[str, DeviceRecord],
    slots: Iterable[Slot],
    waiting: int,
    *,
    held: Iterable[HeldBack] = (),
    cordons: Iterable[Cordon] = (),
    holds: Iterable[Hold] = (),
    causes: Iterable[Cause] = (),
) -> str:
    applied_row = (
        f"Applied commit `{short(applied)}`, generation {generation}, {counted(waiting, 'plan request')} waiting."
    )
    device_rows = [(d.worker_id, d.health, d.status or "never heard", len(d.slots)) for _, d in sorted(devices.items())]
    held_rows = [(short(one.sha), one.code, one.reason, one.what_next) for one in held]
    held_back = table(("commit", "code", "it", "next"), held_rows)
    words = [cause.words for cause in causes]
    order_rows = [
        *((cordon.kind, cordon.worker_id, cordon.by, cordon.reason) for cordon in cordons),
        *((hold.kind, f"{hold.deployment_id} {hold.version or ''}", hold.by, hold.reason) for hold in holds),
    ]
    slot_rows = [(s.deployment_id, s.worker_id, s.version, s.state, s.generation, s.code or "") for s in slots]
    return "\n\n".join(
        [
            applied_row,
            *([f"### Held back\n\n{held_back}"] if held_rows else []),
            *([f"### To be mended\n\n{bullets(words)}"] if words else []),
            *([f"### Orders\n\n{table(('order', 'on', 'by', 'reason'), order_rows)}"] if order_rows else []),
            "### Devices\n\n" + table(("device", "health", "says of itself", "models"), device_rows),
            "### Deployments\n\n"
            + table(("deployment", "device", "version", "state", "generation", "failure"), slot_rows),
        ]
    )


def rollout_story(target: RolloutTarget, progress: Mapping[str, str], steering: Steering | None = None) -> str:
    plan = target.plan
    why = f", because {target.cause}" if target.cause else ""
    answered = ", ".join(f"`{who}`" for who in (target.reply_to, *target.reply_also))
    return "\n\n".join(
        [
            f"**{plan.deployment_id} → {plan.version or 'nothing'}** (generation {plan.generation})",
            f"For commit `{short(target.sha)}`{why}; the answer goes to {answered}",
            *([steered(steering)] if steering is not None else []),
            bullets(f"{change.type}: {change.reason}" for change in plan.changes),
            table(("command", "state"), progress.items()),
        ]
    )


def steered(word: Steering) -> str:
    """Return an operator's word to a rollout, and what it means for what is not begun yet."""
    what = {
        "pause": "**Paused{by}**: commands that are not begun wait until it is resumed",
        "resume": "Resumed{by}",
        "abort": "**Aborted{by}**: commands that were not begun are withdrawn",
    }[word.kind]
    return what.format(by=said(word))


def said(word: Steering) -> str:
    """Return ` by olga: disk swap`, as far as it is known."""
    by = f" by {word.by}" if word.by else ""
    return f"{by}: {word.reason}" if word.reason else by


def device_story(
    worker_id: str,
    health: Health,
    last_evidence: datetime | None,
    report: DeviceReport | None,
    flags: Iterable[str] = (),
) -> str:
    heard = last_evidence.strftime("%Y-%m-%d %H:%M:%S UTC") if last_evidence else "never"
    parts = [f"**{worker_id} is {health}**; last evidence of it: {heard}"]
    if report is not None:
        says = f"{report.status}, draining" if report.draining else report.status
        parts.append(f"It says: {says}; data plane at `{report.data_address or 'unknown'}`")
        rows = [(m.deployment_id, m.version or "", m.state, m.generation, m.error or "") for m in report.models]
        parts.append(table(("deployment", "version", "state", "generation", "failure"), rows))
    odd = [f"{code}: {FAILURES[code].remedy}" for code in flags]
    return "\n\n".join([*parts, *([f"### Odd about its reports\n\n{bullets(odd)}"] if odd else [])])


def answer_message(plan: DeploymentPlan, answer: RolloutAnswer) -> str:
    """Return one sentence about how a rollout ended."""
    failed = [
        f"{result.action} on {result.worker_id} failed: {result.failure.code}: {result.failure.message}"
        for result in answer.results
        if result.failure is not None
    ]
    if failed:
        return "; ".join(failed[:3]) + (f"; and {len(failed) - 3} more" if len(failed) > 3 else "")  # noqa: PLR2004 (a sentence, not a list)
    if answer.outcome is RolloutOutcome.INCOMPLETE and plan.held:
        return f"{plan.unplaced} of {plan.replicas} replicas are held back: {plan.held}"
    if answer.outcome is RolloutOutcome.INCOMPLETE:
        return _lack(plan)
    return f"{counted(len(answer.results), 'command')} done" if answer.results else "nothing to do"


def commit_summary(outcome: CommitOutcome, answers: Sequence[RolloutAnswer]) -> str:
    """Return one line about how the rollouts of a commit ended."""
    if not answers:
        return f"{outcome}: nothing had to change"
    counts = {kind: sum(answer.outcome is kind for answer in answers) for kind in RolloutOutcome}
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    return f"{outcome}: {counted(len(answers), 'deployment')} ({told})"


def with_untold(summary: str, untold: Sequence[str]) -> str:
    """Return the summary, and what people could not be told."""
    return f"{summary}; not told: {'; '.join(untold)}" if untold else summary


def _plan_details(plan: Plan) -> str:
    lines = []
    for deployment in plan.deployments:
        changes = "; ".join(f"{change.type}: {change.reason}" for change in deployment.changes)
        lines.append(f"\n**{deployment.deployment_id}** {changes}\n")
        lines += [f"- {command_summary(deployment, command)}" for command in deployment.commands]
        lines += [
            f"- later: {one.action} on {one.worker_id} once {one.waits_for}: {one.reason}"
            for one in deployment.deferred
        ]
        if deployment.unplaced:
            lines.append(f"- {_lack(deployment)}")
    return "\n".join(_shown(lines)).strip() or "Everything already is as this commit wants it."


def _lack(plan: DeploymentPlan) -> str:
    """Say how many replicas are lacking, and why."""
    counts = (
        (plan.without_place, "found no device"),
        (plan.given_up, f"cannot run {plan.version}: given up"),
    )
    lack = "; ".join(f"{count} of {plan.replicas} replicas {what}" for count, what in counts if count)
    why = "; ".join(f"{r.worker_id}: {', '.join(r.reasons)}" for r in plan.rejections[:3])
    return f"{lack} ({why or 'its selector matches no further device'})"


def _answer_cells(answer: RolloutAnswer | None) -> tuple[str, str]:
    return ("under way", "") if answer is None else (answer.outcome, answer.message)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")[:LONGEST_CELL] + _GAP


def _shown(lines: list[str]) -> list[str]:
    left_out = len(lines) - LINES_SHOWN
    return lines if left_out <= 0 else [*lines[:LINES_SHOWN], f"… and {left_out} more"]
