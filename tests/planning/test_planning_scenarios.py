"""The stories of tests/scenarios, played: text in, text out (PRD §7.1 to §7.4)."""

from pathlib import Path

import pytest
from fleets import Wanted, answered, device, observed, registry, worker
from ruamel.yaml import YAML

from longshore.planning.check import check
from longshore.planning.plan import make_plan
from longshore.planning.render import render
from longshore.schemas.devices import Health
from longshore.schemas.ledger import reserve

STORIES = sorted((Path(__file__).parent.parent / "scenarios").glob("*.yaml"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path):
    """Every commit of the story is planned as it is told."""
    story = YAML(typ="safe", pure=True).load(path.read_text())
    workers = [worker(name, **(facts or {})) for name, facts in story["workers"].items()]
    slots, generation, devices = (), 0, {}
    for number, commit in enumerate(story["commits"], start=1):
        for name, health in commit.get("health", {}).items():
            devices |= device(name, Health(health))
        wanted = [Wanted(name, **facts) for name, facts in commit["wanted"].items()]
        asked = observed(slots, devices, generation=generation)
        desired = registry(workers, *wanted, sha=f"{number:040x}"[::-1])
        plan = make_plan(asked, desired)
        assert check(plan, asked, desired) == []
        assert render(plan) == commit["plan"], commit["push"]
        generation = plan.generation
        answers = commit.get("answers", "all")
        slots = (
            reserve(slots, plan) if answers == "none" else answered(slots, plan, {} if answers == "all" else answers)
        )
