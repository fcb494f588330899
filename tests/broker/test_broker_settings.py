"""Settings that are derived from others."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import ValidationError

from longshore.broker.settings import BrokerSettings
from longshore.cli.settings import SettingsError, load


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://git.example/ops/model-registry.git", "model-registry"),
        ("git@git.example:ops/Registry", "registry"),
        ("file:///srv/git/registry.git/", "registry"),
        ("https://git.example/ops/my_models", "my-models"),
    ],
)
def test_the_name_comes_from_the_url(url: str, name: str) -> None:
    """Workflow ids read like the repository, without a setting."""
    assert BrokerSettings(registry=url).name == name


def test_a_given_name_wins() -> None:
    """Two registries of one name can be told apart."""
    assert BrokerSettings(registry="https://git.example/a/registry.git", registry_name="team-a").name == "team-a"


def test_secrets_are_not_shown() -> None:
    """Neither secret stands in what a log or a traceback would show of the settings."""
    settings = BrokerSettings(registry="x", webhook_secret="hush", webhook_secret_before="hush-before")
    assert "hush" not in repr(settings)
    assert settings.webhook_secrets == {"current": b"hush", "before": b"hush-before"}


def test_an_empty_secret_is_none() -> None:
    """A variable that is set to nothing must not let everybody in."""
    assert BrokerSettings(registry="x", webhook_secret="").webhook_secrets == {}


def test_intervals_reach_what_uses_them() -> None:
    """The presence tiers and the poll interval are settings of the broker."""
    settings = BrokerSettings(registry="x", poll_interval=timedelta(seconds=1), failed_after=timedelta(seconds=7))
    assert settings.fleet.poll_interval == timedelta(seconds=1)
    assert settings.presence.failed_after == settings.fleet.presence.failed_after == timedelta(seconds=7)


@pytest.mark.parametrize(
    "name",
    [
        "poll_interval", "heartbeat_interval", "suspect_after", "failed_after", "ping_timeout", "load_timeout",
        "unload_timeout", "reconcile_interval", "record_interval", "backoff_base", "backoff_cap", "suspect_window",
    ],
)  # fmt: skip
def test_an_interval_of_nothing_is_refused(name: str) -> None:
    """The broker would look, write or ask without a rest: it says which flag is wrong, and does not start."""
    with pytest.raises(SettingsError) as refused:
        load(BrokerSettings, flags={"registry": "x", name: "0s"}, environment={})
    assert refused.value.lines == (f"--{name.replace('_', '-')}: Input should be greater than 0 seconds",)


def test_a_grace_of_nothing_is_none() -> None:
    """Who wants no pause says so; one that is negative is a mistake."""
    assert BrokerSettings(registry="x", reconcile_pause=timedelta()).fleet.reconcile_pause == timedelta()
    for name in ("first_report_grace", "reconcile_pause", "doubt_grace", "rebuild_grace"):
        with pytest.raises(ValidationError):
            BrokerSettings.model_validate({"registry": "x", name: timedelta(seconds=-1)})
