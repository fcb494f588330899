"""Every name and number that Temporal sees of us (DESIGN §3). Changing one here changes it everywhere."""

from __future__ import annotations

from datetime import datetime, timedelta

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


def reconciliation_workflow_id(registry: str, generation: int) -> str:
    """Return the id of the reconciliation whose plan brought the ledger to `generation`: it only ever rises."""
    return f"{reconciliation_workflow_prefix(registry)}{generation}"


def reconciliation_workflow_prefix(registry: str) -> str:
    return f"reconcile:{registry}:"


def alarm_workflow_id(registry: str, since: datetime) -> str:
    """Return the id of an alarm that was raised, or a failure that was noted, `since` then: there is nothing to do."""
    return f"alarm:{registry}:{since:%Y-%m-%dT%H-%M-%S}"


def defect_alarm_workflow_id(registry: str, run_id: str) -> str:
    """Return the id of the alarm of one run that a defect has ended."""
    return f"alarm:{registry}:{run_id}"


COMMIT = SearchAttributeKey.for_keyword("LongshoreCommit")
DEPLOYMENT = SearchAttributeKey.for_keyword("LongshoreDeployment")
WORKER = SearchAttributeKey.for_keyword("LongshoreWorker")
OUTCOME = SearchAttributeKey.for_keyword("LongshoreOutcome")
CAUSE = SearchAttributeKey.for_keyword("LongshoreCause")
SEARCH_ATTRIBUTES = (COMMIT, DEPLOYMENT, WORKER, OUTCOME, CAUSE)

# Delivery of a device command: bounded by its schedule-to-close, never by a count.
DELIVERY = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=30),
)

# What a defect raises. It fails the run at once; otherwise Temporal repeats the workflow task for ever, unseen. A
# NondeterminismError is not among them: a bad release must block the entities until it is mended, not end them.
DEFECTS: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    TypeError,
    ValueError,
)

# Broker activities talk to git and to Temporal, both of which come back: retry until the close bound. A defect does
# not go away by itself; as an activity's failure it is known by its class's own name.
BROKER_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=30),
    non_retryable_error_types=[
        *(defect.__name__ for defect in DEFECTS),
        *(defect.__name__ for defect in (IndexError, KeyError, UnboundLocalError, UnicodeError, ZeroDivisionError)),
        "ValidationError",
    ],
)

# An activity of a killed broker is taken over by another one within this.
BROKER_HEARTBEAT_TIMEOUT = timedelta(seconds=30)
# Room that was freed serves nobody until who waits for it has seen it: that is taken over sooner. It beats each second.
FREED_HEARTBEAT_TIMEOUT = timedelta(seconds=10)
BROKER_ACTIVITY_TIMEOUT = timedelta(seconds=60)
VALIDATION_TIMEOUT = timedelta(minutes=10)

# A git host may be down for hours (FAULTS 50): the commit waits for it. Past a day a person should look.
BROKER_PATIENCE = timedelta(days=1)

# The state is written for people, and the next commit writes it anew: it must not hold up this one's result for long.
RECORD_PATIENCE = timedelta(hours=1)

# People are told of a result once it stands; whoever cannot be told by then is named in it.
STATUS_PATIENCE = timedelta(minutes=5)
NOTIFY_PATIENCE = timedelta(minutes=10)

# An attempt to notify beats once, before it sends: longer than one send takes, so that the next attempt comes after it.
NOTIFY_HEARTBEAT_TIMEOUT = timedelta(seconds=40)

# While a commit waits for a device that is away, what failed elsewhere stands in git after this.
LONGEST_UNRECORDED = timedelta(minutes=1)

# Every activity has a close bound, also those that return only when there is something to say.
WATCH_TIMEOUT = timedelta(days=1)
PRESENCE_TIMEOUT = timedelta(days=1)

# Who waits for a rollout hands it the same target again after this, and then each time after twice as long: it may have
# been terminated. An hour's absence of a device costs three of these.
FIRST_REMINDER = timedelta(minutes=10)
LONGEST_REMINDER = timedelta(hours=6)

WORKFLOW_TASK_TIMEOUT = timedelta(seconds=30)

# 2 s instead of the default 10 s: a killed broker's workflows answer after 2.2 s instead of 10.9 s (measured).
STICKY_TIMEOUT = timedelta(seconds=2)

# Fan-outs in windows: median start latency 55 ms instead of 2.2 s at 300 tasks of 4 KB (measured).
FAN_OUT_WINDOW = 50

# The next window of a fan-out starts when this one has ended or after this: an absent device holds nobody up.
FAN_OUT_PAUSE = timedelta(seconds=5)

# A command that no device picks up is issued again, each time with twice the patience, up to this.
LONGEST_SCHEDULE_TO_START = timedelta(hours=1)

# Patches (`workflow.patched`): what a history that was begun without them goes on without.
TELLS_PEOPLE = "tells-people"
BRAIN = "brain"
RENEWAL = "renewal"

# Who gives an order waits this long to hear which reconciliation carries it out.
ORDER_PATIENCE = timedelta(seconds=30)
