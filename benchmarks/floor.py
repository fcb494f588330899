"""What the benchmarks compare with: as many activities that do nothing, through the same server in the same run."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import activity, workflow


@activity.defn
async def no_op() -> None:
    """Do nothing: what is left is the way through the server."""


@workflow.defn
class FloorWorkflow:
    """As many activities as a workflow of ours: one after the other, then the replicas' side by side."""

    @workflow.run
    async def run(self, in_a_row: int, side_by_side: int) -> None:
        for _ in range(in_a_row):
            await workflow.execute_activity(no_op, start_to_close_timeout=timedelta(seconds=60))
        await asyncio.gather(
            *(
                workflow.execute_activity(no_op, start_to_close_timeout=timedelta(seconds=60))
                for _ in range(side_by_side)
            )
        )
