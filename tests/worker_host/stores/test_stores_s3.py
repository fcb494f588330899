"""Artifacts in a real S3 server."""

from __future__ import annotations

import asyncio
import hashlib
import json

import pytest
from stores_servers import Fault

from longshore.schemas import cards
from longshore.schemas.failures import LongshoreError
from longshore.worker_host.stores.artifacts import Artifacts
from longshore.worker_host.stores.storage import ObjectChangedError, Resume
from longshore.worker_host.stores.storage_s3 import S3Storage

# SeaweedFS keeps 4 MiB chunks: more than one of them.
MODEL = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(200_000))
SHA = hashlib.sha256(MODEL).hexdigest()


def card(model_path, **facts):
    document = {"storage_type": "s3", "model_path": model_path, **facts}
    return cards.Artifacts.model_validate_json(json.dumps(document))


def silent(_done, _total):
    """Nobody listens."""


@pytest.fixture
def credentials(seaweed, monkeypatch, tmp_path):
    """The standard chain, as a device's environment file would fill it, and nothing of this machine's own."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def artifacts(credentials, tmp_path, breaker):  # noqa: ARG001 (credentials come first)
    return Artifacts(tmp_path / "cache", breaker)


@pytest.fixture(scope="session")
def model(seaweed):
    return seaweed.put("digits/v1/model.bin", MODEL)


async def failing(artifacts, wanted):
    with pytest.raises(LongshoreError) as caught:
        await artifacts.materialise(wanted, silent)
    return caught.value.failure


async def test_model_and_config_come_from_a_bucket(artifacts, seaweed, model):
    """Whole, verified, under their own names; a "?" is part of a key."""
    config = seaweed.put("digits/v1/what? 100%.json", b"{}")
    heard = []
    wanted = card(model, checksum=SHA, size_bytes=len(MODEL), config_path=config)
    folder = await artifacts.materialise(wanted, lambda *told: heard.append(told))
    assert (folder / "model.bin").read_bytes() == MODEL
    assert (folder / "what? 100%.json").read_bytes() == b"{}"
    assert heard[-1] == (len(MODEL), len(MODEL))


async def test_the_rest_of_an_object_comes_only_of_that_object(credentials, model):
    """A range under the entity tag that was seen; under another one the answer is that it changed."""
    assert credentials
    storage = S3Storage()
    async with storage.open(model, None) as body:
        etag = body.etag
        assert body.size == len(MODEL)
    async with storage.open(model, Resume(5_000_000, etag)) as body:
        assert (body.start, body.size) == (5_000_000, len(MODEL))
        assert b"".join([chunk async for chunk in body.chunks]) == MODEL[5_000_000:]
    with pytest.raises(ObjectChangedError):
        async with storage.open(model, Resume(5_000_000, '"another"')):
            pass


async def test_cancellation_in_the_middle_is_resumed(artifacts, model, tmp_path, entries):
    """Nothing is visible of it until it is whole."""

    def stop(*_told) -> None:
        running.cancel()

    running = asyncio.create_task(artifacts.materialise(card(model, checksum=SHA), stop))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert entries(tmp_path / "cache" / "objects") == []
    folder = await artifacts.materialise(card(model, checksum=SHA), silent)
    assert (folder / "model.bin").read_bytes() == MODEL


@pytest.mark.parametrize(
    "url", ["s3://models/nothing.bin", "s3://no-such-bucket/model.bin", "s3://models", "s3:///model.bin", "x://a/b.c"]
)
async def test_what_is_not_there_is_missing(artifacts, url):
    """An absent key, an absent bucket, and what is no address of an object."""
    assert (await failing(artifacts, card(url, checksum=SHA))).code == "ARTIFACT_MISSING"


async def test_wrong_credentials_are_refused(artifacts, credentials, model):
    """And not tried again; the secret is in no message."""
    credentials.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    failure = await failing(artifacts, card(model, checksum=SHA))
    assert failure.code == "AUTH_FAILED"
    assert "not-the-secret" not in failure.model_dump_json()


async def test_a_device_without_credentials_is_told(artifacts, credentials, model):
    """It is the device that lacks something, not the model."""
    credentials.delenv("AWS_ACCESS_KEY_ID")
    credentials.delenv("AWS_SECRET_ACCESS_KEY")
    assert (await failing(artifacts, card(model, checksum=SHA))).code == "AUTH_FAILED"


async def test_an_endpoint_that_is_not_there_is_unavailable(artifacts, credentials, model):
    """One attempt: what comes after it is decided in one place, and not here."""
    credentials.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    assert (await failing(artifacts, card(model, checksum=SHA))).code == "STORAGE_UNAVAILABLE"


async def test_an_endpoint_that_fails_is_asked_once(artifacts, credentials, model, artifact_server):
    """boto3's own retries are off."""
    credentials.setenv("AWS_ENDPOINT_URL_S3", artifact_server.url)
    artifact_server.faults.extend([Fault(status=503)] * 5)
    assert (await failing(artifacts, card(model, checksum=SHA))).code == "STORAGE_UNAVAILABLE"
    assert len(artifact_server.ranges) == 1
