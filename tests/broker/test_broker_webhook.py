"""The webhook: every host's own way of signing, and what is refused (FAULTS 1 to 3, 11, 12)."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from structlog.testing import capture_logs
from webhook_door import (
    BITBUCKET_CLOUD,
    BITBUCKET_DATA_CENTER,
    GITEA,
    GITHUB,
    GITLAB,
    HEAD,
    SECRET,
    Door,
    digest,
    standard,
)

from longshore.broker.deliveries import MAX_BODY

SIGNING_TOKEN = b"whsec_" + base64.b64encode(b"k" * 32)


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
    """Each host's payload and signature scheme is taken, answered at once, and says which commit to wait for."""
    payload, headers = deliveries()[name]
    answer = door.post(json.dumps(payload).encode(), **headers)
    assert (answer.status_code, answer.json(), door.heads) == (202, {"status": "accepted"}, [HEAD])
    assert door.counted() == {"accepted": 1}


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
    door, body = Door(b"hush-new", b"hush-old"), json.dumps(GITHUB).encode()
    with capture_logs() as logs:
        for secret in (b"hush-new", b"hush-old"):
            signature = f"sha256={digest(body, secret)}"
            assert door.post(body, x_github_event="push", x_hub_signature_256=signature).status_code == 202
    assert [entry["secret"] for entry in logs] == ["current", "before"]
    assert "hush" not in str(logs)
    assert door.hints == 2


def test_a_secret_may_hold_any_character() -> None:
    """GitLab's older scheme sends the secret as it is, beyond ASCII too."""
    door = Door("gehäm".encode())
    token = {"x_gitlab_event": "Push Hook", "x_gitlab_token": "gehäm".encode()}
    assert door.post(json.dumps(GITLAB).encode(), **token).status_code == 202


def test_an_unsigned_delivery_is_refused(door: Door) -> None:
    """No signature at all has a code of its own, and a remedy."""
    answer = door.post(json.dumps(GITHUB).encode(), x_github_event="push")
    assert (answer.status_code, answer.json()["code"]) == (401, "WEBHOOK_UNSIGNED")
    assert "secret" in answer.json()["remedy"]
    assert door.counted() == {"WEBHOOK_UNSIGNED": 1}


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"x-github-event": "push"}, 401, "WEBHOOK_UNSIGNED"),
        ({"x-gitlab-token": "any", "content-length": str(100 * 1024 * 1024)}, 413, "WEBHOOK_TOO_LARGE"),
        ({"x-gitlab-token": "any", "content-length": "9" * 5000}, 413, "WEBHOOK_TOO_LARGE"),
        ({"x-gitlab-token": "any", "content-encoding": "gzip"}, 400, "WEBHOOK_BAD_JSON"),
    ],
)
async def test_what_its_headers_condemn_is_not_read(headers: dict[str, str], status: int, code: str) -> None:
    """Not one byte of the body is asked for, and the connection ends with the answer (FAULTS 1, 11)."""
    sent = await exchange(Door(SECRET), headers)
    assert (sent[0]["status"], json.loads(sent[1]["body"])["code"]) == (status, code)
    assert (b"connection", b"close") in sent[0]["headers"]


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
    sent = await exchange(
        Door(SECRET, body_seconds=0.05), {"x-gitlab-token": "any"}, {"type": "http.request", "more_body": True}
    )
    assert (sent[0]["status"], json.loads(sent[1]["body"])["code"]) == (408, "WEBHOOK_TOO_SLOW")


async def test_a_sender_may_hang_up() -> None:
    """A connection that ends within the body is no defect of ours: it is counted like one that is too slow."""
    door = Door(SECRET)
    await exchange(door, {"x-gitlab-token": "any"}, {"type": "http.disconnect"})
    assert door.counted() == {"WEBHOOK_TOO_SLOW": 1}


async def exchange(door: Door, headers: dict[str, str], *arriving: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the application sends to one delivery, of whose body no more than `arriving` ever comes."""
    incoming = list(arriving)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        assert arriving, "the body was asked for"
        return incoming.pop(0) if incoming else await asyncio.Event().wait()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/webhooks/git",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    async with asyncio.timeout(20):
        await door.app(scope, receive, send)
    return sent


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


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"a":' * 40 + b"1" + b"}" * 40,
        b'{"ref": "refs/heads/main", "ref": "refs/heads/other"}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"a": NaN}',
        b'{"a": [-Infinity]}',
        b'{"a": ' + b"9" * 5_000 + b"}",
        b"\xff\xfe",
        '{"ref": "refs/heads/main"}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
    ],
    ids=range(13),
)
def test_what_is_no_plain_json_object_is_refused(door: Door, body: bytes) -> None:
    """A proven sender with a body that cannot be read, or read in two ways: 400, and no hint (FAULTS 12)."""
    answer = door.post(body, x_gitlab_event="Push Hook", x_gitlab_token=SECRET.decode())
    assert (answer.status_code, answer.json()["code"], door.hints) == (400, "WEBHOOK_BAD_JSON", 0)


def test_two_payloads_in_one_form_are_refused(door: Door) -> None:
    """Nobody can say which of the two is meant."""
    body = urlencode([("payload", "{}"), ("payload", json.dumps(GITHUB))]).encode()
    answer = door.post(
        body,
        x_github_event="push",
        x_hub_signature_256=f"sha256={digest(body)}",
        content_type="application/x-www-form-urlencoded",
    )
    assert (answer.status_code, answer.json()["code"], door.hints) == (400, "WEBHOOK_BAD_JSON", 0)


def test_health(door: Door) -> None:
    """A load balancer may ask without a signature."""
    assert door.client.get("/healthz").json() == {"status": "ok"}
