"""What every door does: our failures become Temporal's, results fit into Temporal, long work is seen to be alive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from typing import TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError

from longshore.schemas.base import Message
from longshore.schemas.failures import LongshoreError

# Temporal refuses payloads of 2 MiB, and its gRPC messages hold 4 MiB; the rest is headroom for what wraps ours.
MAX_PAYLOAD = 1_500_000

# A third of the broker activities' heartbeat time-out: two beats may be lost.
BEAT_SECONDS = 10.0

Result = TypeVar("Result", bound=Message)


@contextmanager
def our_failures_as_temporals() -> Iterator[None]:
    """Turn a LongshoreError into an ApplicationError of its code, retriable as the failure table says."""
    try:
        yield
    except LongshoreError as error:
        raise ApplicationError(
            str(error),
            error.failure.model_dump(mode="json"),
            type=error.code,
            non_retryable=not error.failure.kind.retriable,
        ) from error


def server_time() -> Callable[[], datetime]:
    """Return a clock that goes by the Temporal server, as the workflows do: this host's may be wrong (FAULTS 68)."""
    begun, since = activity.info().started_time, time.monotonic()
    return lambda: begun + timedelta(seconds=time.monotonic() - since)


@asynccontextmanager
async def beating(*details: object, every: float = BEAT_SECONDS) -> AsyncIterator[Callable[..., None]]:
    """Heartbeat `every` so many seconds while the body runs, so that another broker takes over when this one is killed.

    `details` stand in the Web UI beside the pending activity; the body is given a function that replaces them.
    """
    said = details

    def say(*details: object) -> None:
        nonlocal said
        said = details
        activity.heartbeat(*said)

    async def beat() -> None:
        while True:
            activity.heartbeat(*said)
            await asyncio.sleep(every)

    task = asyncio.create_task(beat(), name="heartbeat")
    try:
        yield say
    finally:
        task.cancel()


def fitting(result: Result) -> Result:
    """Return `result` where Temporal can carry it. Raises LongshoreError PAYLOAD_TOO_LARGE."""
    size = len(result.model_dump_json())
    if size > MAX_PAYLOAD:
        what = type(result).__name__
        raise LongshoreError("PAYLOAD_TOO_LARGE", f"{what} has {size:,} bytes, the limit is {MAX_PAYLOAD:,}")
    return result
