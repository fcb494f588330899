"""Follows the drain of one device until nothing is left on it, and says what each of its models waits for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import NamedTuple

from temporalio.client import Client

from longshore.cli.durations import format_duration
from longshore.cli.status.gathering import fleet_view
from longshore.schemas.fleet import FleetView, Open
from longshore.schemas.lifecycle import ModelState

# A query that a broker answers from memory; what a device does takes longer.
_LOOK_EVERY_SECONDS = 1.0


class Left(NamedTuple):
    """What the device still holds, and why it does."""

    deployment_id: str
    waits_for: str
    """Empty while that is under way."""


async def follow(client: Client, registry: str, worker_id: str) -> bool:
    """Print what happens until the device is empty; False where somebody has ended the drain before."""
    began = time.monotonic()
    view = await fleet_view(client, registry)
    left = tuple(still_there(view, worker_id))
    width = max((len(one.deployment_id) for one in left), default=0)
    for one in left:
        print(f"  {one.deployment_id:<{width}}  {one.waits_for or 'is being moved'}", flush=True)
    while left and worker_id in view.cordons:
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
        view = await fleet_view(client, registry)
        before, left = left, tuple(still_there(view, worker_id))
        for line in news(before, left, view):
            print(f"  {line.deployment_id:<{width}}  {line.waits_for}", flush=True)
    took = format_duration(timedelta(seconds=round(time.monotonic() - began)))
    print(f"{worker_id} is empty after {took}" if not left else f"{worker_id} is no longer being drained")
    return not left


def still_there(view: FleetView, worker_id: str) -> Iterator[Left]:
    """Yield what is left on a device; what others have taken over from a device that has failed counts no longer."""
    for slot in view.slots:
        if slot.worker_id == worker_id and not slot.replaced:
            undone = view.open.get(slot.deployment_id)
            yield Left(slot.deployment_id, _no_place(undone) if undone is not None and undone.unplaced else "")


def news(before: tuple[Left, ...], after: tuple[Left, ...], view: FleetView) -> Iterator[Left]:
    """Yield what has gone since, with where it runs now, and what now waits for something else."""
    there = {one.deployment_id: one for one in after}
    for one in before:
        now = there.get(one.deployment_id)
        if now is None:
            yield Left(one.deployment_id, _elsewhere(view, one.deployment_id))
        elif now.waits_for != one.waits_for:
            yield Left(one.deployment_id, now.waits_for or "is being moved")


def _no_place(undone: Open) -> str:
    reasons = [f"{one.worker_id}: {'; '.join(one.reasons)}" for one in undone.rejections]
    return f"finds no other place: {', '.join(reasons) or 'each device that matches has a replica'}"


def _elsewhere(view: FleetView, deployment_id: str) -> str:
    ready = [s.worker_id for s in view.slots if s.deployment_id == deployment_id and s.state is ModelState.READY]
    return f"unloaded here; READY on {', '.join(ready)}" if ready else "unloaded here"
