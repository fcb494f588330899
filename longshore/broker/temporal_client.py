"""The connection to Temporal: settings of Temporal's own configuration, ours on top, and patience."""

from __future__ import annotations

import asyncio

import structlog
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.envconfig import ClientConfigProfile
from temporalio.service import RPCError, RPCStatusCode

from longshore.broker.settings import BrokerSettings
from longshore.workflows.conventions import SEARCH_ATTRIBUTES

log = structlog.get_logger()

# A server that starts beside us is there within a second; one that is being replaced may take minutes.
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0


async def connect(settings: BrokerSettings) -> Client:
    """Return a client of the Temporal server, however long it takes to be there.

    TLS, API key and what our settings leave open come from `temporalio.envconfig` (TEMPORAL_… and its file).
    """
    profile = ClientConfigProfile.load(profile=settings.temporal_profile)
    options = profile.to_client_connect_config()
    options["target_host"] = settings.temporal or options.get("target_host") or "localhost:7233"
    options["namespace"] = settings.namespace or options.get("namespace") or "default"
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return await Client.connect(**options, data_converter=pydantic_data_converter)
        except (RuntimeError, RPCError) as error:  # RuntimeError is how the SDK says "connection refused"
            log.warning("temporal_unreachable", address=options["target_host"], error=str(error).split("\n")[0])
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
