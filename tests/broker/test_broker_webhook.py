"""The webhook: every host's own way of signing, what is refused, and what is none of our business (FAULTS 1 to 16)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from longshore.broker.deliveries import MAX_BODY
from longshore.broker.settings import ControlSettings
from longshore.broker.webhook import DELIVERIES_REMEMBERED, Webhook, webhook_app
from longshore.schemas.failures import LongshoreError
from longshore.telemetry.metrics import BrokerMetrics

SECRET = b"a secret of the tests"
HEAD = "1" * 40
SIGNING_TOKEN = b"whsec_" + base64.b64encode(b"k" * 32)

# The shapes of real push deliveries, cut down to what tells them apart.
GITHUB = {
    "ref": "refs/heads/main",
    "before": "0" * 40,
    "after": HEAD,
    "repository": {"full_name": "ops/model-registry", "clone_url": "https://git.example/ops/model-registry.git"},
    "pusher": {"name": "olga"},
    "commits": [],
}
GITLAB = {
    "object_kind": "push",
    "event_name": "push",
    "ref": "refs/heads/main",
    "after": HEAD,
    "checkout_sha": HEAD,
    "project": {
        "path_with_namespace": "ops/model-registry",
        "git_http_url": "https://git.example/ops/model-registry.git",
    },
}
GITEA = {
    "ref": "refs/heads/main",
    "after": HEAD,
    "repository": {"clone_url": "https://git.example/ops/model-registry.git"},
}
BITBUCKET_CLOUD = {
    "push": {"changes": [{"new": {"type": "branch", "name": "main", "target": {"hash": HEAD}}, "old": None}]},
    "repository": {"full_name": "ops/model-registry"},
}
BITBUCKET_DATA_CENTER = {
    "eventKey": "repo:refs_changed",
    "repository": {"slug": "model-registry", "project": {"key": "OPS"}},
    "changes": [{"ref": {"id": "refs/heads/main", "displayId": "main", "type": "BRANCH"}, "toHash": HEAD}],
}


def digest(body: bytes, secret: bytes = SECRET) -> str:
    return hmac.new(secret, body, hashlib.sha256).hexdigest()


def standard(body: bytes, key: bytes, identity: str = "msg-1", timestamp: str = "1795326397") -> dict[str, str]:
    """The headers of Standard Webhooks, as GitLab sends them with a signing token."""
    signed = f"{identity}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {"webhook-id": identity, "webhook-timestamp": timestamp, "webhook-signature": f"v1,{signature}"}


async def temporal_answers() -> None:
    """Raise nothing."""


async def temporal_is_away() -> None:
    raise LongshoreError("TEMPORAL_UNAVAILABLE", "connection refused")


class Door:
    """The application with its hints kept."""

    def __init__(
        self,
        *secrets: bytes,
        temporal: Callable[[], Awaitable[None]] = temporal_answers,
        body_seconds: float = 20,
    ) -> None:
        current, before = (*(secret.decode() for secret in secrets), None, None)[:2]
        settings = ControlSettings(
            registry="https://git.example/ops/model-registry.git", webhook_secret=current, webhook_secret_before=before
        )
        self.heads: list[str | None] = []
        self.temporal = temporal
        metrics = BrokerMetrics()
        self.webhook = Webhook(settings, self.heads.append, self._require_temporal, metrics, body_seconds=body_seconds)
        self.app = webhook_app(self.webhook, metrics)
        self.client = TestClient(self.app)

    async def _require_temporal(self) -> None:
        await self.temporal()

    @property
    def hints(self) -> int:
        return len(self.heads)

    def post(self, body: bytes, **headers: str | bytes) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post("/webhooks/git", content=body, headers=named)

    def push(self, payload: dict[str, Any] = GITHUB, **headers: str) -> Any:
        """Deliver a signed push as GitHub does."""
        body = json.dumps(payload).encode()
        return self.post(body, **{"x_github_event": "push", **headers}, x_hub_signature_256=f"sha256={digest(body)}")

    def counted(self) -> dict[str, float]:
        """What `GET /metrics` says of deliveries, by outcome."""
        families = text_string_to_metric_families(self.client.get("/metrics").text)
        return {
            sample.labels["outcome"]: sample.value
            for family in families
            for sample in family.samples
            if sample.name == "broker_webhook_deliveries_total"
        }


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


def test_health(door: Door) -> None:
    """A load balancer may ask without a signature."""
    assert door.client.get("/healthz").json() == {"status": "ok"}
