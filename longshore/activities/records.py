"""The doors through which git learns of what happens without a commit."""

from __future__ import annotations

from typing import Protocol

from temporalio import activity

from longshore.activities.boundary import beating, our_failures_as_temporals
from longshore.schemas.reconciliations import ReconciliationRecord, RecordWatch


class Records(Protocol):
    async def keep(self, watch: RecordWatch) -> int:
        """Write the state whenever the ledger's version moves on; return the last one written when the watch ends."""

    async def record_reconciliation(self, request: ReconciliationRecord) -> None:
        """Write the error file of what had failed, and the state; the same request writes nothing twice."""


class RecordActivities:
    def __init__(self, records: Records) -> None:
        self._records = records

    @activity.defn
    async def keep_records(self, watch: RecordWatch) -> int:
        async with beating(watch.seen_version):
            with our_failures_as_temporals():
                return await self._records.keep(watch)

    @activity.defn
    async def record_reconciliation(self, request: ReconciliationRecord) -> None:
        async with beating("recording"):
            with our_failures_as_temporals():
                await self._records.record_reconciliation(request)
