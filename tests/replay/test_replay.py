"""Recorded histories still replay: a running workflow survives the release that changes its code.

`tests/replay/record.py` recorded them.
"""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from longshore.broker.control import SANDBOX, WORKFLOWS
from longshore.workflows import conventions

RECORDED = sorted(Path(__file__).parent.glob("*.json"))


def names() -> set[str]:
    return {path.stem.split("-")[0] for path in RECORDED}


def test_every_workflow_is_recorded() -> None:
    """A workflow without a history would change unseen."""
    assert names() == {"alarm", "commit", "fleet", "rollout", "device", "reconciliation"}


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
async def test_replays(path: Path) -> None:
    """The same commands come out of the same events."""
    document = _document(path)
    history = WorkflowHistory.from_json(document["workflow_id"], document)
    replayer = Replayer(workflows=WORKFLOWS, data_converter=pydantic_data_converter, workflow_runner=SANDBOX)
    await replayer.replay_workflow(history)


async def test_a_commit_that_a_broker_of_the_release_before_took_up_goes_on() -> None:
    """It was started with channels by a new broker, and worked on by one that does not know them."""
    document = _document(Path(__file__).parent / "commit-rejected.json")
    started = document["events"][0]["workflowExecutionStartedEventAttributes"]["input"]["payloads"][0]
    commit = json.loads(base64.b64decode(started["data"]))
    commit["telling"] = {"status_host": "github", "channels": {"ops": 1}}
    started["data"] = base64.b64encode(json.dumps(commit).encode()).decode()
    history = WorkflowHistory.from_json(document["workflow_id"], document)
    replayer = Replayer(workflows=WORKFLOWS, data_converter=pydantic_data_converter, workflow_runner=SANDBOX)
    await replayer.replay_workflow(history)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_every_activity_is_bounded(path: Path) -> None:
    """What a replay cannot see: each activity has a heartbeat, a close bound and the queue that serves it."""
    for activity in _scheduled(path):
        kind, queue = activity["activityType"]["name"], activity["taskQueue"]["name"]
        on_device = kind in {"load_model", "reload_model", "unload_model", "report_presence"}
        assert queue.startswith("device:worker-") if on_device else queue == conventions.BROKER_QUEUE
        assert _seconds(activity["heartbeatTimeout"]) > 0
        bound = max(_seconds(activity.get(name, "0s")) for name in ("scheduleToCloseTimeout", "startToCloseTimeout"))
        assert 0 < bound <= timedelta(days=1).total_seconds()


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_every_activity_has_a_summary(path: Path) -> None:
    """The Web UI shows what an activity is for, not only its name."""
    for event in _document(path)["events"]:
        if "activityTaskScheduledEventAttributes" in event:
            assert event["userMetadata"]["summary"]["data"]


def _document(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def _scheduled(path: Path) -> list[dict[str, Any]]:
    events = _document(path)["events"]
    key = "activityTaskScheduledEventAttributes"
    return [event[key] for event in events if key in event]


def _seconds(text: str) -> float:
    return float(text.removesuffix("s"))
