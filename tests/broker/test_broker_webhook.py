"""The webhook: every host's own way of signing, what is refused, and what is none of our business."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.testclient import TestClient

from longshore.broker.webhook import MAX_BODY, webhook_app

SECRET = b"a secret of the tests"
SIGNING_TOKEN = b"whsec_" + base64.b64encode(b"k" * 32)

# The shapes of real push deliveries, cut down to what tells them apart.
GITHUB = {
    "ref": "refs/heads/main",
    "before": "0" * 40,
    "after": "1" * 40,
    "repository": {"full_name": "ops/model-registry", "clone_url": "https://git.example/ops/model-registry.git"},
    "pusher": {"name": "olga"},
    "commits": [],
}
GITLAB = {
    "object_kind": "push",
    "event_name": "push",
    "ref": "refs/heads/main",
    "checkout_sha": "1" * 40,
    "project": {"git_http_url": "https://git.example/ops/model-registry.git"},
}
GITEA = {
    "ref": "refs/heads/main",
    "after": "1" * 40,
    "repository": {"clone_url": "https://git.example/ops/model-registry.git"},
}
BITBUCKET_CLOUD = {
    "push": {"changes": [{"new": {"type": "branch", "name": "main", "target": {"hash": "1" * 40}}, "old": None}]},
    "repository": {"full_name": "ops/model-registry"},
}
BITBUCKET_DATA_CENTER = {
    "eventKey": "repo:refs_changed",
    "changes": [{"ref": {"id": "refs/heads/main", "displayId": "main", "type": "BRANCH"}, "toHash": "1" * 40}],
}


def digest(body: bytes, secret: bytes = SECRET) -> str:
    return hmac.new(secret, body, hashlib.sha256).hexdigest()


def standard(body: bytes, key: bytes, identity: str = "msg-1", timestamp: str = "1795326397") -> dict[str, str]:
    """The headers of Standard Webhooks, as GitLab sends them with a signing token."""
    signed = f"{identity}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {"webhook-id": identity, "webhook-timestamp": timestamp, "webhook-signature": f"v1,{signature}"}


class Door:
    """The application with its hints counted."""

    def __init__(self, *secrets: bytes) -> None:
        self.hints = 0
        self.client = TestClient(webhook_app("main", secrets, self._hint))

    def _hint(self) -> None:
        self.hints += 1

    def post(self, body: bytes, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post("/webhooks/git", content=body, headers=named)


@pytest.fixture
def door() -> Door:
    return Door(SECRET)


def deliveries() -> dict[str, tuple[dict[str, Any], dict[str, str]]]:
    """A signed delivery of every host: payload and headers."""
    made = {}
    for name, payload, event, header, form in [
        ("github", GITHUB, {"x-github-event": "push"}, "x-hub-signature-256", "sha256={}"),
        ("gitea", GITEA, {"x-gitea-event": "push"}, "x-gitea-signature", "{}"),
        (
            "gitea as github",
            GITEA,
            {"x-gitea-event": "push", "x-github-event": "push"},
            "x-hub-signature-256",
            "sha256={}",
        ),
        ("forgejo", GITEA, {"x-forgejo-event": "push"}, "x-forgejo-signature", "{}"),
        ("bitbucket cloud", BITBUCKET_CLOUD, {"x-event-key": "repo:push"}, "x-hub-signature", "sha256={}"),
        ("bitbucket", BITBUCKET_DATA_CENTER, {"x-event-key": "repo:refs_changed"}, "x-hub-signature", "sha256={}"),
    ]:
        body = json.dumps(payload).encode()
        made[name] = (payload, {**event, header: form.format(digest(body))})
    made["gitlab"] = (GITLAB, {"x-gitlab-event": "Push Hook", "x-gitlab-token": SECRET.decode()})
    body = json.dumps(GITLAB).encode()
    made["gitlab signed"] = (GITLAB, {"x-gitlab-event": "Push Hook", **standard(body, SECRET)})
    return made


@pytest.mark.parametrize("name", deliveries())
def test_a_push_of_every_host_is_a_hint(door: Door, name: str) -> None:
    """Each host's payload and signature scheme is taken, and answered at once."""
    payload, headers = deliveries()[name]
    answer = door.post(json.dumps(payload).encode(), **headers)
    assert (answer.status_code, door.hints) == (202, 1), answer.text


@pytest.mark.parametrize("name", deliveries())
def test_another_secret_is_refused(name: str) -> None:
    """The same delivery at a broker that has another secret: 401 with our code, and no hint."""
    door = Door(b"another secret")
    payload, headers = deliveries()[name]
    answer = door.post(json.dumps(payload).encode(), **headers)
    assert (answer.status_code, answer.json()["code"], door.hints) == (401, "WEBHOOK_BAD_SIGNATURE", 0)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("name", [name for name in deliveries() if name != "gitlab"])
def test_a_changed_body_is_refused(door: Door, name: str) -> None:
    """One byte more in the body and the signature no longer fits (GitLab's plain token signs no body)."""
    payload, headers = deliveries()[name]
    answer = door.post(json.dumps(payload).encode() + b" ", **headers)
    assert (answer.status_code, door.hints) == (401, 0)


def test_a_gitlab_signing_token_is_its_key_in_base64() -> None:
    """`whsec_…` stands for the bytes behind it, and one of several signatures is enough."""
    door, body = Door(SIGNING_TOKEN), json.dumps(GITLAB).encode()
    headers = standard(body, b"k" * 32)
    headers["webhook-signature"] = f"v1,bm90IGl0 {headers['webhook-signature']} v2,unknown"
    assert door.post(body, **{"x-gitlab-event": "Push Hook"}, **headers).status_code == 202


def test_the_secret_before_is_accepted_while_it_is_replaced() -> None:
    """Two active secrets during a rotation: deliveries signed with either are taken."""
    door, body = Door(b"new", b"old"), json.dumps(GITHUB).encode()
    for secret in (b"new", b"old"):
        signature = f"sha256={digest(body, secret)}"
        assert door.post(body, x_github_event="push", x_hub_signature_256=signature).status_code == 202
    assert door.hints == 2


def test_an_unsigned_delivery_is_refused(door: Door) -> None:
    """No signature at all has a code of its own, and a remedy."""
    answer = door.post(json.dumps(GITHUB).encode(), x_github_event="push")
    assert (answer.status_code, answer.json()["code"]) == (401, "WEBHOOK_UNSIGNED")
    assert "secret" in answer.json()["remedy"]


def test_a_broker_without_a_secret_believes_nobody() -> None:
    """An empty secret must not be one that everybody knows."""
    door, body = Door(), json.dumps(GITHUB).encode()
    signature = f"sha256={digest(body, b'')}"
    assert door.post(body, x_github_event="push", x_hub_signature_256=signature).status_code == 401


def test_a_bad_signature_is_not_rescued_by_another(door: Door) -> None:
    """A forged strong header beside a replayed weak one is still a forgery."""
    answer = door.post(
        json.dumps(GITHUB).encode(),
        x_github_event="push",
        x_hub_signature_256="sha256=00",
        x_gitlab_token=SECRET.decode(),
    )
    assert answer.status_code == 401


@pytest.mark.parametrize("way", ["announced", "in chunks"])
def test_a_large_body_is_refused(door: Door, way: str) -> None:
    """413, whether the length is announced or comes in chunks without end."""
    body = b"x" * (MAX_BODY + 1)
    content = body if way == "announced" else iter([body[:MAX_BODY], body[MAX_BODY:]])
    answer = door.client.post("/webhooks/git", content=content, headers={"x-gitlab-token": SECRET.decode()})
    assert (answer.status_code, answer.json()["code"]) == (413, "WEBHOOK_TOO_LARGE")


async def test_a_body_that_does_not_arrive_is_given_up() -> None:
    """408 after a while: a sender who says nothing more holds no connection for ever (FAULTS 11)."""
    arriving: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    arriving.put_nowait({"type": "http.request", "body": b"{", "more_body": True})
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/webhooks/git", "query_string": b"", "headers": []}
    async with asyncio.timeout(20):
        await webhook_app("main", (SECRET,), lambda: None, body_seconds=0.05)(scope, arriving.get, send)
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["code"] == "WEBHOOK_TOO_SLOW"


@pytest.mark.parametrize(("event", "hints"), [("push", 1), ("ping", 0)])
def test_github_may_send_its_payload_as_a_form(door: Door, event: str, hints: int) -> None:
    """That is the default content type of a GitHub webhook; the signature covers the form as it was sent."""
    body = urlencode({"payload": json.dumps(GITHUB)}).encode()
    headers = {"x-github-event": event, "x-hub-signature-256": f"sha256={digest(body)}"}
    answer = door.post(body, content_type="application/x-www-form-urlencoded", **headers)
    assert (answer.status_code, door.hints) == (202, hints)


def test_a_form_without_a_payload_is_refused(door: Door) -> None:
    """400, like any other body that holds no JSON."""
    body = b"other=1"
    headers = {"x-github-event": "push", "x-hub-signature-256": f"sha256={digest(body)}"}
    answer = door.post(body, content_type="application/x-www-form-urlencoded", **headers)
    assert (answer.status_code, answer.json()["code"], door.hints) == (400, "WEBHOOK_BAD_JSON", 0)


@pytest.mark.parametrize("body", [b"{", b"[]", b"[" * 100_000, b"\xff\xfe"])
def test_what_is_no_json_object_is_refused(door: Door, body: bytes) -> None:
    """A proven sender with a body that cannot be read: 400, and no hint."""
    answer = door.post(body, x_gitlab_event="Push Hook", x_gitlab_token=SECRET.decode())
    assert (answer.status_code, answer.json()["code"], door.hints) == (400, "WEBHOOK_BAD_JSON", 0)


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        ({"x-github-event": "ping"}, {"zen": "Keep it logically awesome."}),
        ({"x-github-event": "push"}, {**GITHUB, "ref": "refs/heads/feature"}),
        ({"x-github-event": "push"}, {**GITHUB, "ref": "refs/tags/v1.0.0"}),
        ({"x-github-event": "push"}, {"ref": 7}),
        ({"x-event-key": "repo:push"}, {"push": {"changes": [{"new": None}, 3]}}),
        ({"x-gitlab-event": "Tag Push Hook"}, {**GITLAB, "ref": "refs/tags/v1.0.0"}),
        ({}, GITHUB),
    ],
)
def test_what_is_not_ours_is_ignored(door: Door, event: dict[str, str], payload: dict[str, Any]) -> None:
    """Another event or branch is answered 202, so that the host shows no failure, and starts nothing."""
    body = json.dumps(payload).encode()
    answer = door.post(body, **event, x_hub_signature_256=f"sha256={digest(body)}")
    assert (answer.status_code, answer.json()["status"], door.hints) == (202, "ignored", 0)


def test_health(door: Door) -> None:
    """A load balancer may ask without a signature."""
    assert door.client.get("/healthz").json() == {"status": "ok"}
