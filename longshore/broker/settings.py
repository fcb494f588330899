"""Every setting of the broker. `cli/settings.py` makes a flag, a variable and a file key of each."""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from longshore.broker.hosts import Repository, StatusHost, default_api, default_path
from longshore.registry.repositories.signing import AllowedKeys
from longshore.schemas.commands import CommandIntervals
from longshore.schemas.commits import Telling
from longshore.schemas.connections import TemporalSettings
from longshore.schemas.devices import PresenceIntervals
from longshore.schemas.fleet import FleetSettings, PlanLimits, UpdateGap
from longshore.schemas.issues import Audience
from longshore.schemas.patterns import NAME
from longshore.schemas.policies import RepositoryPolicy

_Port = Annotated[int, Field(ge=0, le=65535)]
# Of nothing, a watch would never rest, and a time-out would never be kept.
_Interval = Annotated[timedelta, Field(gt=timedelta())]
_Grace = Annotated[timedelta, Field(ge=timedelta())]
# apprise URLs may hold commas themselves; a comma that ends one is followed by the scheme of the next.
_BETWEEN_URLS = re.compile(r"[\s,]+(?=[A-Za-z][A-Za-z0-9]{1,20}://)")
_URL_NAME = re.compile(r"([^/:]+?)(?:\.git)?/*$")


class LogLevel(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class ControlSettings(RepositoryPolicy):
    """What `longshore broker` and `longshore up` have in common."""

    registry: Annotated[str, Field(min_length=1, description="URL of the registry repository.")]
    registry_name: Annotated[
        str | None, Field(pattern=NAME, description="Its name in workflow ids; without it the last part of the URL.")
    ] = None
    branch: Annotated[str, Field(min_length=1, description="The branch whose head says what should run.")] = "main"
    state_dir: Annotated[Path, Field(description="Folder for the git cache and for the embedded server's data.")] = (
        Path("longshore-broker")
    )

    webhook_host: Annotated[str, Field(description="Address on which the git webhook listens.")] = "127.0.0.1"
    webhook_port: Annotated[_Port, Field(description="Its port; 0 takes a free one.")] = 8088
    webhook_secret: Annotated[
        SecretStr | None, Field(description="Secret of the git host's webhook; without it every delivery is refused.")
    ] = None
    webhook_secret_before: Annotated[
        SecretStr | None, Field(description="The webhook secret before that, accepted while it is being replaced.")
    ] = None

    status_host: Annotated[StatusHost, Field(description="Kind of git host that shows each commit's status.")] = (
        StatusHost.NONE
    )
    status_api: Annotated[
        str | None,
        Field(pattern=r"^https?://", description="Base URL of its API; without it that of the registry's host."),
    ] = None
    status_repository: Annotated[
        str | None, Field(description="The registry's owner/name there; without it that of the registry's URL.")
    ] = None
    status_token: Annotated[
        SecretStr | None, Field(description="Token of the git host that may set a commit's status.")
    ] = None
    notify_ops: Annotated[
        SecretStr | None, Field(description="apprise URLs, separated by commas, that tell ops of what went wrong.")
    ] = None
    notify_ml: Annotated[
        SecretStr | None, Field(description="apprise URLs that tell the ML team of what is wrong with its cards.")
    ] = None
    temporal_ui: Annotated[
        str | None,
        Field(pattern=r"^https?://", description="Base URL of the Temporal Web UI, for links in what people are told."),
    ] = None
    allowed_signers: Annotated[
        Path | None,
        Field(description="SSH keys that may sign commits (an allowed_signers file); then commits must be."),
    ] = None
    openpgp_keys: Annotated[
        Path | None, Field(description="OpenPGP keys that may sign commits (as exported); then commits must be.")
    ] = None

    poll_interval: Annotated[_Interval, Field(description="Time between two looks at the branch.")] = timedelta(
        seconds=30
    )
    first_report_grace: Annotated[
        _Grace, Field(description="How long a plan waits for devices that were never heard of.")
    ] = timedelta(seconds=5)
    heartbeat_interval: Annotated[_Interval, Field(description="Time between two signs of life of a device.")] = (
        timedelta(seconds=30)
    )
    suspect_after: Annotated[_Interval, Field(description="Silence after which a device is asked directly.")] = (
        timedelta(seconds=60)
    )
    failed_after: Annotated[_Interval, Field(description="Silence after which a device counts as failed.")] = timedelta(
        seconds=120
    )
    mass_unload_limit: Annotated[
        int,
        Field(ge=0, le=100, description="Percent of the serving replicas that a commit may unload; 100 allows all."),
    ] = 50
    ping_timeout: Annotated[_Interval, Field(description="How long a device that is asked directly may take.")] = (
        timedelta(seconds=10)
    )
    load_timeout: Annotated[_Interval, Field(description="Longest time for one LOAD or RELOAD, retries included.")] = (
        timedelta(hours=2)
    )
    unload_timeout: Annotated[_Interval, Field(description="Longest time for one UNLOAD, retries included.")] = (
        timedelta(minutes=15)
    )

    reconcile_interval: Annotated[
        _Interval, Field(description="Time between two looks for drift; most is found at once, without them.")
    ] = timedelta(seconds=30)
    reconcile_pause: Annotated[
        _Grace, Field(description="How long the first sign of drift waits for others, to be planned together.")
    ] = timedelta(seconds=1)
    doubt_grace: Annotated[
        _Grace, Field(description="How long a report may contradict what is known before it is believed.")
    ] = timedelta(seconds=10)
    rebuild_grace: Annotated[
        _Grace, Field(description="How long devices are awaited when the server has lost what runs where.")
    ] = timedelta(seconds=60)
    record_interval: Annotated[
        _Interval, Field(description="Least time between two commits that record the state.")
    ] = timedelta(seconds=1)

    keep_interval: Annotated[
        _Interval, Field(description="Time between two looks whether the fleet's and the devices' workflows run.")
    ] = timedelta(seconds=60)

    max_unavailable: Annotated[
        int,
        Field(ge=1, description="Replicas updated at once where devices cannot hold both versions."),
    ] = 1
    update_gap: Annotated[
        UpdateGap, Field(description="Whether an update may stop the old version first where both do not fit.")
    ] = UpdateGap.ALLOW
    quarantine_after: Annotated[
        int, Field(ge=1, description="Devices on which a version has failed before it is tried on no other.")
    ] = 3
    redeploy_retries: Annotated[
        int, Field(ge=0, description="How often a model is loaded again after its device has given it up.")
    ] = 4
    backoff_base: Annotated[
        _Interval, Field(description="Wait before the fleet loads a failed model again; doubled each time.")
    ] = timedelta(seconds=30)
    backoff_cap: Annotated[
        _Interval, Field(description="Longest wait before the fleet loads a failed model again.")
    ] = timedelta(seconds=300)
    suspect_share: Annotated[
        float, Field(gt=0, le=1, description="Part of a pool, 0 to 1, above whose failure nothing of it is moved.")
    ] = 0.55
    suspect_window: Annotated[_Interval, Field(description="Time within which failures in a pool count as one.")] = (
        timedelta(seconds=120)
    )

    git_name: Annotated[str, Field(description="Author of the commits that record the state.")] = "Longshore"
    git_email: Annotated[str, Field(description="Their author's e-mail address.")] = "longshore@localhost"

    max_cached_workflows: Annotated[
        int, Field(ge=1, description="Workflows kept in memory; at least one per device and deployment.")
    ] = 2000
    log_level: Annotated[LogLevel, Field(description="Least level that is logged.")] = LogLevel.INFO

    @property
    def name(self) -> str:
        """The registry's name: as set, or `model-registry` for `https://git.example/ops/model-registry.git`."""
        if self.registry_name is not None:
            return self.registry_name
        found = _URL_NAME.search(self.registry)
        return re.sub(r"[^a-z0-9-]+", "-", found[1].lower()) if found else "registry"

    @property
    def webhook_secrets(self) -> dict[str, bytes]:
        """The active secrets by what a log may call them. An empty one is none: everybody would know it."""
        given = {"current": self.webhook_secret, "before": self.webhook_secret_before}
        return {name: secret.get_secret_value().encode() for name, secret in given.items() if secret}

    @property
    def channels(self) -> dict[Audience, tuple[SecretStr, ...]]:
        """The apprise URLs of each audience."""
        return {Audience.OPS: _urls(self.notify_ops), Audience.ML: _urls(self.notify_ml)}

    @property
    def repository(self) -> Repository | None:
        """The registry on the git host that shows the status; None where none does."""
        api = self.status_api or default_api(self.status_host, self.registry)
        path = self.status_repository or default_path(self.status_host, self.registry)
        if self.status_host is StatusHost.NONE or api is None or path is None:
            return None
        return Repository(api.rstrip("/"), path.strip("/"), self.branch)

    @property
    def telling(self) -> Telling:
        return Telling(
            status_host=None if self.status_host is StatusHost.NONE else self.status_host,
            channels={audience: len(urls) for audience, urls in self.channels.items() if urls},
        )

    @model_validator(mode="after")
    def _has_what_the_status_needs(self) -> Self:
        if self.status_host is not StatusHost.NONE:
            if self.status_token is None:
                raise ValueError("status_token is missing: status_host cannot be told anything without it")
            if self.repository is None:
                raise ValueError("status_api and status_repository are missing: the registry's URL does not tell them")
        return self

    @property
    def allowed_keys(self) -> AllowedKeys:
        return AllowedKeys(self.allowed_signers, self.openpgp_keys)

    @property
    def presence(self) -> PresenceIntervals:
        return PresenceIntervals(
            heartbeat=self.heartbeat_interval,
            suspect_after=self.suspect_after,
            failed_after=self.failed_after,
            ping_timeout=self.ping_timeout,
        )

    @property
    def fleet(self) -> FleetSettings:
        return FleetSettings(
            poll_interval=self.poll_interval,
            first_report_grace=self.first_report_grace,
            presence=self.presence,
            mass_unload_limit=self.mass_unload_limit,
            reconcile_interval=self.reconcile_interval,
            reconcile_pause=self.reconcile_pause,
            doubt_grace=self.doubt_grace,
            rebuild_grace=self.rebuild_grace,
            limits=self.limits,
        )

    @property
    def limits(self) -> PlanLimits:
        return PlanLimits(
            max_unavailable=self.max_unavailable,
            update_gap=self.update_gap,
            quarantine_after=self.quarantine_after,
            suspect_share=self.suspect_share,
            suspect_window=self.suspect_window,
            retries=self.redeploy_retries,
            backoff_base=self.backoff_base,
            backoff_cap=self.backoff_cap,
        )

    @property
    def commands(self) -> CommandIntervals:
        return CommandIntervals(load_close=self.load_timeout, unload_close=self.unload_timeout)


class BrokerSettings(ControlSettings, TemporalSettings):
    """`longshore broker` works against any cluster."""


class UpSettings(ControlSettings):
    """`longshore up` brings its own Temporal server."""

    temporal_port: Annotated[_Port, Field(description="Port of the embedded Temporal server.")] = 7233
    ui_port: Annotated[_Port, Field(description="Port of its Web UI.")] = 8233


def _urls(secret: SecretStr | None) -> tuple[SecretStr, ...]:
    text = secret.get_secret_value().strip(" ,\n") if secret else ""
    return tuple(SecretStr(url) for url in _BETWEEN_URLS.split(text) if url)
