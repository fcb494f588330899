"""The stories of tests/scenarios, played: text in, text out (PRD §7.1 to §7.4, §5.3)."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML
from story_player import Player

SCENARIOS = Path(__file__).parent.parent / "scenarios"
STORIES = sorted(SCENARIOS.rglob("*.yaml"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: str(path.relative_to(SCENARIOS).with_suffix("")))
def test_story(path):
    """Every event of the story is answered and planned as it is told, and nothing happens that is not told."""
    story = YAML(typ="safe", pure=True).load(path.read_text())
    player = Player(story)
    for event in story["events"]:
        expected = {what: event[what] for what in ("said", "plan") if what in event}
        assert player.play(event) == expected, event.get("push", event.get("then"))
    assert player.is_at_rest(), "something happens after the end of the story"
