"""The doors that a RegistryCommitWorkflow goes through, in this order."""

from __future__ import annotations

from typing import Protocol

from temporalio import activity

from longshore.activities.boundary import beating, fitting, our_failures_as_temporals
from longshore.schemas.commits import RecordRequest, RegistryCommit, ValidationResult
from longshore.schemas.devices import StartDevices
from longshore.schemas.fleet import PlanAnswer, PlanRequest


class Validator(Protocol):
    async def validate(self, sha: str) -> ValidationResult:
        """Take the commit through the six steps of PRD §5.1 and return every finding at once."""


class Entities(Protocol):
    """The long-lived workflows, as a commit needs them."""

    async def start_devices(self, workers: tuple[str, ...]) -> None:
        """Start the DeviceWorkflows that are not running."""

    async def ask_fleet(self, request: PlanRequest) -> PlanAnswer:
        """Return the fleet's answer, starting the fleet where it is not running; the same one for the same request."""


class Recorder(Protocol):
    async def record(self, request: RecordRequest) -> None:
        """Write error files, the actual state and its history to the registry."""


class CommitActivities:
    def __init__(self, validator: Validator, entities: Entities, recorder: Recorder) -> None:
        self._validator = validator
        self._entities = entities
        self._recorder = recorder

    @activity.defn
    async def validate_commit(self, commit: RegistryCommit) -> ValidationResult:
        async with beating("validating"):
            with our_failures_as_temporals():
                return fitting(await self._validator.validate(commit.sha))

    @activity.defn
    async def start_devices(self, request: StartDevices) -> None:
        async with beating("starting devices"):
            with our_failures_as_temporals():
                await self._entities.start_devices(request.workers)

    @activity.defn
    async def ask_fleet_for_plan(self, request: PlanRequest) -> PlanAnswer:
        async with beating("waiting for the fleet"):
            with our_failures_as_temporals():
                return await self._entities.ask_fleet(request)

    @activity.defn
    async def record_result(self, request: RecordRequest) -> None:
        async with beating("recording"):
            with our_failures_as_temporals():
                await self._recorder.record(request)
