"""The broker's commits in real repositories: conflicts, repeats, and what they leave alone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from longshore.registry.records.errors import ErrorFile
from longshore.registry.records.state import FleetState
from longshore.registry.records.writer import AskFleet, RegistryWriter
from longshore.registry.repositories.git import Git
from longshore.registry.repositories.repository import Author
from longshore.schemas.devices import DeviceView, Health
from longshore.schemas.failures import LongshoreError

NOW = datetime(2025, 10, 28, 10, 45, tzinfo=UTC)


def fleet(health: Health = Health.HEALTHY) -> AskFleet:
    async def ask() -> FleetState:
        return FleetState([DeviceView(worker_id="worker-a", health=health, last_evidence=NOW, report=None)])

    return ask


def failure(cause: str, time: datetime = NOW) -> ErrorFile:
    return ErrorFile("load-failure", cause, time, b"timestamp: x\n")


@pytest.fixture
def registry(remote, valid):
    remote.commit(valid, "Start")
    return remote


@pytest.fixture
def writer(git, registry) -> RegistryWriter:
    return make_writer(git, registry)


def make_writer(git, registry, **options) -> RegistryWriter:
    options = {"min_interval": timedelta(0), **options}
    return RegistryWriter(git, registry.url, "main", name="Longshore", email="longshore@acme.com", **options)


async def test_state_and_errors_become_one_commit_of_the_broker(git, registry, writer):
    """Signed by the broker, on top of the head, everything else untouched; and it starts nothing."""
    before, base = registry.tree(), registry.head()
    commit = await writer.record("State after abc", fleet(), [failure("11111111")], now=NOW)
    assert registry.head() == commit
    assert registry.in_bare("log", "-1", "--format=%an <%ae> %s %ct", "main") == (
        f"Longshore <longshore@acme.com> State after abc {int(NOW.timestamp())}"
    )
    assert set(registry.tree()) - set(before) == {
        "transactions/actual-state.yaml",
        "transactions/history/2025-10-28T10-45-00-state.yaml",
        "errors/2025-10-28T10-45-00-11111111-load-failure.yaml",
    }
    assert set(before) <= set(registry.tree())
    assert "worker-a" in registry.show("transactions/actual-state.yaml")
    head = await git.fetch_branch(registry.url, "main")
    assert await git.effective_head(registry.url, head) == base


@pytest.mark.parametrize(
    "path",
    [
        *(
            "models/production/sentiment.yaml",
            "README.md",
            "errors",
            "transactions/",
            "/errors/x.yaml",
            "Errors/x.yaml",
        ),
        *("errors/../models/x.yaml", "errors/./x.yaml", "errors//x.yaml", "errors/x.yaml\n", "errorsx/x.yaml", ""),
        *("errors/x\nM 100644 inline models/production/x.yaml", "transactions/.gitattributes", 'errors/"x"'),
    ],
)
async def test_nothing_but_the_brokers_own_folders_is_ever_written(git, registry, path):
    """A defect that would change what runs stops before there is a commit (B123)."""
    head = registry.head()
    files = {"errors/x.yaml": b"", path: b""}
    await git.require(registry.url, head)
    with pytest.raises(LongshoreError, match="INTERNAL_ERROR: the broker was about to write"):
        await git.push_commit(registry.url, "main", head, files, message="x", author=Author("L", "l@acme.com", NOW))
    assert registry.head() == head


async def test_repeating_a_record_makes_no_second_commit(registry, writer):
    """A retried activity, later and with other beats, finds its files."""
    await writer.record("State", fleet(), [failure("11111111")], now=NOW)
    head = registry.head()
    later = NOW + timedelta(minutes=5)
    assert await writer.record("State", fleet(), [failure("11111111", later)], now=later) is None
    assert registry.head() == head


async def test_a_rejection_leaves_the_state_alone(registry, writer):
    """Only the error file is written."""
    await writer.record("Reject", None, [failure("22222222")], now=NOW)
    assert "transactions/actual-state.yaml" not in registry.tree()


async def test_two_events_of_one_second_do_not_clash(registry, writer):
    """Two material changes within a second leave two snapshots."""
    await writer.record("One", fleet(), [], now=NOW)
    await writer.record("Two", fleet(Health.SUSPECT), [], now=NOW)
    history = [path for path in registry.tree() if path.startswith("transactions/history")]
    assert history == [
        "transactions/history/2025-10-28T10-45-00-2-state.yaml",
        "transactions/history/2025-10-28T10-45-00-state.yaml",
    ]
    assert "healthy" in registry.show(history[1])
    assert "suspect" in registry.show(history[0])


async def test_two_brokers_and_an_operator_push_at_once(git, registry, tmp_path):
    """Nobody's commit is lost, and the history stays a line."""
    other = Git(tmp_path / "other-cache")
    writers = [make_writer(git, registry), make_writer(other, registry)]
    start = registry.head()
    await asyncio.gather(
        *(
            writer.record(f"{who}{number}", None, [failure(f"{who}{number:07}")], now=NOW)
            for who, writer in enumerate(writers)
            for number in range(4)
        ),
        asyncio.to_thread(push_as_operator, registry),
    )
    assert len([path for path in registry.tree() if path.startswith("errors/2025")]) == 8
    assert registry.show("README.md") == "changed"
    assert registry.in_bare("rev-list", "--count", "--no-merges", f"{start}..main") == "9"
    assert registry.in_bare("rev-list", "--merges", "main") == ""


def push_as_operator(registry) -> None:
    registry.write({"README.md": "changed"})
    registry.git("commit", "-qam", "README")
    for _ in range(50):
        registry.git("pull", "-q", "--rebase", "origin", "main")
        try:
            return registry.git("push", "-q", "origin", "main")
        except Exception:  # noqa: BLE001 (a broker was faster: pull again)
            continue
    raise AssertionError("the operator never got through")


async def test_a_push_between_reading_and_writing_is_built_upon(git, registry, writer, monkeypatch):
    """The head is read again, and only these files are applied again."""
    real = git.fetch_branch
    overtaken = []

    async def overtake(url, branch):
        head = await real(url, branch)
        if not overtaken:
            overtaken.append(registry.commit({"README.md": "meanwhile"}))
        return head

    monkeypatch.setattr(git, "fetch_branch", overtake)
    await writer.record("State", fleet(), [], now=NOW)
    assert registry.show("README.md") == "meanwhile"
    assert registry.in_bare("rev-parse", "main~1") == overtaken[0]


async def test_a_branch_that_was_set_back_is_not_brought_forward_again(git, registry, writer, monkeypatch):
    """A forced push that took commits away is no fast-forward to be undone."""
    first = registry.head()
    registry.commit({"README.md": "to be taken back"})
    real = git.fetch_branch
    done = []

    async def set_back(url, branch):
        head = await real(url, branch)
        if not done:
            done.append(head)
            registry.git("reset", "-q", "--hard", first)
            registry.push("--force")
        return head

    monkeypatch.setattr(git, "fetch_branch", set_back)
    await writer.record("State", fleet(), [], now=NOW)
    assert registry.in_bare("rev-parse", "main~1") == first


async def test_a_branch_that_always_moves_is_given_up_for_now(git, registry, writer, monkeypatch):
    """STATE_PUSH_CONFLICT is retriable: the activity comes back later."""
    real = git.fetch_branch
    monkeypatch.setattr("longshore.registry.records.writer._PAUSE_SECONDS", 0)
    count = iter(range(100))

    async def overtake(url, branch):
        head = await real(url, branch)
        registry.commit({"README.md": f"again {next(count)}"})
        return head

    monkeypatch.setattr(git, "fetch_branch", overtake)
    with pytest.raises(LongshoreError, match="STATE_PUSH_CONFLICT") as caught:
        await writer.record("State", fleet(), [], now=NOW)
    assert caught.value.failure.kind.retriable
    assert "transactions/actual-state.yaml" not in registry.tree()


async def test_a_protected_branch_is_no_conflict(registry, writer):
    """A hook that refuses the broker's push is the operator's to mend, in one try."""
    hook = registry.bare / "hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho protected >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(LongshoreError, match=r"AUTH_FAILED.*pre-receive hook declined"):
        await writer.record("State", fleet(), [], now=NOW)


async def test_whoever_had_to_wait_writes_what_is_true_by_then(registry, writer, git, monkeypatch):
    """A commit whose push met another one asks the devices again: the state before never replaces the newer one."""
    real = git.push_commit
    told = iter([Health.SUSPECT, Health.HEALTHY])

    async def newest():
        return await fleet(next(told))()

    async def overtaken(*args, **kwargs):
        registry.commit({"README.md": "meanwhile"})
        monkeypatch.setattr(git, "push_commit", real)
        return await real(*args, **kwargs)

    monkeypatch.setattr(git, "push_commit", overtaken)
    await writer.record("State", newest, [], now=NOW)
    assert "status: healthy" in registry.show("transactions/actual-state.yaml")


START = 1000.0


class Clock:
    """Time that only passes while somebody waits for it; real git takes none of it."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


async def test_two_hundred_changes_become_at_most_one_commit_a_second(git, registry, monkeypatch):
    """Twenty changes a second for ten seconds: what is written is never five seconds behind, and ends with the last."""
    clock, pushed = Clock(), []
    writer = make_writer(git, registry, min_interval=timedelta(seconds=1), clock=clock, sleep=clock.sleep)
    real = git.push_commit

    async def push(*args, **options):
        pushed.append(clock.now)
        return await real(*args, **options)

    def changes() -> int:
        return min(200, round((clock.now - START) * 20))

    async def ask():
        device = DeviceView(worker_id=f"worker-{changes()}", health=Health.HEALTHY, last_evidence=None, report=None)
        return FleetState([device])

    monkeypatch.setattr(git, "push_commit", push)
    while changes() < 200:
        clock.now += 0.05
        await writer.record("State", ask, [], now=NOW)
    await writer.record("State", ask, [], now=NOW)
    gaps = [after - before for before, after in pairwise(pushed)]
    assert min(gaps) >= 1
    assert max(gaps) < 5
    assert "worker-200" in registry.show("transactions/actual-state.yaml")


async def test_who_has_nothing_to_write_waits_for_nobody(git, registry):
    """A hundred rollouts that end at once are one state; only the errors, each somebody's own, take their second."""
    clock = Clock()
    writer = make_writer(git, registry, min_interval=timedelta(seconds=1), clock=clock, sleep=clock.sleep)
    await asyncio.gather(
        *(writer.record("State", fleet(), [failure("f" * 8)] if last else [], now=NOW) for last in [*[0] * 100, 1])
    )
    assert registry.in_bare("rev-list", "--count", "main") == "3"
    assert clock.now < START + 2.5
