"""One registry commit, from the push to the result that an operator opens first."""

from __future__ import annotations

from temporalio import workflow

from longshore.activities.boundary import MAX_PAYLOAD
from longshore.activities.commits import CommitActivities
from longshore.schemas.commits import (
    CommitOutcome,
    CommitResult,
    RecordRequest,
    RegistryCommit,
    Telling,
    ValidationResult,
)
from longshore.schemas.devices import StartDevices
from longshore.schemas.fleet import PlanAnswer, PlanOutcome, PlanRequest
from longshore.schemas.held import VERBS, Accepted
from longshore.schemas.issues import Issue, Severity
from longshore.schemas.plans import Plan
from longshore.schemas.rollouts import RolloutAnswer
from longshore.schemas.wording import counted, short
from longshore.workflows import conventions, stories
from longshore.workflows.delivering import Answers, Delivery, outcome_of, recorded, without_results
from longshore.workflows.telling import Messenger


@workflow.defn(failure_exception_types=conventions.DEFECTS)
class RegistryCommitWorkflow:
    @workflow.init
    def __init__(self, commit: RegistryCommit) -> None:
        self._commit = commit
        self._validation: ValidationResult | None = None
        self._plan: Plan | None = None
        self._accepted: tuple[Accepted, ...] = ()
        self._delivery = Delivery(commit.registry, commit.sha, commit.intervals)
        self._step = "Validating"

    @workflow.run
    async def run(self, commit: RegistryCommit) -> CommitResult:
        workflow.upsert_search_attributes([conventions.COMMIT.value_set(commit.sha)])
        # A broker of the release before starts none of it, whatever the commit was started with.
        tells = commit.telling != Telling() and workflow.patched(conventions.TELLS_PEOPLE)
        messenger = Messenger(commit.registry, commit.telling if tells else Telling())
        messenger.tell_begun(commit.sha)
        result = await self._carry_out(commit)
        result = await self._record(result)
        self._tell(result.summary)
        untold = await messenger.tell_ended(result)
        result = result.model_copy(update={"summary": stories.with_untold(result.summary, untold)})
        workflow.upsert_search_attributes([conventions.OUTCOME.value_set(result.outcome)])
        self._tell(result.summary)
        return result

    @workflow.signal(description="How the rollout of one deployment ended")
    def answer(self, answer: RolloutAnswer) -> None:
        self._delivery.keep(answer)
        self._tell(self._step)

    @workflow.query(description="The generation of this commit's plan; none before it has one")
    def planned(self) -> int | None:
        return self._plan.generation if self._plan else None

    async def _carry_out(self, commit: RegistryCommit) -> CommitResult:
        self._tell("Validating: structure, manifests, references, model cards, compatibility, workers")
        validation = self._validation = await self._validate(commit)
        if not validation.accepted:
            errors = counted(validation.errors, "error")
            return self._result(CommitOutcome.REJECTED, f"rejected: {errors}, nothing that runs has changed")
        self._tell("Asking the fleet for a plan")
        await self._start_devices(validation.workers)
        answer = await self._ask_fleet(validation.workers)
        if answer.plan is None:
            return self._unplanned(answer)
        self._plan = answer.plan
        self._accepted = answer.accepted
        self._tell("Rolling out")
        await self._delivery.start(answer.plan)
        answers = await self._delivery.ended(answer.plan, self._record_so_far)
        outcome = outcome_of(answers)
        return self._result(outcome, stories.commit_summary(outcome, answers), answers)

    async def _validate(self, commit: RegistryCommit) -> ValidationResult:
        return await workflow.execute_activity_method(
            CommitActivities.validate_commit,
            commit,
            start_to_close_timeout=conventions.VALIDATION_TIMEOUT,
            schedule_to_close_timeout=conventions.BROKER_PATIENCE,
            heartbeat_timeout=conventions.BROKER_HEARTBEAT_TIMEOUT,
            retry_policy=conventions.BROKER_RETRY,
            summary=f"validate {short(commit.sha)}",
        )

    async def _start_devices(self, workers: tuple[str, ...]) -> None:
        await workflow.execute_activity_method(
            CommitActivities.start_devices,
            StartDevices(registry=self._commit.registry, workers=workers),
            start_to_close_timeout=conventions.BROKER_ACTIVITY_TIMEOUT,
            schedule_to_close_timeout=conventions.BROKER_PATIENCE,
            heartbeat_timeout=conventions.BROKER_HEARTBEAT_TIMEOUT,
            retry_policy=conventions.BROKER_RETRY,
            summary=f"{counted(len(workers), 'device')}: {', '.join(workers)}"[:200],
        )

    async def _ask_fleet(self, workers: tuple[str, ...]) -> PlanAnswer:
        # The run id: an activity that is tried again asks the same question, a run that is started again a new one.
        request = PlanRequest(
            request_id=workflow.info().run_id, registry=self._commit.registry, sha=self._commit.sha, workers=workers
        )
        return await workflow.execute_activity_method(
            CommitActivities.ask_fleet_for_plan,
            request,
            start_to_close_timeout=conventions.BROKER_PATIENCE,
            schedule_to_close_timeout=conventions.BROKER_PATIENCE,
            heartbeat_timeout=conventions.BROKER_HEARTBEAT_TIMEOUT,
            retry_policy=conventions.BROKER_RETRY,
            summary=f"what does {short(self._commit.sha)} change?",
        )

    async def _record_so_far(self, told: str, known: Answers) -> None:
        await self._record(self._result(CommitOutcome.PARTLY_APPLIED, told, known))
        self._tell("Rolling out")

    async def _record(self, result: CommitResult) -> CommitResult:
        if result.outcome is CommitOutcome.OUTDATED:
            return result
        self._tell(f"Recording: {result.summary}")
        request = RecordRequest(registry=self._commit.registry, result=result)
        summary = await recorded(CommitActivities.record_result, request, result.summary)
        return result.model_copy(update={"summary": summary})

    def _unplanned(self, answer: PlanAnswer) -> CommitResult:
        code = answer.outcome.code or ""
        summary = f"{answer.outcome.replace('_', ' ')}: this commit {answer.reason}; nothing that runs has changed"
        if code in VERBS:
            summary += f" until `longshore {VERBS[code]} {short(answer.sha)}`"
        severity = Severity.NOTE if answer.outcome is PlanOutcome.OUTDATED else Severity.ERROR
        issue = Issue(code=code, severity=severity, file="", message=f"this commit {answer.reason}")
        return self._result(CommitOutcome(answer.outcome), summary, issue=issue)

    def _result(
        self,
        outcome: CommitOutcome,
        summary: str,
        answers: Answers = (),
        *,
        issue: Issue | None = None,
    ) -> CommitResult:
        issues = self._validation.issues if self._validation else ()
        result = CommitResult(
            sha=self._commit.sha,
            outcome=outcome,
            summary="; ".join([summary, *map(str, self._accepted)]),
            issues=(*issues, issue) if issue else issues,
            answers=answers,
            accepted=self._accepted,
        )
        if len(result.model_dump_json()) > MAX_PAYLOAD:
            result = result.model_copy(update={"answers": without_results(answers)})
        return result

    def _tell(self, step: str) -> None:
        self._step = step
        story = stories.commit_story(step, self._validation, self._plan, self._delivery.answers, self._accepted)
        workflow.set_current_details(story)
