"""The sentences about a rollout's end: what is lacking, and why."""

from __future__ import annotations

import pytest

from longshore.schemas.plans import DeploymentPlan, Rejection
from longshore.schemas.rollouts import RolloutAnswer, RolloutOutcome
from longshore.workflows.stories import answer_message


@pytest.mark.parametrize(
    ("unplaced", "given_up", "said"),
    [
        (2, 0, "2 of 3 replicas found no device (w: why)"),
        (2, 2, "2 of 3 replicas cannot run 1.3.0: given up (w: why)"),
        (2, 1, "1 of 3 replicas found no device; 1 of 3 replicas cannot run 1.3.0: given up (w: why)"),
    ],
)
def test_what_is_lacking_is_told_as_what_it_is(unplaced, given_up, said):
    """Room helps one that has no place, and not a version that fails where it is."""
    plan = DeploymentPlan(
        deployment_id="m",
        generation=7,
        version="1.3.0",
        digest="d",
        replicas=3,
        changes=(),
        commands=(),
        unplaced=unplaced,
        given_up=given_up,
        rejections=(Rejection(worker_id="w", reasons=("why",)),),
    )
    answer = RolloutAnswer(
        deployment_id="m", generation=7, sha="a" * 40, outcome=RolloutOutcome.INCOMPLETE, version="1.3.0"
    )
    assert answer_message(plan, answer) == said
