"""How a ledger that is new finds out whether the fleet is new as well (FAULTS 57, 70)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError

from longshore.activities.reconciliations import ReconciliationActivities
from longshore.schemas.devices import Health
from longshore.schemas.reconciliations import Heard, HearDevices, LastApplied, LastAppliedRequest
from longshore.schemas.wording import counted
from longshore.workflows import conventions
from longshore.workflows.ledger.machine import Ledger
from longshore.workflows.outcomes import failure_of

Answer = TypeVar("Answer")


async def hear_new_devices(ledger: Ledger, workers: tuple[str, ...], *, may_be_older: bool) -> None:
    """Find out what devices hold that the ledger has never met, and give those that are new a moment to say it, once.

    Raises ActivityError where no broker can ask them.
    """
    new = ledger.unheard(workers)
    if may_be_older and new:
        # A device that was out of git while the ledger was lost has told the one before, and tells changes only.
        told = await _ask(ledger, new, schedule_to_close_timeout=conventions.BROKER_ACTIVITY_TIMEOUT)
        for record in told.records:
            if record.health is not Health.UNKNOWN and record.worker_id not in ledger.state.devices:
                ledger.heard(record, workflow.now())
    await _heard(ledger, new, ledger.state.settings.first_report_grace)
    if may_be_older and new and ledger.state.applied_sha is None and ledger.state.generation:
        # The fleet is not as new as its ledger: what is not heard of yet may run as well (FAULTS 57).
        await _heard(ledger, workers, ledger.state.settings.rebuild_grace)
        ledger.rebuilt((), LastApplied(sha=None), workflow.now())
    ledger.met(new)


async def _heard(ledger: Ledger, workers: tuple[str, ...], patience: timedelta) -> None:
    with suppress(TimeoutError):
        await workflow.wait_condition(lambda: not ledger.unheard(workers), timeout=patience)


async def rebuild(ledger: Ledger) -> None:
    """Begin with what git and the devices know: this ledger is new, the fleet perhaps not (FAULTS 57, 70)."""
    last = await _patiently(
        ledger,
        lambda: workflow.execute_activity_method(
            ReconciliationActivities.last_applied,
            LastAppliedRequest(registry=ledger.state.registry),
            start_to_close_timeout=conventions.VALIDATION_TIMEOUT,
            heartbeat_timeout=conventions.BROKER_HEARTBEAT_TIMEOUT,
            retry_policy=conventions.BROKER_RETRY,
            summary="which commit was applied last?",
        ),
    )
    heard = Heard()
    if last.sha is not None:
        heard = await _patiently(ledger, lambda: _ask(ledger, last.workers))
        told = {record.worker_id for record in heard.records if record.health is not Health.UNKNOWN}
        missing = tuple(name for name in last.workers if name not in told)
        await _heard(ledger, missing, ledger.state.settings.first_report_grace)
        if last.generation or ledger.state.generation or any(record.generation for record in heard.records):
            await _heard(ledger, missing, ledger.state.settings.rebuild_grace)
    # What a device has said by itself meanwhile is newer.
    records = [record for record in heard.records if record.worker_id not in ledger.state.devices]
    ledger.rebuilt(records, last, workflow.now())


async def _ask(
    ledger: Ledger, workers: tuple[str, ...], *, schedule_to_close_timeout: timedelta | None = None
) -> Heard:
    return await workflow.execute_activity_method(
        ReconciliationActivities.hear_devices,
        HearDevices(registry=ledger.state.registry, workers=workers),
        start_to_close_timeout=conventions.VALIDATION_TIMEOUT,
        schedule_to_close_timeout=schedule_to_close_timeout,
        heartbeat_timeout=conventions.BROKER_HEARTBEAT_TIMEOUT,
        retry_policy=conventions.BROKER_RETRY,
        summary=f"what do {counted(len(workers), 'device')} hold?",
    )


async def _patiently(ledger: Ledger, ask: Callable[[], Awaitable[Answer]]) -> Answer:
    while True:
        try:
            return await ask()
        except ActivityError as error:
            context = {"registry": ledger.state.registry, "error": failure_of(error).message}
            workflow.logger.error("rebuild_delayed", extra={"context": context})
            await workflow.sleep(ledger.state.settings.poll_interval)
