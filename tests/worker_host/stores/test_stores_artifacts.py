"""Artifacts over HTTP, from a server that misbehaves on request."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import shutil

import pytest
import structlog
from stores_servers import Fault

from longshore.schemas import cards
from longshore.schemas.devices import BreakerState
from longshore.schemas.failures import LongshoreError
from longshore.worker_host.breakers import Breaker
from longshore.worker_host.stores import artifacts as artifacts_module
from longshore.worker_host.stores import downloads
from longshore.worker_host.stores.artifacts import Artifacts

# Three chunks and a bit, and no two chunks alike.
MODEL = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(100_000))
SHA = hashlib.sha256(MODEL).hexdigest()
OTHER = bytes(reversed(MODEL))


def card(model_path, **facts):
    document = {"storage_type": "http", "model_path": model_path, **facts}
    return cards.Artifacts.model_validate_json(json.dumps(document))


def silent(_done, _total):
    """Nobody listens."""


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def artifacts(cache, breaker):
    return Artifacts(cache, breaker)


@pytest.fixture
def model(artifact_server):
    return artifact_server.put("/v1/model.bin", MODEL)


async def failing(artifacts, wanted):
    with pytest.raises(LongshoreError) as caught:
        await artifacts.materialise(wanted, silent)
    return caught.value.failure


async def test_model_and_config_stand_under_their_own_names(artifacts, artifact_server, model):
    """The folder is what a model's load() is handed; its files are shared with the store."""
    config = artifact_server.put("/v1/config%20file.json", b"{}")
    folder = await artifacts.materialise(card(model, checksum=SHA, config_path=config), silent)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        "model.bin": MODEL,
        "config file.json": b"{}",
    }
    assert (folder / "model.bin").stat().st_nlink == 2
    assert not (folder / "model.bin").stat().st_mode & 0o222


async def test_progress_is_told_in_bytes(artifacts, model):
    """Growing, up to the whole."""
    heard = []
    await artifacts.materialise(card(model, checksum=SHA), lambda done, total: heard.append((done, total)))
    assert heard == sorted(heard)
    assert heard[-1] == (len(MODEL), len(MODEL))
    assert len(heard) > 2


async def test_the_log_tells_the_story_of_a_download(artifacts, model):
    """PRD §9.2's events and fields."""
    with structlog.testing.capture_logs() as logs:
        await artifacts.materialise(card(model, checksum=SHA), silent)
    assert [entry["event"] for entry in logs] == [
        "artifact_download_started",
        "artifact_download_completed",
        "checksum_validation_success",
    ]
    assert logs[0]["artifact_path"] == model
    assert logs[1]["size_bytes"] == len(MODEL)
    assert logs[2]["checksum"] == SHA


async def test_what_is_in_the_store_is_not_asked_for_again(artifacts, artifact_server, model):
    """By its checksum, whatever its address."""
    folder = await artifacts.materialise(card(model, checksum=SHA), silent)
    artifact_server.close()
    assert await artifacts.materialise(card(model, checksum=SHA), silent) == folder
    moved = await artifacts.materialise(card("http://127.0.0.1:9/renamed.bin", checksum=SHA), silent)
    assert (moved / "renamed.bin").samefile(folder / "model.bin")


async def test_without_a_checksum_the_entity_tag_tells(artifacts, artifact_server, model):
    """An unchanged object is not fetched again, a changed one is."""
    first = await artifacts.materialise(card(model), silent)
    asked = len(artifact_server.ranges)
    assert await artifacts.materialise(card(model), silent) == first
    assert len(artifact_server.ranges) == asked + 1
    artifact_server.put("/v1/model.bin", OTHER)
    assert (await artifacts.materialise(card(model), silent) / "model.bin").read_bytes() == OTHER


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
async def test_without_any_strong_tag_it_is_fetched_each_time(artifacts, artifact_server, etag):
    """A changed object is never missed."""
    url = artifact_server.put("/model.bin", MODEL, etag=etag)
    await artifacts.materialise(card(url), silent)
    artifact_server.put("/model.bin", OTHER, etag=etag)
    assert (await artifacts.materialise(card(url), silent) / "model.bin").read_bytes() == OTHER


async def test_models_that_share_an_artifact_fetch_it_once(artifacts, artifact_server, model):
    """However many ask at once."""
    folders = await asyncio.gather(*(artifacts.materialise(card(model, checksum=SHA), silent) for _ in range(4)))
    assert len(set(folders)) == 1
    assert len(artifact_server.ranges) == 1


async def test_a_wrong_checksum_leaves_nothing(artifacts, cache, artifact_server, model, entries):
    """Neither a file to be loaded nor one to go on from; the log has both digests."""
    wrong = "0" * 64
    with structlog.testing.capture_logs() as logs:
        failure = await failing(artifacts, card(model, checksum=wrong))
    assert failure.code == "CHECKSUM_MISMATCH"
    assert SHA in failure.message
    assert {"expected_checksum": wrong, "actual_checksum": SHA}.items() <= logs[-1].items()
    assert [entries(cache / shelf) for shelf in ("objects", "partials", "artifacts")] == [[], [], []]
    assert artifact_server.ranges == [None]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, "ARTIFACT_MISSING"),
        (401, "AUTH_FAILED"),
        (403, "AUTH_FAILED"),
        (503, "STORAGE_UNAVAILABLE"),
        (429, "STORAGE_UNAVAILABLE"),
    ],
)
async def test_a_status_is_told_for_what_it_is(artifacts, artifact_server, model, status, code):
    """Gone, refused, or worth another attempt; and the password of the address stays with us."""
    artifact_server.faults.append(Fault(status=status))
    failure = await failing(artifacts, card(model.replace("//", "//user:secret@"), checksum=SHA))
    assert failure.code == code
    assert "secret" not in failure.model_dump_json()
    assert len(artifact_server.ranges) == 1


async def test_a_store_that_is_not_there_is_unavailable(artifacts):
    """A refused connection and a name that does not resolve."""
    for url in ("http://127.0.0.1:9/model.bin", "http://nowhere.invalid/model.bin"):
        assert (await failing(artifacts, card(url, checksum=SHA))).code == "STORAGE_UNAVAILABLE"


async def test_five_outages_open_the_circuit(cache, artifact_server, model):
    """A store that is down is left alone."""
    breaker = Breaker("storage")
    artifacts = Artifacts(cache, breaker)
    artifact_server.faults.extend([Fault(status=503)] * 5)
    for _ in range(5):
        await failing(artifacts, card(model, checksum=SHA))
    assert breaker.state is BreakerState.OPEN
    assert (await failing(artifacts, card(model, checksum=SHA))).code == "CIRCUIT_OPEN"
    assert len(artifact_server.ranges) == 5


async def test_a_cut_download_goes_on_where_it_was(artifacts, artifact_server, model, cache):
    """Even in the next life of the daemon."""
    artifact_server.faults.append(Fault(cut=3_000_000))
    assert (await failing(artifacts, card(model, checksum=SHA))).code == "STORAGE_UNAVAILABLE"
    reborn = Artifacts(cache, Breaker("storage"))
    folder = await reborn.materialise(card(model, checksum=SHA), silent)
    assert (folder / "model.bin").read_bytes() == MODEL
    assert artifact_server.ranges == [None, f"bytes={2 * 1024 * 1024}-"]


async def test_a_download_never_goes_on_with_another_object(artifacts, artifact_server, model):
    """The object changed between two attempts: the second begins anew, and has the new one whole."""
    artifact_server.faults.append(Fault(cut=3_000_000))
    sha = hashlib.sha256(OTHER).hexdigest()
    await failing(artifacts, card(model, checksum=sha))
    artifact_server.put("/v1/model.bin", OTHER)
    folder = await artifacts.materialise(card(model, checksum=sha), silent)
    assert (folder / "model.bin").read_bytes() == OTHER


async def test_a_torn_beginning_is_not_held_against_the_object(artifacts, artifact_server, model, cache):
    """What a power cut left of the first part is fetched again before the checksum has its final word."""
    artifact_server.faults.append(Fault(cut=3_000_000))
    await failing(artifacts, card(model, checksum=SHA))
    (data,) = cache.glob("partials/*/data")
    data.write_bytes(bytes(data.stat().st_size))
    folder = await artifacts.materialise(card(model, checksum=SHA), silent)
    assert (folder / "model.bin").read_bytes() == MODEL


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "discovered"])
async def test_an_object_beyond_its_size_is_stopped(artifacts, artifact_server, cache, entries, chunked):
    """At once where the store says how large it is, at the limit where it does not."""
    url = artifact_server.put("/model.bin", MODEL, chunked=chunked)
    heard = []
    with pytest.raises(LongshoreError, match="ARTIFACT_TOO_LARGE"):
        await artifacts.materialise(card(url, size_bytes=2_000_000), lambda done, _: heard.append(done))
    assert max(heard, default=0) <= 2_000_000
    assert entries(cache / "partials") == []


async def test_without_a_checksum_the_size_must_be_right(artifacts, model):
    """A shorter object is not what the card means."""
    failure = await failing(artifacts, card(model, size_bytes=len(MODEL) + 1))
    assert failure.code == "CHECKSUM_MISMATCH"


async def test_a_huge_config_is_refused(artifacts, artifact_server, model, monkeypatch):
    """It has no size on the card, so there is a bound for all."""
    monkeypatch.setattr(artifacts_module, "CONFIG_LIMIT", 10)
    config = artifact_server.put("/config.json", b"x" * 11)
    failure = await failing(artifacts, card(model, checksum=SHA, config_path=config))
    assert failure.code == "ARTIFACT_TOO_LARGE"


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, "DISK_FULL"), (errno.EDQUOT, "DISK_FULL"), (errno.EIO, "IO_ERROR")]
)
@pytest.mark.parametrize("where", ["write", "fsync", "link"])
async def test_a_failing_disk_shows_nothing(*, artifacts, cache, model, entries, monkeypatch, number, code, where):
    """At each point where we write: the space comes back, and the next attempt succeeds."""

    def broken(*_args):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, where, broken)
        failure = await failing(artifacts, card(model, checksum=SHA))
    assert failure.code == code
    assert [entries(cache / shelf) for shelf in ("partials", "artifacts")] == [[], []]
    assert where == "link" or entries(cache / "objects") == []
    folder = await artifacts.materialise(card(model, checksum=SHA), silent)
    assert (folder / "model.bin").read_bytes() == MODEL


async def test_what_cannot_fit_is_not_begun(artifacts, model, cache, entries, monkeypatch):
    """The disk is not filled first."""
    nearly_full = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: nearly_full)
    assert (await failing(artifacts, card(model, checksum=SHA))).code == "DISK_FULL"
    assert entries(cache / "partials") == []


async def test_cancellation_shows_nothing_and_loses_nothing(
    *, artifacts, cache, artifact_server, model, until, entries
):
    """A cancelled download is resumed by the next command."""
    artifact_server.faults.append(Fault(stall=3_000_000))
    heard = []
    running = asyncio.create_task(artifacts.materialise(card(model, checksum=SHA), lambda *b: heard.append(b)))
    await until(lambda: len(heard) == 2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [entries(cache / shelf) for shelf in ("objects", "artifacts")] == [[], []]
    folder = await artifacts.materialise(card(model, checksum=SHA), silent)
    assert (folder / "model.bin").read_bytes() == MODEL
    assert artifact_server.ranges[1] == f"bytes={2 * 1024 * 1024}-"


@pytest.mark.parametrize("path", ["http://example.com/", "http://example.com/x/%2e%2e", "http://example.com/a%2Fb"])
async def test_an_address_without_a_file_name_is_the_cards_fault(artifacts, path):
    """Nothing is written outside the folder that a model is handed."""
    assert (await failing(artifacts, card(path))).code == "CARD_INVALID"


async def test_two_files_of_one_name_are_the_cards_fault(artifacts, model, artifact_server):
    """One would hide the other."""
    other = artifact_server.put("/v2/model.bin", b"{}")
    assert (await failing(artifacts, card(model, config_path=other))).code == "CARD_INVALID"


async def test_an_address_of_another_kind_is_missing(artifacts):
    """`http` storage reads HTTP addresses only."""
    assert (await failing(artifacts, card("file:///etc/passwd"))).code == "ARTIFACT_MISSING"


@pytest.mark.parametrize("kind", ["gcs", "azure_blob"])
async def test_a_store_we_do_not_speak_to_is_named(artifacts, kind):
    """Unknown means error, never another default."""
    failure = await failing(artifacts, card("gs://bucket/model.bin", storage_type=kind))
    assert failure.code == "STORAGE_UNSUPPORTED"
    assert kind in failure.message


async def test_what_is_cached_is_told_newest_first(artifacts, artifact_server, model):
    """A plan learns from the first digits of each object what need not be fetched again."""
    other = artifact_server.put("/v1/other.bin", OTHER)
    assert await artifacts.cached() == ()
    for url in (model, other):
        await artifacts.materialise(card(url), silent)
    os.utime(artifacts._objects.entry(SHA), (0, 0))
    assert await artifacts.cached() == (hashlib.sha256(OTHER).hexdigest()[:12], SHA[:12])


async def test_an_unreadable_cache_names_nothing(artifacts, cache):
    """A sick disk costs the report this one line, not itself."""
    shutil.rmtree(cache / "objects")
    assert await artifacts.cached() == ()
