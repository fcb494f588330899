"""The broker's connection to Temporal: patience, and the search attributes that its workflows set."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from longshore.activities.connection import connect
from longshore.schemas.connections import TemporalSettings
from longshore.schemas.failures import LongshoreError
from longshore.workflows.conventions import SEARCH_ATTRIBUTES

log = structlog.get_logger()

# A server that starts beside us is there within a second; one that is being replaced may take minutes.
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0

# Far within the 10 s after which a git host gives up on a webhook.
HEALTH_LIMIT = timedelta(seconds=2)
HEALTH_FRESH_SECONDS = 1.0


async def connect_patiently(settings: TemporalSettings) -> Client:
    """Return a client of the Temporal server, however long it takes to be there."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return await connect(settings)
        except LongshoreError as error:
            log.warning("temporal_unreachable", error=error.failure.message)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


async def register_search_attributes(client: Client) -> None:
    """Make our search attributes known to the namespace. Where the cluster does not let us, say so."""
    known = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace)
    )
    missing = [key.name for key in SEARCH_ATTRIBUTES if key.name not in known.custom_attributes]
    if not missing:
        return
    keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
    try:
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=client.namespace, search_attributes=dict.fromkeys(missing, keyword))
        )
    except RPCError as error:
        if error.status is RPCStatusCode.PERMISSION_DENIED:
            log.warning("search_attributes_missing", names=missing, remedy="ask the cluster's operator to add them")
            return
        if error.status is not RPCStatusCode.ALREADY_EXISTS:  # another broker was quicker
            raise
    log.info("search_attributes_registered", names=missing)


class TemporalHealth:
    """Whether Temporal answers, asked once a second at most, however many wish to know (FAULTS 15)."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._asking = asyncio.Lock()
        self._stale_at = 0.0
        self._answers = True

    async def require(self) -> None:
        """Raise LongshoreError TEMPORAL_UNAVAILABLE where nothing could be started now."""
        async with self._asking:
            now = asyncio.get_running_loop().time
            if now() >= self._stale_at:
                self._answers = await self._ask()
                self._stale_at = now() + HEALTH_FRESH_SECONDS
        if not self._answers:
            raise LongshoreError("TEMPORAL_UNAVAILABLE", "the Temporal server takes no work at the moment")

    async def _ask(self) -> bool:
        try:
            return await self._client.service_client.check_health(timeout=HEALTH_LIMIT)
        except (RPCError, RuntimeError) as error:  # RuntimeError is how the SDK says "connection refused"
            log.warning("temporal_unreachable", error=str(error))
            return False
