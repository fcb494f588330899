"""The state folder: one daemon at a time, and sockets where their path is short enough."""

from __future__ import annotations

import shutil
import stat

import pytest

from longshore.schemas.failures import LongshoreError
from longshore.worker_host.journal import Journal
from longshore.worker_host.state_dir import StateDir


async def test_a_second_daemon_is_refused(tmp_path):
    """Two daemons on one folder would fight over its runners; the error names the one that runs."""
    first = await StateDir(tmp_path).acquire(handover=False)
    with pytest.raises(LongshoreError) as refused:
        await StateDir(tmp_path).acquire(handover=False)
    assert refused.value.code == "SOCKET_IN_USE"
    first.release()
    (await StateDir(tmp_path).acquire(handover=False)).release()


async def test_a_long_path_gets_a_short_run_directory_that_is_found_again(tmp_path, monkeypatch):
    """A Unix socket's path is bounded; the next daemon must look for its runners in the same place."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    state = await StateDir(tmp_path / ("long" * 30)).acquire(handover=False)
    journal = Journal(state.journal)
    paths = state.run_paths(journal)
    try:
        assert len(str(paths.socket("0123456789"))) < 100
        assert stat.S_IMODE(paths.root.stat().st_mode) == 0o700
        assert state.run_paths(journal) == paths
    finally:
        shutil.rmtree(paths.root)
    again = state.run_paths(journal)
    assert again != paths  # cleared by a reboot: made anew
    shutil.rmtree(again.root)
    journal.close()
    state.release()
