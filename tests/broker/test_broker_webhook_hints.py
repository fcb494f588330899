"""What a believed delivery leads to: a hint, once, or nothing and why (FAULTS 4, 6, 13 to 15)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest
from webhook_door import GITHUB, GITLAB, HEAD, SECRET, Door, digest, standard, temporal_answers, temporal_is_away

from longshore.broker.webhook import DELIVERIES_REMEMBERED


@pytest.fixture
def door() -> Door:
    return Door(SECRET)


GONE = "0" * 40
DELETED_IN_CLOUD = {"push": {"changes": [{"new": None, "old": {"type": "branch", "name": "main"}}]}}
DELETED_IN_DATA_CENTER = {"changes": [{"ref": {"id": "refs/heads/main"}, "toHash": GONE, "type": "DELETE"}]}


@pytest.mark.parametrize(
    ("event", "payload", "reason"),
    [
        ({"x-github-event": "ping"}, {"zen": "Keep it logically awesome."}, "not a push: 'ping'"),
        ({"x-github-event": "push"}, {**GITHUB, "ref": "refs/heads/feature"}, "not a push to main: 'feature'"),
        ({"x-github-event": "push"}, {**GITHUB, "ref": "refs/heads/\ud800\n"}, r"not a push to main: '\ud800\n'"),
        ({"x-github-event": "push"}, {**GITHUB, "ref": "refs/tags/v1.0.0"}, "no branch is named"),
        ({"x-github-event": "push"}, {"ref": 7}, "no branch is named"),
        ({"x-event-key": "repo:push"}, {"push": {"changes": [{"new": None}, 3]}}, "no branch is named"),
        ({"x-gitlab-event": "Tag Push Hook"}, {**GITLAB, "ref": "refs/tags/v1.0.0"}, "not a push: 'Tag Push Hook'"),
        ({}, GITHUB, "no event is named"),
        ({"x-github-event": "push"}, {**GITHUB, "after": GONE, "deleted": True}, "the branch main was deleted"),
        ({"x-event-key": "repo:push"}, DELETED_IN_CLOUD, "the branch main was deleted"),
        ({"x-event-key": "repo:refs_changed"}, DELETED_IN_DATA_CENTER, "the branch main was deleted"),
        (
            {"x-github-event": "push"},
            {**GITHUB, "repository": {"full_name": "ops/other"}},
            "the repository 'ops/other'",
        ),
    ],
)
def test_what_is_not_ours_is_ignored(door: Door, event: dict[str, str], payload: dict[str, Any], reason: str) -> None:
    """Another event, branch or repository: 202, so that the host shows no failure, and nothing is started."""
    body = json.dumps(payload).encode()
    answer = door.post(body, **event, x_hub_signature_256=f"sha256={digest(body)}")
    assert (answer.status_code, answer.json()["status"], door.hints) == (202, "ignored", 0)
    assert answer.json()["code"] == "WEBHOOK_IGNORED"
    assert reason in answer.json()["reason"]
    assert door.counted() == {"WEBHOOK_IGNORED": 1}


def test_the_payloads_urls_are_not_followed(door: Door) -> None:
    """The broker is given a commit id to wait for and nothing else: where to look is its own setting (FAULTS 14)."""
    elsewhere = {"full_name": "ops/model-registry", "clone_url": "https://evil.example/ops/model-registry.git"}
    assert door.push({**GITHUB, "repository": elsewhere}).status_code == 202
    assert door.heads == [HEAD]


@pytest.mark.parametrize("after", [None, 7, "main", "--upload-pack=x", HEAD[:10], HEAD + "\n", "\uff11" * 40])
def test_only_a_full_commit_id_is_awaited(door: Door, after: object) -> None:
    """Whatever else the payload calls the new head, the branch is looked at all the same."""
    assert door.push({**GITHUB, "after": after}).status_code == 202
    assert door.heads == [None]


DELIVERY_IDS = [
    "webhook-id",
    "idempotency-key",
    "x-github-delivery",
    "x-gitea-delivery",
    "x-forgejo-delivery",
    "x-gitlab-event-uuid",
    "x-request-uuid",
    "x-request-id",
]


@pytest.mark.parametrize("header", DELIVERY_IDS)
def test_a_replay_starts_nothing(door: Door, header: str) -> None:
    """Each host's delivery id is remembered: 200 the second time, said as it is, and no hint (FAULTS 4)."""
    assert door.push(**{header: "f6266f16"}).status_code == 202
    again = door.push(**{header: "f6266f16"})
    assert (again.status_code, again.json()["status"], again.json()["code"]) == (200, "ignored", "WEBHOOK_REPLAY")
    assert door.push(**{header: "another"}).status_code == 202
    assert (door.hints, door.counted()) == (2, {"accepted": 2, "WEBHOOK_REPLAY": 1})


def test_gitlabs_signed_id_is_the_one_that_counts(door: Door) -> None:
    """A replay with another unsigned id beside the signed one is still a replay."""
    body = json.dumps(GITLAB).encode()
    headers = {"x-gitlab-event": "Push Hook", **standard(body, SECRET)}
    statuses = [door.post(body, **headers, x_gitlab_event_uuid=event).status_code for event in ("one", "other")]
    assert (statuses, door.hints) == ([202, 200], 1)


def test_only_what_was_taken_is_remembered(door: Door) -> None:
    """A delivery that was refused or not ours may come again under its id."""
    forged = json.dumps(GITHUB).encode()
    door.post(forged, x_github_event="push", x_github_delivery="1", x_hub_signature_256="sha256=00")
    door.push({**GITHUB, "ref": "refs/heads/other"}, x_github_delivery="1")
    assert door.push(x_github_delivery="1").status_code == 202


def test_the_memory_of_deliveries_is_bounded(door: Door) -> None:
    """The oldest id is forgotten; a replay of it is a hint like any other."""
    door.push(x_github_delivery="oldest")
    door.webhook._taken.update((str(number), None) for number in range(DELIVERIES_REMEMBERED - 1))
    door.push(x_github_delivery="newest")
    assert len(door.webhook._taken) == DELIVERIES_REMEMBERED
    assert [door.push(x_github_delivery=name).status_code for name in ("newest", "oldest")] == [200, 202]


async def test_a_hundred_copies_at_once_are_one_hint() -> None:
    """However they interleave, one of them is the first (FAULTS 6)."""
    held = asyncio.Event()
    door = Door(SECRET, temporal=lambda: asyncio.wait_for(held.wait(), 20))
    body = json.dumps(GITHUB).encode()
    headers = {
        "x-github-event": "push",
        "x-github-delivery": "one",
        "x-hub-signature-256": f"sha256={digest(body)}",
    }
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(door.app), base_url="http://broker") as client:
        copies = [asyncio.create_task(client.post("/webhooks/git", content=body, headers=headers)) for _ in range(100)]
        for _ in range(100):
            await asyncio.sleep(0)
        held.set()
        statuses = sorted([(await copy).status_code for copy in copies])
    assert (statuses, door.heads) == ([200] * 99 + [202], [HEAD])


def test_a_push_while_temporal_is_away_fails_visibly() -> None:
    """503: the host shows a failed delivery, and the same delivery is taken once Temporal is back (FAULTS 15)."""
    door = Door(SECRET, temporal=temporal_is_away)
    answer = door.push(x_github_delivery="1")
    assert (answer.status_code, answer.json()["code"], door.hints) == (503, "TEMPORAL_UNAVAILABLE", 0)
    assert int(answer.headers["retry-after"]) > 0
    door.temporal = temporal_answers
    assert (door.push(x_github_delivery="1").status_code, door.hints) == (202, 1)
    assert door.counted() == {"TEMPORAL_UNAVAILABLE": 1, "accepted": 1}


def test_what_is_not_ours_needs_no_temporal() -> None:
    """A hook for another branch shows no failure because of our troubles."""
    assert Door(SECRET, temporal=temporal_is_away).push({**GITHUB, "ref": "refs/heads/x"}).status_code == 202
