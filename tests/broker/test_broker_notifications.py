"""Notifications through the real apprise, to a real HTTP endpoint."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest
from http_endpoint import Answer, Asked, Endpoint, endpoint
from pydantic import SecretStr
from structlog.testing import capture_logs

from longshore.broker import notifications
from longshore.broker.commit_status import WebUI
from longshore.broker.notifications import Notifications
from longshore.broker.settings import BrokerSettings
from longshore.schemas.failures import LongshoreError
from longshore.schemas.issues import Audience
from longshore.schemas.telling import Delivery, Notice, NotifyRequest

SHA = "6dcb09b5b57875f334f61aebed695e2e4193db5e"
NOTICE = Notice(title="Longshore: commit 6dcb09b5b5 of ops: rejected", body="rejected: 1 error\n- a.yaml:5 …")


@pytest.fixture
def service() -> Iterator[Endpoint]:
    with endpoint() as server:
        yield server


def channels(*urls: str, ui: str | None = None) -> Notifications:
    return Notifications({Audience.OPS: [SecretStr(url) for url in urls]}, WebUI(ui, "default"))


def to(channel: int = 0, audience: Audience = Audience.OPS) -> NotifyRequest:
    return NotifyRequest(registry="ops", sha=SHA, audience=audience, channel=channel, notice=NOTICE)


async def test_a_channel_gets_the_notice_as_it_is(service: Endpoint) -> None:
    """Title, text and a link to the whole story."""
    sender = channels(f"json://127.0.0.1:{service.port}/hook", ui="https://temporal.example")
    assert await sender.send(to()) is Delivery.TOLD
    (asked,) = service.asked
    assert asked.path == "/hook"
    assert asked.body["title"] == NOTICE.title
    assert asked.body["type"] == "failure"
    link = f"https://temporal.example/namespaces/default/workflows/registry-commit%3Aops%3A{SHA}"
    assert asked.body["message"] == f"{NOTICE.body}\n\n{link}"


async def test_what_is_about_no_commit_has_no_link(service: Endpoint) -> None:
    """It would lead nowhere; the notice names the workflow."""
    sender = channels(f"json://127.0.0.1:{service.port}/hook", ui="https://temporal.example")
    assert await sender.send(to().model_copy(update={"sha": ""})) is Delivery.TOLD
    assert service.asked[0].body["message"] == NOTICE.body


async def test_only_the_channel_that_is_named_is_told(service: Endpoint) -> None:
    """Each is an activity of its own: one that fails does not repeat the others."""
    sender = channels(*(f"json://127.0.0.1:{service.port}/{name}" for name in ("first", "second")))
    await sender.send(to(1))
    assert [asked.path for asked in service.asked] == ["/second"]


async def test_a_refusal_certainly_told_nobody(service: Endpoint) -> None:
    """It may be tried again; what is said names the channel by its place, not by its address."""
    service.answer = lambda _: Answer(500)
    with pytest.raises(LongshoreError) as failed:
        await channels(f"json://olga:hunter2@127.0.0.1:{service.port}/hook").send(to())
    assert failed.value.code == "CHANNEL_FAILED"
    assert failed.value.failure.kind.retriable
    assert str(failed.value) == "CHANNEL_FAILED: notify_ops, URL 1 (JSON) did not take the notification"


async def test_nobody_there_certainly_told_nobody() -> None:
    """A connection that is refused may be tried again."""
    with endpoint() as gone:
        port = gone.port
    with pytest.raises(LongshoreError, match="CHANNEL_FAILED"):
        await channels(f"json://127.0.0.1:{port}/hook").send(to())


async def test_an_answer_that_never_came_may_have_told(service: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service has the notice, though apprise says that it failed: it is not sent again."""
    monkeypatch.setattr(notifications, "READ_SECONDS", 0.2)

    def slow(_: Asked) -> Answer:
        time.sleep(0.6)
        return Answer()

    service.answer = slow
    assert await channels(f"json://127.0.0.1:{service.port}/hook?rto=0.2").send(to()) is Delivery.PERHAPS


@pytest.mark.parametrize("url", ["nonsense", "carrierpigeon://loft/1", "", "json://a json://b"])
async def test_a_url_that_apprise_does_not_know_is_final(url: str) -> None:
    """CHANNEL_UNUSABLE, without the URL in it: it may hold a token."""
    with pytest.raises(LongshoreError) as failed:
        await channels(url).send(to())
    assert failed.value.code == "CHANNEL_UNUSABLE"
    assert not failed.value.failure.kind.retriable
    assert url not in str(failed.value) or not url


async def test_a_channel_that_is_no_longer_set_is_said(service: Endpoint) -> None:
    """The settings of a broker may have changed since the commit began."""
    with pytest.raises(LongshoreError, match="CHANNEL_UNUSABLE: notify_ml, URL 1 is no longer set"):
        await channels(f"json://127.0.0.1:{service.port}").send(to(audience=Audience.ML))


async def test_without_apprise_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker serves without it, and says at its start what is missing."""
    monkeypatch.setitem(sys.modules, "apprise", None)
    sender = channels("json://127.0.0.1:1/")
    with pytest.raises(LongshoreError, match=r"CHANNEL_UNUSABLE.*longshore\[notify\]"):
        await sender.send(to())
    with capture_logs() as logs:
        sender.check()
    assert [entry["event"] for entry in logs] == ["notification_channel_unusable"]


def test_a_check_tells_nobody(service: Endpoint) -> None:
    """Channels that can be used are silent, at the broker's start too."""
    with capture_logs() as logs:
        channels(f"json://127.0.0.1:{service.port}").check()
    assert (logs, service.asked) == ([], [])


def test_urls_are_told_apart_by_their_schemes() -> None:
    """A URL may have commas of its own, and none of them is shown."""
    settings = BrokerSettings(
        registry="x",
        notify_ops="mailto://u:p@acme.com?to=a@acme.com,b@acme.com, slack://token/channel,json://host/",
        notify_ml=" ",
    )
    assert [url.get_secret_value() for url in settings.channels[Audience.OPS]] == [
        "mailto://u:p@acme.com?to=a@acme.com,b@acme.com",
        "slack://token/channel",
        "json://host/",
    ]
    assert settings.telling.channels == {Audience.OPS: 3}
    assert "token" not in repr(settings.channels)
    assert BrokerSettings(registry="x").telling.channels == {}
