"""The simulator can fail: with one mechanism turned off, some history breaks what must hold."""

import pytest

from longshore.planning.draft import Draft
from longshore.schemas.commands import UnloadReason
from longshore.workflows.ledger import machine
from tests.simulation import invariants
from tests.simulation.clock import Broken
from tests.simulation.mutations import Mutations
from tests.simulation.world import play

# Histories that are tried until one breaks.
PATIENCE = 400


def broken_by(mutations=None):
    """Return what the first broken history says."""
    for seed in range(PATIENCE):
        try:
            play(seed, mutations)
        except Broken as broken:
            return str(broken)
    pytest.fail(f"{PATIENCE} histories, and none has missed it")


def test_without_fencing_a_late_command_takes_effect():
    """A device that keeps to no generation and no lease does what a newer command has overtaken."""
    assert "takes effect after generation" in broken_by(Mutations(no_fencing=True))


def test_without_waiting_for_the_evicted_a_device_is_asked_for_more_than_it_holds():
    """A newcomer that does not wait for the room that is made for it finds none."""
    assert "has no room for" in broken_by(Mutations(no_waiting=True))


def test_without_deferring_what_serves_goes_before_its_replacement_is_ready(monkeypatch):
    """Break before make (D2): by what the devices serve, since the linter of plans is turned off with it."""

    def at_once(self, slot, reason):
        self.unload(slot, UnloadReason.SCALED_DOWN, reason)

    monkeypatch.setattr(Draft, "leave", at_once)
    monkeypatch.setattr(invariants, "check", lambda *_: [])
    assert "is taken from" in broken_by()


def test_without_the_leap_a_rebuilt_ledger_commands_what_devices_refuse(monkeypatch):
    """Its generations are below what absent devices and waiting rollouts have seen."""
    monkeypatch.setattr(machine, "leap", lambda known, _now: known)
    assert broken_by()
