"""Step 5 of PRD §5.1: whether some worker could run a deployment, and what could not be checked at all."""

from __future__ import annotations

from datetime import date

import pytest

from longshore.registry.repositories.entries import tree_of
from longshore.registry.validation.loading import examine
from longshore.schemas.issues import Audience, Severity

SENTIMENT = "models/production/sentiment.yaml"
WORKER = "workers/worker-a.yaml"


async def judged(git, files, today=date(2025, 11, 1)):
    content = {path: text.encode() for path, text in files.items()}
    return await examine(git, "f" * 40, tree_of(content), content, today)


def changed(files, path, old, new):
    assert old in files[path]
    return files | {path: files[path].replace(old, new, 1)}


async def found(git, files, **context):
    return [(i.severity, i.code, i.place, i.line) for i in (await judged(git, files, **context)).issues]


async def test_a_selector_may_not_contradict_the_region(git, valid):
    """No worker is in two regions, so the contradiction is named instead of a selector that matches nothing."""
    files = changed(valid, SENTIMENT, "pool: production", "pool: production\n    region: eu-west-1")
    assert await found(git, files) == [
        ("error", "REGION_MISMATCH", "deployment_config.worker_selector.region", 13),
    ]
    same = changed(valid, SENTIMENT, "pool: production", "pool: production\n    region: us-east-1")
    assert await found(git, same) == []


async def test_a_replica_must_fit_on_an_empty_worker(git, valid, model, make_card):
    """The message has the need, and what each matching worker lacks; one worker that is large enough suffices."""
    large = make_card(model.url, **{"cpu: 0.5, memory: 512Mi": "cpu: 9, memory: 32Gi, gpu: 1", "1.0.0": "2.0.0"})
    model.commit({"model-card.yaml": large.replace("ref: v1.0.0", "ref: v2.0.0")}, tag="v2.0.0")
    files = changed(valid, SENTIMENT, "v1.0.0", "v2.0.0")
    (issue,) = (await judged(git, files)).issues
    assert (issue.severity, issue.code, issue.line) == ("error", "CAPACITY_INSUFFICIENT", 11)
    assert issue.message == (
        "a replica needs 32Gi memory, 9 CPU, 1 GPU, more than any matching worker has when it is empty: "
        "worker-a has 16Gi memory, 8 CPU, 0 GPU"
    )
    files["workers/worker-b.yaml"] = (
        valid[WORKER]
        .replace("worker-a", "worker-b")
        .replace("max_memory: 16Gi, max_cpu: 8.0", "max_memory: 64Gi, max_cpu: 16, max_gpu: 1")
    )
    assert await found(git, files) == []


async def test_more_replicas_than_workers_are_a_warning(git, valid):
    """The commit is applied as far as it goes; a deployment that is switched off is not told."""
    files = changed(valid, SENTIMENT, "replicas: 1", "replicas: 3")
    verdict = await judged(git, files)
    (issue,) = verdict.issues
    assert (issue.severity, issue.code, issue.line) == ("warning", "REPLICAS_EXCEED_WORKERS", 9)
    assert issue.message == "3 replicas are wanted, and 1 worker can take one each"
    assert verdict.snapshot is not None
    assert await found(git, changed(files, SENTIMENT, "enabled: true", "enabled: false")) == []


@pytest.fixture
def legacy(valid, model, make_card):
    """A card of schema version 2.1.0, and a worker that knows 2.2.0, whose sunset is 2026-01-01 (PRD §3.4)."""
    text = make_card(model.url, **{'"3.0.0"': '"2.1.0"', "1.0.0": "2.0.0"}).replace("ref: v1.0.0", "ref: v2.0.0")
    model.commit({"model-card.yaml": text}, tag="v2.0.0")
    return changed(changed(valid, SENTIMENT, "v1.0.0", "v2.0.0"), WORKER, '"3.0.0"', '"2.2.0", "3.0.0"')


async def test_a_deprecated_schema_version_is_warned_about_until_its_sunset(git, legacy):
    """Both teams are told; from the sunset date on the commit is rejected, unless the deployment is switched off."""
    before = await judged(git, legacy, date(2025, 12, 31))
    assert [(i.severity, i.code, i.place, i.told) for i in before.issues] == [
        ("warning", "SCHEMA_DEPRECATED", "schemaVersion", tuple(Audience))
    ]
    assert "schemaVersion 2.1.0 ends on 2026-01-01" in before.issues[0].message
    assert before.snapshot is not None
    after = await judged(git, legacy, date(2026, 1, 1))
    assert [(i.severity, i.code) for i in after.issues] == [("error", "SCHEMA_SUNSET")]
    off = changed(legacy, SENTIMENT, "enabled: true", "enabled: false")
    assert (await judged(git, off, date(2026, 1, 1))).snapshot is not None


async def test_what_was_accepted_before_its_sunset_stays_accepted(git, legacy):
    """A broker that reads an accepted commit again judges it by no date: a rollout under way goes on."""
    assert (await judged(git, legacy, None)).snapshot is not None


async def test_a_newer_worker_lifts_the_deprecation(git, legacy):
    """A card of 3.0.0 on workers that know the old and the new version is not warned about."""
    files = changed(legacy, SENTIMENT, "v2.0.0", "v1.0.0")
    assert await found(git, files, today=date(2026, 6, 1)) == []


@pytest.mark.parametrize(
    ("old", "new", "note"),
    [
        (
            "v1.0.0",
            "main",
            "not checked: its model card (step 4), its version and size; REF_UNPINNED in line 5 comes first",
        ),
        (
            "v1.0.0",
            "v9.0.0",
            "not checked: its model card (step 4), its version and size; REF_NOT_FOUND in line 5 comes first",
        ),
        (
            "region: us-east-1",
            "region: USA",
            "not checked: whether a worker can run it (step 5); MANIFEST_INVALID in line 8 comes first",
        ),
        (
            "  region: us-east-1",
            "  replicas: 1",
            "not checked: whether a worker can run it (step 5); YAML_DUPLICATE_KEY in line 9 comes first",
        ),
        (
            "enabled: true",
            "enabled: [",
            (
                "not checked: its model card (step 4) and whether a worker can run it (step 5); "
                "YAML_INVALID in line 8 comes first"
            ),
        ),
    ],
)
async def test_what_was_not_checked_says_because_of_what(git, valid, old, new, note):
    """A step that cannot be taken names the error that comes first."""
    notes = [i for i in (await judged(git, changed(valid, SENTIMENT, old, new))).issues if i.severity is Severity.NOTE]
    assert [(i.code, i.file, i.message) for i in notes] == [("CHECK_SKIPPED", SENTIMENT, note)]


async def test_a_broken_card_leaves_its_size_unchecked(git, valid, model, make_card):
    """The note names the card's own line."""
    broken = make_card(model.url, **{"512Mi": "lots", "1.0.0": "2.0.0"}).replace("ref: v1.0.0", "ref: v2.0.0")
    model.commit({"model-card.yaml": broken}, tag="v2.0.0")
    issues = (await judged(git, changed(valid, SENTIMENT, "v1.0.0", "v2.0.0"))).issues
    card = f"{model.url}@v2.0.0:model-card.yaml"
    assert [(i.file, i.code, i.line) for i in issues] == [
        (card, "CARD_INVALID", 26),
        (SENTIMENT, "CHECK_SKIPPED", None),
    ]
    assert issues[1].message == (
        f"not checked: whether it fits on a worker (step 5); CARD_INVALID in line 26 of {card} comes first"
    )
    assert issues[0].told == (Audience.OPS, Audience.ML)
    assert issues[1].told == (Audience.OPS,)


async def test_errors_of_one_manifest_are_independent(git, valid):
    """A branch for a ref does not hide that no worker matches, nor the other way round."""
    files = changed(changed(valid, SENTIMENT, "v1.0.0", "main"), SENTIMENT, "pool: production", "pool: moon")
    assert {code for severity, code, _, _ in await found(git, files) if severity == "error"} == {
        "REF_UNPINNED",
        "SELECTOR_MATCHES_NOTHING",
    }


async def test_a_broken_card_keeps_nobody_from_switching_it_off(git, valid, model, make_card):
    """PRD §7.4: what a newer release finds wrong with a card is only a warning where nobody wants to run it."""
    broken = make_card(model.url, **{"framework: custom": "framework: cobol"})
    model.commit({"model-card.yaml": broken.replace("1.0.0", "2.0.0")}, tag="v2.0.0")
    files = changed(valid, SENTIMENT, "v1.0.0", "v2.0.0")
    assert (await judged(git, files)).snapshot is None
    verdict = await judged(git, changed(files, SENTIMENT, "enabled: true", "enabled: false"))
    assert {(i.severity, i.code) for i in verdict.issues} == {("warning", "CARD_INVALID")}
    assert verdict.snapshot.manifests["sentiment"].wanted_replicas == 0
