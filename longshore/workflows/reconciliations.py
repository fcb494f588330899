"""What the fleet does unasked: one plan of its own, from the cause to the error file (PRD §5.2, §5.5).

The fleet has planned and reserved it already, and starts this only for a plan that has something to do or to say.
"""

from __future__ import annotations

import asyncio

from temporalio import workflow

from longshore.activities.boundary import MAX_PAYLOAD
from longshore.activities.records import RecordActivities
from longshore.schemas.commits import CommitOutcome
from longshore.schemas.issues import Audience
from longshore.schemas.plans import CauseKind
from longshore.schemas.reconciliations import Reconciliation, ReconciliationRecord, ReconciliationResult
from longshore.schemas.rollouts import RolloutAnswer
from longshore.schemas.telling import aftermath, alarm, failed_models
from longshore.workflows import conventions, stories
from longshore.workflows.delivering import Answers, Delivery, outcome_of, recorded, without_results
from longshore.workflows.telling import Messenger

_AFTER_LOSSES = frozenset({CauseKind.DRIFT, CauseKind.REBUILD})


@workflow.defn(failure_exception_types=conventions.DEFECTS)
class ReconciliationWorkflow:
    @workflow.init
    def __init__(self, asked: Reconciliation) -> None:
        self._asked = asked
        # A rollout that an operator has terminated answers nobody, and the commit may be waiting for it still.
        commit = conventions.commit_workflow_id(asked.registry, asked.sha)
        self._delivery = Delivery(
            asked.registry,
            asked.sha,
            asked.intervals,
            cause=asked.cause.words,
            also_to=(commit,) if asked.cause.kind in _AFTER_LOSSES else (),
        )
        self._step = "Rolling out"

    @workflow.run
    async def run(self, asked: Reconciliation) -> ReconciliationResult:
        workflow.upsert_search_attributes([conventions.COMMIT.value_set(asked.sha)])
        messenger = Messenger(asked.registry, asked.telling)
        alarmed = asyncio.create_task(messenger.tell(asked.sha, {Audience.OPS: alarm(asked)}))  # beside the work
        self._tell("Rolling out")
        await self._delivery.start(asked.plan)
        answers = await self._delivery.ended(asked.plan, self._record_so_far)
        outcome = CommitOutcome.PARTLY_APPLIED if asked.plan.suspects else outcome_of(answers)
        result = await self._record(self._result(outcome, stories.commit_summary(outcome, answers), answers))
        self._tell(result.summary)
        # Of a suspicion everything has been said: it began with nothing to do.
        told = {Audience.OPS: aftermath(asked.registry, result), Audience.ML: failed_models(asked.registry, result)}
        ended = await messenger.tell(asked.sha, told if answers else {})
        untold = dict.fromkeys([*await alarmed, *ended])
        result = result.model_copy(update={"summary": stories.with_untold(result.summary, tuple(untold))})
        workflow.upsert_search_attributes([conventions.OUTCOME.value_set(result.outcome)])
        self._tell(result.summary)
        return result

    @workflow.signal(description="How the rollout of one deployment ended")
    def answer(self, answer: RolloutAnswer) -> None:
        self._delivery.keep(answer)
        self._tell(self._step)

    async def _record_so_far(self, told: str, known: Answers) -> None:
        await self._record(self._result(CommitOutcome.PARTLY_APPLIED, told, known))
        self._tell("Rolling out")

    async def _record(self, result: ReconciliationResult) -> ReconciliationResult:
        self._tell(f"Recording: {result.summary}")
        request = ReconciliationRecord(
            registry=self._asked.registry,
            plan=self._asked.plan,
            result=result,
            workflow_id=workflow.info().workflow_id,
        )
        if len(request.model_dump_json()) > MAX_PAYLOAD:
            short = result.model_copy(update={"answers": without_results(result.answers)})
            request = request.model_copy(update={"result": short})
        summary = await recorded(RecordActivities.record_reconciliation, request, result.summary)
        return result.model_copy(update={"summary": summary})

    def _result(self, outcome: CommitOutcome, summary: str, answers: Answers) -> ReconciliationResult:
        result = ReconciliationResult(
            sha=self._asked.sha,
            outcome=outcome,
            summary=f"{self._asked.cause.words}: {summary}",
            cause=self._asked.cause,
            generation=self._asked.plan.generation,
            answers=answers,
        )
        if len(result.model_dump_json()) > MAX_PAYLOAD:
            result = result.model_copy(update={"answers": without_results(answers)})
        return result

    def _tell(self, step: str) -> None:
        self._step = step
        # A summary begins with the cause.
        words = self._asked.cause.words
        head = step if words in step else f"{words}: {step}"
        story = stories.commit_story(head, None, self._asked.plan, self._delivery.answers)
        workflow.set_current_details(story)
