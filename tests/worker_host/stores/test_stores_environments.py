"""Environments by a real uv; `six` stands for whatever a model depends on."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest
from stores_servers import Fault

from longshore.schemas.cards import Runtime
from longshore.schemas.failures import LongshoreError
from longshore.worker_host import processes
from longshore.worker_host.breakers import Breaker
from longshore.worker_host.stores import interpreters
from longshore.worker_host.stores.environments import Environments

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
SIX = "six==1.17.0"


def runtime(*dependencies, python=HERE, system=()):
    document = {
        "framework": "custom",
        "framework_version": "1",
        "python_version": python,
        "dependencies": dependencies,
        "system_packages": system,
    }
    return Runtime.model_validate_json(json.dumps(document))


def silent(_line):
    """Nobody listens."""


def ask(python, code):
    """Run `code` as a runner would be run."""
    return subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """Environments whose package cache is shared by the tests of this file."""
    return Environments(tmp_path_factory.mktemp("warm"), Breaker("packages"))


@pytest.fixture
async def cold(warm, tmp_path, breaker):
    """Environments that have built nothing yet; the search for interpreters is done once, since it takes a second."""
    environments = Environments(tmp_path / "cache", breaker)
    if not warm.pythons():
        await warm.probe()
    environments._interpreters = warm._interpreters
    return environments


@pytest.fixture
def index(monkeypatch, artifact_server):
    """A package index of our own, which answers as the test wants."""
    monkeypatch.setenv("UV_DEFAULT_INDEX", artifact_server.url.replace("//", "//user:secret@") + "/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    for name in ("UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return artifact_server


async def failing(environments, wanted):
    with pytest.raises(LongshoreError) as caught:
        await environments.materialise(wanted, silent)
    return caught.value.failure


async def test_a_model_gets_what_its_card_pins(warm):
    """The environment imports it, is none of ours, and stands under its final name."""
    lines = []
    python = await warm.materialise(runtime(SIX), lines.append)
    assert ask(python, "import six; print(six.__version__)") == "1.17.0"
    assert ask(python, "import sys; print(sys.prefix)") == str(python.parent.parent)
    assert ask(python, "import importlib.util as u; print(u.find_spec('pydantic'))") == "None"
    assert any("six==1.17.0" in line for line in lines)


async def test_its_files_are_shared_with_the_package_cache(warm):
    """A second environment takes names, not space."""
    python = await warm.materialise(runtime(SIX), silent)
    (module,) = python.parent.parent.glob("lib/*/site-packages/six.py")
    assert module.stat().st_nlink > 1


async def test_the_lock_is_kept_with_hashes_and_without_addresses(warm):
    """What was installed can be read beside it."""
    python = await warm.materialise(runtime(SIX), silent)
    lock = (python.parent.parent / "requirements.lock").read_text()
    assert "--hash=sha256:" in lock
    assert "://" not in lock


async def test_the_same_dependencies_are_the_same_environment(warm):
    """In whatever order the card lists them."""
    one = await warm.materialise(runtime(SIX, "iniconfig==2.1.0"), silent)
    other = await warm.materialise(runtime("iniconfig==2.1.0", SIX), silent)
    assert one == other
    assert one != await warm.materialise(runtime(SIX), silent)


async def test_concurrent_requests_build_it_once(cold, tmp_path, entries, monkeypatch):
    """Three models with one set of dependencies share it from the start."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    lines = []
    pythons = await asyncio.gather(*(cold.materialise(runtime(), lines.append) for _ in range(3)))
    assert len(set(pythons)) == 1
    assert len(entries(tmp_path / "cache" / "environments")) == 1


async def test_no_dependencies_need_no_network(cold, monkeypatch):
    """A model on the standard library alone loads on a device that is offline."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    python = await cold.materialise(runtime(), silent)
    assert ask(python, "print('alive')") == "alive"


async def test_a_ready_environment_needs_no_network(warm, monkeypatch):
    """Nor uv."""
    python = await warm.materialise(runtime(SIX), silent)
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setattr("longshore.worker_host.stores.interpreters.find_uv", None)
    assert await warm.materialise(runtime(SIX), silent) == python


async def test_a_conflict_is_explained_in_uvs_words(warm):
    """The operator reads what excludes what."""
    failure = await failing(warm, runtime("requests==2.32.3", "urllib3==1.20"))
    assert failure.code == "DEPENDENCIES_INVALID"
    assert "urllib3==1.20" in failure.message
    assert "depends on urllib3" in failure.details


async def test_a_version_that_does_not_exist_is_the_cards_fault(warm):
    """Not the index's: it is not tried again."""
    assert (await failing(warm, runtime("six==99.0.0"))).code == "DEPENDENCIES_INVALID"


@pytest.mark.parametrize(("status", "code"), [(503, "PACKAGE_INDEX_UNAVAILABLE"), (401, "AUTH_FAILED")])
async def test_an_index_that_does_not_serve_is_told_from_a_bad_card(cold, index, status, code):
    """Its address is shown without the password."""
    index.faults.extend([Fault(status=status)] * 10)
    failure = await failing(cold, runtime(SIX))
    assert failure.code == code
    assert "secret" not in failure.model_dump_json()


@pytest.mark.usefixtures("index")
async def test_an_index_that_is_not_there_is_tried_again(cold, monkeypatch):
    """A refused connection is a matter of the network."""
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    failure = await failing(cold, runtime(SIX))
    assert failure.code == "PACKAGE_INDEX_UNAVAILABLE"
    assert failure.kind.retriable


async def test_a_python_that_is_not_there_is_named(cold):
    """Together with those that are."""
    failure = await failing(cold, runtime(python="3.1"))
    assert failure.code == "PYTHON_UNAVAILABLE"
    assert HERE in failure.message


async def test_reported_interpreters_have_been_started(tmp_path, breaker):
    """At least the one that runs these tests."""
    environments = Environments(tmp_path / "cache", breaker)
    assert environments.pythons() == ()
    found = await environments.probe()
    assert HERE in found
    assert environments.pythons() == found


async def test_every_missing_system_package_is_named(cold):
    """None is installed."""
    failure = await failing(cold, runtime(system=("no-such-package", "nor-this-one+")))
    assert failure.code == "SYSTEM_PACKAGE_MISSING"
    assert all(name in failure.message for name in ("no-such-package", "nor-this-one+"))


@pytest.mark.parametrize("name", ["--help", "x; true"])
def test_a_system_package_cannot_smuggle_an_option_or_a_command(name):
    """No command that a device is given can hold such a name."""
    with pytest.raises(ValueError, match="system_packages"):
        runtime(system=(name,))


async def test_cancellation_leaves_neither_uv_nor_half_an_environment(
    *, cold, index, tmp_path, until, children, entries
):
    """Whatever uv was waiting for."""
    index.put("/simple/six/", b"<html></html>")
    index.faults.append(Fault(stall=3))
    running = asyncio.create_task(cold.materialise(runtime(SIX), silent))
    await until(index.stalled.is_set)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert children("uv") == []
    assert entries(tmp_path / "cache" / "environments") == []
    assert entries(tmp_path / "cache" / "locks") == []


async def test_without_an_answer_of_uv_there_is_the_python_that_runs_us(monkeypatch):
    """A device under load, on which uv takes too long or is not there, still starts and says what it has."""

    async def too_slow(argv, **options):
        if "list" in argv:
            raise processes.ProcessTimeoutError("uv", 30.0, "")
        return await run(argv, **options)

    run = processes.run
    monkeypatch.setattr(processes, "run", too_slow)
    assert list(await interpreters.discover()) == [HERE]
