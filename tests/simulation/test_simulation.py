"""A thousand histories of pushes, faults and repairs, played by the real planner and the real workflow decisions."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.world import play

SEEDS = 1000
CHUNK = 50


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_whatever_goes_wrong_the_fleet_becomes_what_git_wants_or_says_why_not(first):
    """No plan breaks a rule, nothing that serves goes too early, every commit is answered, and all comes to rest."""
    broken = []
    for seed in range(first, first + CHUNK):
        try:
            play(seed)
        except Exception as error:  # noqa: BLE001 (whatever it is: without its seed it says nothing)
            broken.append(f"seed {seed}: {type(error).__name__}: {error}\n  python -m tests.simulation {seed}")
    assert not broken, "\n".join(broken)


def test_a_seed_is_the_same_history_each_time():
    """What a seed has shown can be looked at again: also in another process, whose hashes differ."""
    command = [sys.executable, "-m", "tests.simulation", "7"]
    root = Path(__file__).parents[2]
    shown = [
        subprocess.run(
            command, capture_output=True, text=True, cwd=root, env={"PYTHONHASHSEED": number}, check=True
        ).stdout
        for number in ("1", "2")
    ]
    assert shown[0] == shown[1]
    assert shown[0].count("\n") > 10


def test_what_may_happen_does_happen():
    """The histories are not too tame to prove anything: each mechanism is at work in some of them."""
    seen = Counter()
    for seed in range(120):
        for _, who, what in play(seed).clock.trace:
            seen.update(word for word in _SEEN if word in (f"{who} {what}"))
    assert set(_SEEN) <= seen.keys(), f"never seen: {sorted(set(_SEEN) - seen.keys())}"


_SEEN = (
    "(evicted for",
    " after ",
    " anew (",
    "carried on",
    "later UNLOAD",
    "later RELOAD",
    "lost worker",
    "adopts ",
    "suspects pool",
    "fenced: ",
    "refuses ",
    "superseded by",
    "starts the fleet anew",
    "no rollout sees to",
    "lost: ",
    "outdated",
    "ABORTED",
    "has crashed for good",
)
