"""An alarm of what has no workflow any more that could tell of it: ops hears of it once."""

from __future__ import annotations

from temporalio import workflow

from longshore.schemas.issues import Audience
from longshore.schemas.telling import Alarm
from longshore.workflows import conventions, stories
from longshore.workflows.telling import Messenger


@workflow.defn(failure_exception_types=conventions.DEFECTS)
class AlarmWorkflow:
    @workflow.run
    async def run(self, alarm: Alarm) -> str:
        """Return what ops was told, and by which channels it could not be told."""
        workflow.set_current_details(f"{alarm.notice.title}\n\n{alarm.notice.body}")
        messenger = Messenger(alarm.registry, alarm.telling)
        untold = await messenger.tell(alarm.sha, {Audience.OPS: alarm.notice})
        return stories.with_untold(alarm.notice.title, untold)
