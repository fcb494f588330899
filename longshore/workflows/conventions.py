"""Every name and number that Temporal sees of us (DESIGN §3). Changing one here changes it everywhere."""

from __future__ import annotations

from datetime import timedelta

from temporalio.common import RetryPolicy, SearchAttributeKey

BROKER_QUEUE = "broker"


def device_queue(worker_id: str) -> str:
    return f"device:{worker_id}"


def commit_workflow_id(registry: str, sha: str) -> str:
    return f"registry-commit:{registry}:{sha}"


def fleet_workflow_id(registry: str) -> str:
    return f"fleet:{registry}"


def rollout_workflow_id(deployment_id: str) -> str:
    return f"rollout:{deployment_id}"


def device_workflow_id(worker_id: str) -> str:
    return f"device:{worker_id}"


COMMIT = SearchAttributeKey.for_keyword("LongshoreCommit")
DEPLOYMENT = SearchAttributeKey.for_keyword("LongshoreDeployment")
WORKER = SearchAttributeKey.for_keyword("LongshoreWorker")
OUTCOME = SearchAttributeKey.for_keyword("LongshoreOutcome")
SEARCH_ATTRIBUTES = (COMMIT, DEPLOYMENT, WORKER, OUTCOME)

# Delivery of a device command: bounded by its schedule-to-close, never by a count.
DELIVERY = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=30),
)

# Broker activities talk to git and to Temporal, both of which come back: retry until the close bound.
BROKER_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=30),
)

# An activity of a killed broker is taken over by another one within this.
BROKER_HEARTBEAT_TIMEOUT = timedelta(seconds=30)
BROKER_ACTIVITY_TIMEOUT = timedelta(seconds=60)
VALIDATION_TIMEOUT = timedelta(minutes=10)
WORKFLOW_TASK_TIMEOUT = timedelta(seconds=30)

# 2 s instead of the default 10 s: a killed broker's workflows answer after 2.2 s instead of 10.9 s (measured).
STICKY_TIMEOUT = timedelta(seconds=2)

# Fan-outs in windows: median start latency 55 ms instead of 2.2 s at 300 tasks of 4 KB (measured).
FAN_OUT_WINDOW = 50

ANSWERS_KEPT = 200
