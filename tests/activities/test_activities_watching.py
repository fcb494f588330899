"""Watching the branch: what becomes of a registry that cannot be read for a while."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from structlog.testing import capture_logs
from temporalio.testing import ActivityEnvironment

from longshore.activities.fleet import FleetActivities
from longshore.activities.planner import Planner
from longshore.schemas.devices import DeviceFacts, DeviceReport
from longshore.schemas.failures import LongshoreError
from longshore.schemas.fleet import WatchRequest
from longshore.schemas.registries import RegistrySnapshot


class Registry:
    """A registry that answers each look with the next of `answers`; a text with a colon is a failure.

    The doors ask for more than a watch does: what raises NotImplementedError must not be asked.
    """

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)
        self.started: list[str] = []

    async def look(self) -> str:
        answer = self._answers.pop(0)
        if ": " in answer:
            raise LongshoreError(*answer.split(": ", 1))
        return answer

    async def start_commit(self, sha: str) -> None:
        self.started.append(sha)

    async def start_commit_again(self, sha: str, after_run: str) -> None:
        raise NotImplementedError

    async def snapshot(self, sha: str) -> RegistrySnapshot:
        raise NotImplementedError

    async def reports(self, workers: tuple[str, ...]) -> dict[str, DeviceReport]:
        raise NotImplementedError

    async def facts(self, workers: tuple[str, ...]) -> dict[str, DeviceFacts]:
        raise NotImplementedError

    async def is_ancestor(self, older: str, newer: str) -> bool:
        raise NotImplementedError


async def watched(registry: Registry) -> tuple[list[tuple[Any, ...]], list[tuple[str, str | None]]]:
    """Watch until the head has moved to `b`; return what the Web UI was shown, and what was logged."""
    environment = ActivityEnvironment()
    shown: list[tuple[Any, ...]] = []
    environment.on_heartbeat = lambda *details: shown.append(details)
    activities = FleetActivities(registry, registry, registry, Planner(registry, registry))
    request = WatchRequest(registry="registry", seen_sha="a", poll_interval=timedelta(0))
    with capture_logs() as logs:
        assert await environment.run(activities.watch_registry, request) == "b"
    return shown, [(entry["event"], entry.get("code")) for entry in logs]


async def test_a_registry_that_cannot_be_read_is_told_once() -> None:
    """However long it lasts: in the log, and beside the pending activity, until it is over."""
    gone = "REGISTRY_UNREADABLE: the registry has no branch main"
    registry = Registry("a", gone, gone, gone, "a", "a", "b")
    shown, logged = await watched(registry)
    assert shown == [("a",), ("a", gone), ("a",)]
    assert logged == [("registry_unreadable", "REGISTRY_UNREADABLE"), ("registry_readable", None)]
    assert registry.started == ["b"]


async def test_another_trouble_is_told_anew() -> None:
    """A branch that is gone is not a host that is down; and trouble that ends in a commit ends with it."""
    down, gone = "GIT_UNREACHABLE: no route to host", "REGISTRY_UNREADABLE: the registry has no branch main"
    shown, logged = await watched(Registry("a", down, down, gone, gone, down, "b"))
    assert [details[1] for details in shown if len(details) > 1] == [down, gone, down]
    assert [code for _, code in logged] == ["GIT_UNREACHABLE", "REGISTRY_UNREADABLE", "GIT_UNREACHABLE"]
