"""The lifecycle table: what may follow what."""

from __future__ import annotations

import itertools

import pytest

from longshore.schemas.failures import LongshoreError
from longshore.schemas.lifecycle import ModelState
from longshore.worker_host.commands.lifecycle import TABLE, Event, after

PAIRS = list(itertools.product(ModelState, Event))


@pytest.mark.parametrize(("state", "event"), [pair for pair in PAIRS if pair in TABLE])
def test_legal_pairs_lead_where_the_table_says(state, event):
    """Every row of the table is what a model does."""
    assert after(state, event) is TABLE[state, event]


@pytest.mark.parametrize(("state", "event"), [pair for pair in PAIRS if pair not in TABLE])
def test_illegal_pairs_raise(state, event):
    """Every pair that is not in the table is refused by name."""
    with pytest.raises(LongshoreError) as refused:
        after(state, event)
    assert refused.value.code == "ILLEGAL_STATE"


def test_a_failed_reload_keeps_the_old_version_ready():
    """FAILED means that nothing serves; a RELOAD that failed is not that."""
    assert after(ModelState.RELOADING, Event.KEPT) is ModelState.READY


def test_every_state_is_reached_and_left():
    """The table has no dead end and no state that is never entered but the first."""
    assert {state for state, _ in TABLE} == set(ModelState)
    assert set(TABLE.values()) == set(ModelState)
