"""The journal: what the device remembers, and that it remembers it after anything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from device_fakes import spec

from longshore.schemas.failures import LongshoreError
from longshore.schemas.lifecycle import ModelState
from longshore.worker_host.journal import Journal, Record
from longshore.worker_host.runners.instances import Instance

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def instance(instance_id="0123456789"):
    return Instance(
        instance_id=instance_id,
        deployment_id="echo",
        generation=1,
        spec=spec(),
        python="/python",
        checkout="/code",
        artifacts="/model",
        created_at=NOW,
    )


def test_a_record_is_read_back_as_it_was_written(tmp_path):
    """What one daemon wrote is what the next one finds, the spec included."""
    record = Record(deployment_id="echo", generation=7, state=ModelState.READY, serving=instance(), loaded_at=NOW)
    journal = Journal(tmp_path / "journal.sqlite")
    journal.put(record)
    journal.close()
    assert Journal(tmp_path / "journal.sqlite").records() == [record]


def test_an_unknown_deployment_is_idle(tmp_path):
    """Asking about what was never heard of writes nothing."""
    journal = Journal(tmp_path / "journal.sqlite")
    assert journal.record("new") == Record(deployment_id="new")
    assert journal.records() == []


def test_instances_outlive_the_daemon_until_forgotten(tmp_path):
    """An instance stands in the journal from before its start to after its end."""
    journal = Journal(tmp_path / "journal.sqlite")
    journal.save(instance())
    assert Journal(tmp_path / "journal.sqlite").all() == [instance()]
    journal.forget("0123456789")
    assert journal.all() == []


def test_counters_are_added_and_survive_an_envoy_that_starts_from_zero(tmp_path):
    """Totals grow by what is new; a counter that went back counts from zero."""
    journal = Journal(tmp_path / "journal.sqlite")
    for requests in (10, 25, 25, 4):
        journal.count({"0123456789": ("echo", requests)}, NOW)
    assert journal.traffic()["echo"] == (29, NOW)


def test_a_request_count_that_does_not_move_is_no_inference(tmp_path):
    """last_inference is the time of the last reading that saw something new."""
    journal = Journal(tmp_path / "journal.sqlite")
    journal.count({"0123456789": ("echo", 1)}, NOW)
    journal.count({"0123456789": ("echo", 1)}, NOW.replace(year=2027))
    assert journal.traffic()["echo"].last_inference == NOW


WRITER = """
import sys
from pathlib import Path
from longshore.worker_host.journal import Journal, Record
journal = Journal(Path(sys.argv[1]))
generation = 0
while True:
    generation += 1
    journal.put(Record(deployment_id="echo", generation=generation))
    print(generation, flush=True)
"""


def test_a_kill_leaves_the_last_confirmed_record(tmp_path):
    """After a kill -9 amid writes the journal opens and holds what had been confirmed, or the write after it."""
    path = tmp_path / "journal.sqlite"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        confirmed = [int(writer.stdout.readline()) for _ in range(50)][-1]
        os.kill(writer.pid, signal.SIGKILL)
        confirmed = max([confirmed, *(int(line) for line in writer.stdout if line.endswith("\n"))])
    assert Journal(path).record("echo").generation in (confirmed, confirmed + 1)


def test_a_full_disk_is_named_and_changes_nothing(tmp_path):
    """A write that finds no room fails with its own code, and what was there is there."""
    journal = Journal(tmp_path / "journal.sqlite")
    journal.put(Record(deployment_id="echo", generation=7))
    journal._db.execute("PRAGMA max_page_count = 1")  # SQLite raises it to what there is: as good as a full disk
    with pytest.raises(LongshoreError, match="DISK_FULL"):
        journal.write_note("large", "x" * 100_000)
    assert journal.record("echo").generation == 7
    assert journal.note("large") is None
