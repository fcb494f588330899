"""What the device must not forget: one SQLite file (DESIGN §5, PRD §8.2 "Retry State Tracking").

Each write is one statement or one transaction, committed to the disk (`synchronous=FULL`) before it returns, so
that a power loss leaves the old or the new record, never a torn one, and a generation that has been seen stays seen.
A write that fails raises LongshoreError DISK_FULL or IO_ERROR, and has changed nothing.
Writes are synchronous on the event loop on purpose: a command makes about ten of them, each one fsync, and "read
the generation, compare, write it" must not be interleaved with another command's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from longshore.schemas.base import Message
from longshore.schemas.commands import CommandResult
from longshore.schemas.deployments import DeploymentSpec
from longshore.schemas.devices import RetryState
from longshore.schemas.failures import Failure, LongshoreError
from longshore.schemas.lifecycle import ModelState
from longshore.worker_host.runners.instances import Instance
from longshore.xds.routing import Unavailable

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (deployment_id TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS instances (instance_id TEXT PRIMARY KEY, instance TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS totals (
    deployment_id TEXT PRIMARY KEY, requests INTEGER NOT NULL, last_inference TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS readings (
    instance_id TEXT PRIMARY KEY, requests INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, text TEXT NOT NULL) STRICT;
"""


class Record(Message):
    """All that is known of one deployment on this device."""

    deployment_id: str
    generation: int = 0
    """The highest that was ever seen; a lower one is refused."""
    state: ModelState = ModelState.IDLE
    serving: Instance | None = None
    """What serves, or should: the instance that the route leads to. It may be dead and on its way back."""
    loaded_at: datetime | None = None
    incoming_version: str | None = None
    unavailable: Unavailable | None = None
    """What callers are told while nothing serves; None where the device never heard of the deployment, or forgot it."""
    endpoint: str | None = None
    """The manifest's endpoint, so that its callers are told, too."""
    load_seconds: float | None = None
    """How long the last LOAD or RELOAD that brought something here took, its wait in the queue left out."""
    fetch_seconds: float | None = None
    """How much of that went into bringing its files and packages here."""
    completed: CommandResult | None = None
    """The result of the last completed generation, as long as it still holds."""
    error: Failure | None = None
    retry: RetryState | None = None
    """The failures of `generation`."""

    @property
    def spec(self) -> DeploymentSpec | None:
        return self.serving.spec if self.serving else None


class Traffic(NamedTuple):
    """What one deployment has answered since the device knows it."""

    requests: int
    last_inference: datetime


class Journal:
    """The one owner of the file. Implements `instances.InstanceStore`. Use it from one thread."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    def record(self, deployment_id: str) -> Record:
        """Return what is known of a deployment: an IDLE record of generation 0 where that is nothing."""
        row = self._one("SELECT record FROM records WHERE deployment_id = ?", deployment_id)
        return Record.model_validate_json(row) if row else Record(deployment_id=deployment_id)

    def records(self) -> list[Record]:
        rows = self._all("SELECT record FROM records ORDER BY deployment_id")
        return [Record.model_validate_json(row) for (row,) in rows]

    def put(self, record: Record) -> None:
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO records VALUES (?, ?)", (record.deployment_id, record.model_dump_json()))

    def save(self, instance: Instance) -> None:
        """Remember a runner; called before it is spawned."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO instances VALUES (?, ?)", (instance.instance_id, instance.model_dump_json())
            )

    def forget(self, instance_id: str) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM instances WHERE instance_id = ?", (instance_id,))
            db.execute("DELETE FROM readings WHERE instance_id = ?", (instance_id,))

    def all(self) -> list[Instance]:
        """Return every runner that was spawned and not forgotten."""
        return [Instance.model_validate_json(row) for (row,) in self._all("SELECT instance FROM instances")]

    def count(self, readings: Mapping[str, tuple[str, int]], now: datetime) -> None:
        """Add what Envoy has counted since the last time to the totals.

        `readings`: instance id → (deployment id, requests since Envoy made that cluster). A reading below the last
        one means that Envoy started again from zero.
        """
        last = dict(self._all("SELECT instance_id, requests FROM readings"))
        with self._transaction() as db:
            for instance_id, (deployment_id, requests) in readings.items():
                seen = last.get(instance_id, 0)
                new = requests - seen if requests >= seen else requests
                if new == 0:
                    continue
                db.execute("INSERT OR REPLACE INTO readings VALUES (?, ?)", (instance_id, requests))
                db.execute(
                    "INSERT INTO totals VALUES (?, ?, ?) ON CONFLICT (deployment_id) DO UPDATE"
                    " SET requests = requests + excluded.requests, last_inference = excluded.last_inference",
                    (deployment_id, new, now.isoformat()),
                )

    def traffic(self) -> dict[str, Traffic]:
        """Return the totals of each deployment that ever answered."""
        rows = self._all("SELECT deployment_id, requests, last_inference FROM totals")
        return {name: Traffic(requests, datetime.fromisoformat(last)) for name, requests, last in rows}

    def note(self, name: str) -> str | None:
        return self._one("SELECT text FROM notes WHERE name = ?", name)

    def write_note(self, name: str, text: str) -> None:
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, text))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._db:  # commits, or rolls back on an exception
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
        except sqlite3.OperationalError as error:
            code = "DISK_FULL" if error.sqlite_errorcode == sqlite3.SQLITE_FULL else "IO_ERROR"
            raise LongshoreError(code, f"the journal cannot be written: {error}") from error

    def _one(self, query: str, argument: str) -> str | None:
        with closing(self._db.execute(query, (argument,))) as cursor:
            row = cursor.fetchone()
        return str(row[0]) if row else None

    def _all(self, query: str) -> list[tuple[Any, ...]]:
        with closing(self._db.execute(query)) as cursor:
            return cursor.fetchall()
