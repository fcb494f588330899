"""The six steps of PRD §5.1 over real repositories: every error, at once, where it is."""

from __future__ import annotations

import shutil
from datetime import date

import pytest

from longshore.registry.repositories.entries import tree_of
from longshore.registry.validation.loading import MAX_ISSUES, examine, load_snapshot
from longshore.registry.validation.verdict import Verdict, content_digest
from longshore.schemas.failures import LongshoreError
from longshore.schemas.issues import Severity

SENTIMENT = "models/production/sentiment.yaml"
TODAY = date(2025, 11, 1)


async def judged(git, files: dict[str, str], today: date | None = TODAY) -> Verdict:
    content = {path: text.encode() for path, text in files.items()}
    return await examine(git, "f" * 40, tree_of(content), content, today)


async def told(git, files: dict[str, str]) -> list[str]:
    """Return the errors and warnings as lines."""
    verdict = await judged(git, files)
    return [f"{issue.severity} {issue}" for issue in verdict.issues if issue.severity is not Severity.NOTE]


async def not_checked(git, files: dict[str, str]) -> list[str]:
    """Return the notes as lines."""
    verdict = await judged(git, files)
    return [str(issue) for issue in verdict.issues if issue.severity is Severity.NOTE]


def changed(files: dict[str, str], path: str, old: str, new: str) -> dict[str, str]:
    assert old in files[path]
    return files | {path: files[path].replace(old, new, 1)}


async def test_a_valid_registry_becomes_a_snapshot(git, valid, model):
    """Every reference is resolved to a commit; what an accepted commit says is all there."""
    verdict = await judged(git, valid)
    assert verdict.issues == ()
    snapshot = verdict.snapshot
    assert set(snapshot.manifests) == {"sentiment"}
    assert set(snapshot.workers) == {"worker-a"}
    spec = snapshot.specs["sentiment"]
    assert spec.card_commit == spec.code_commit == model.git("rev-parse", "v1.0.0")
    assert (spec.version, spec.card.runtime.python_version) == ("1.0.0", "3.10")
    assert spec.digest == content_digest(spec.card, spec.code_commit, None)


async def test_the_digest_is_of_what_runs(git, valid):
    """Replicas, priority, comments and metadata change nothing that runs; the endpoint does."""
    first = (await judged(git, valid)).snapshot.specs["sentiment"].digest
    same = changed(valid, SENTIMENT, "replicas: 1\n  priority: 80", "# more\n  replicas: 9\n  priority: 1")
    same = same | {SENTIMENT: same[SENTIMENT] + "metadata: {owner: olga@acme.com}\n"}
    assert (await judged(git, same)).snapshot.specs["sentiment"].digest == first
    other = changed(valid, SENTIMENT, "  priority: 80", "  priority: 80\n  endpoint: https://api.acme.com/v1")
    assert (await judged(git, other)).snapshot.specs["sentiment"].digest != first


@pytest.mark.parametrize(
    "url", ["https://user:s3cret@127.0.0.1:9/m.git", "https://s3cret@127.0.0.1:9/m.git", "ssh://u:s3cret@127.0.0.1/m"]
)
async def test_credentials_in_a_url_are_refused_and_not_repeated(git, valid, model, url):
    """What a commit says ends in Temporal's histories, so a token in it is refused, and no message has it."""
    verdict = await judged(git, changed(valid, SENTIMENT, model.url, url))
    assert "CREDENTIALS_IN_URL" in {issue.code for issue in verdict.issues}
    assert "s3cret" not in repr(verdict.issues)


@pytest.mark.parametrize("folder", ["models/production", "models/staging", "transactions", "workers", "errors"])
async def test_step_1_every_folder_is_mandatory(git, valid, folder):
    """A missing folder is named."""
    files = {path: text for path, text in valid.items() if not path.startswith(f"{folder}/")}
    assert f"error {folder}: STRUCTURE_INVALID: the folder {folder} is missing" in await told(git, files)


async def test_step_1_what_would_be_overlooked_is_an_error(git, valid):
    """A file where or as it is not read would be a deployment that silently does not run."""
    files = valid | {"errors": "", "models/x.yaml": "", "workers/more/w.yaml": "", "models/staging/y.yml": ""}
    del files["errors/.gitkeep"]
    assert await told(git, files) == [
        "error errors: STRUCTURE_INVALID: errors is a file; it must be a folder",
        "error models/staging/y.yml: STRUCTURE_INVALID: only files that end in .yaml are read: rename it",
        (
            "error models/x.yaml: STRUCTURE_INVALID: it would not be read here: "
            "move it to models/production or models/staging"
        ),
        "error workers/more/w.yaml: STRUCTURE_INVALID: it would not be read here: move it to workers itself",
    ]


async def test_step_2_every_error_of_a_manifest_has_its_line(git, valid):
    """All that is wrong with one file is said at once."""
    text = valid[SENTIMENT].replace("enabled", "enbaled").replace("replicas: 1", "replicas: -1").replace("80", "high")
    assert await told(git, valid | {SENTIMENT: text}) == [
        f"error {SENTIMENT}:1: MANIFEST_INVALID: enabled is missing",
        f"error {SENTIMENT}:6 (enbaled): UNKNOWN_FIELD: enbaled is no field here: did you mean enabled?",
        f"error {SENTIMENT}:9 (deployment_config.replicas): VALUE_OUT_OF_RANGE: -1 is less than the minimum of 0",
        f'error {SENTIMENT}:10 (deployment_config.priority): MANIFEST_INVALID: "high" is not of type "integer"',
    ]


async def test_step_2_yaml_faults_have_their_line(git, valid):
    """Duplicate keys, anchors and broken syntax are refused, each with its line."""
    files = valid | {
        "models/staging/a.yaml": "id: a\nid: a\n",
        "models/staging/b.yaml": "id: &x b\nenabled: *x\n",
        "models/staging/c.yaml": "id: [c\n",
        "models/staging/d.yaml": "",
        "models/staging/e.yaml": "just text\n",
    }
    lines = await told(git, files)
    for expected in [
        "models/staging/a.yaml:2 (id): YAML_DUPLICATE_KEY: the key 'id' stands twice: here and in line 1",
        "models/staging/b.yaml:1 (id): YAML_ALIAS_FORBIDDEN: anchors and aliases are not accepted: write the value out",
        "models/staging/d.yaml: YAML_INVALID: the file is empty",
        'models/staging/e.yaml:1: MANIFEST_INVALID: "just text" is not of type "object"',
    ]:
        assert f"error {expected}" in lines
    assert any(line.startswith("error models/staging/c.yaml:2: YAML_INVALID: ") for line in lines)


async def test_step_2_ids_are_unique_and_equal_file_names(git, valid):
    """Two manifests with one id, and a manifest under another name, are told apart."""
    files = valid | {"models/staging/sentiment.yaml": valid[SENTIMENT], "models/staging/other.yaml": valid[SENTIMENT]}
    files = changed(files, "models/staging/other.yaml", "id: sentiment", "id: another")
    assert await told(git, files) == [
        "error models/staging/other.yaml:1 (id): DUPLICATE_ID: the id another differs from the file's name other",
        f"error models/staging/sentiment.yaml:1 (id): DUPLICATE_ID: sentiment is also the id in {SENTIMENT}",
    ]


@pytest.mark.parametrize("ref", ["main", "1.0.0", "v1.0", "HEAD", "abc123", "V1.0.0", "refs/tags/v1.0.0", "ABCDEF1234"])
async def test_step_3_only_tags_and_commit_ids_are_pinned(git, valid, ref):
    """A branch, or anything else that may move, is refused."""
    (line,) = await told(git, changed(valid, SENTIMENT, "ref: v1.0.0", f"ref: {ref}"))
    assert line == (
        f"error {SENTIMENT}:5 (model_card_ref.ref): REF_UNPINNED: '{ref}' is neither a tag vX.Y.Z "
        "nor a commit id of 7 to 40 hexadecimal digits"
    )


async def test_step_3_an_unquoted_number_may_be_a_commit_id(git, valid, model):
    """`1234e56` and `1234567` are seven digits of an id, not a float and an integer."""
    lines = await told(git, changed(valid, SENTIMENT, "ref: v1.0.0", "ref: 1234e56"))
    assert lines == [f"error {SENTIMENT}:5 (model_card_ref.ref): REF_NOT_FOUND: {model.url} has no commit 1234e56"]


async def test_step_4_every_way_to_a_card_can_fail(git, valid, model):
    """Tag, commit, repository and path are told apart, all in one go."""
    base = valid[SENTIMENT]
    variants = {
        "tag": base.replace("v1.0.0", "v9.9.9"),
        "commit": base.replace("v1.0.0", "0123456789abcdef0123456789abcdef01234567"),
        "path": base.replace("model-card.yaml", "card.yaml"),
        "folder": base.replace("model-card.yaml", "src"),
        "repository": base.replace(model.url, "file:///nowhere/at/all"),
    }
    staged = {
        f"models/staging/{name}.yaml": text.replace("id: sentiment", f"id: {name}") for name, text in variants.items()
    }
    verdict = await judged(git, valid | staged)
    errors = [issue for issue in verdict.issues if issue.severity is Severity.ERROR]
    assert [(issue.file.split("/")[-1], issue.code, issue.place, issue.line) for issue in errors] == [
        ("commit.yaml", "REF_NOT_FOUND", "model_card_ref.ref", 5),
        ("folder.yaml", "CARD_NOT_FOUND", "model_card_ref.path", 4),
        ("path.yaml", "CARD_NOT_FOUND", "model_card_ref.path", 4),
        ("repository.yaml", "REPOSITORY_NOT_FOUND", "model_card_ref.repository", 3),
        ("tag.yaml", "REF_NOT_FOUND", "model_card_ref.ref", 5),
    ]


async def test_step_4_a_card_is_checked_like_any_document(git, valid, model, make_card):
    """A card's errors name its repository, ref and path, and its own lines."""
    broken = make_card(
        model.url, **{"framework: custom": "framework: cobol", "1.0.0": "2.0.0", "v1.0.0": "v2.0.0", "512Mi": "512MB"}
    )
    model.commit({"model-card.yaml": broken}, tag="v2.0.0")
    where = f"error {model.url}@v2.0.0:model-card.yaml"
    assert await told(git, changed(valid, SENTIMENT, "v1.0.0", "v2.0.0")) == [
        (
            f"{where}:8 (runtime.framework): CARD_INVALID: 'cobol' is none of "
            "tensorflow, pytorch, sklearn, xgboost, onnx, custom"
        ),
        f'{where}:26 (resources.memory): CARD_INVALID: "512MB" does not match "^[0-9]{{1,9}}(Mi|Gi)$"',
    ]


async def test_step_4_the_card_says_the_version_of_its_tag(git, valid, model, make_card):
    """A card that was copied without raising its version is refused, and so is one that runs other code."""
    model.commit({"model-card.yaml": make_card(model.url, **{"ref: v1.0.0": "ref: v1.0.1"})}, tag="v1.0.1")
    where = f"error {model.url}@v1.0.1:model-card.yaml"
    assert await told(git, changed(valid, SENTIMENT, "v1.0.0", "v1.0.1")) == [
        (
            f"{where}:4 (metadata.version): CARD_TAG_MISMATCH: metadata.version is 1.0.0, "
            "but the card was found under the tag v1.0.1"
        ),
        f"{where}:19 (code.ref): CARD_TAG_MISMATCH: code.ref is the tag v1.0.1, but metadata.version is 1.0.0",
    ]


async def test_step_4_the_code_of_a_card_must_be_there(git, valid, model, make_card):
    """A code ref that leads nowhere is found before any device is asked to run it."""
    gone = make_card(model.url, **{"ref: v1.0.0": "ref: 0123456789abcdef"})
    commit = model.commit({"model-card.yaml": gone})
    lines = await told(git, changed(valid, SENTIMENT, "v1.0.0", commit))
    assert lines == [
        (
            f"error {model.url}@{commit}:model-card.yaml:19 (code.ref): REF_NOT_FOUND: "
            f"{model.url} has no commit 0123456789abcdef"
        ),
    ]


@pytest.mark.parametrize(
    "case",
    [("production", "staging", "error"), ("staging", "production", "error"), ("staging", "staging", "warning")],
)
async def test_production_requires_a_checksum(git, valid, model, make_card, case):
    """An artifact without a checksum runs nowhere near production, be it by folder or by pool."""
    folder, pool, severity = case
    text = "".join(line for line in make_card(model.url).splitlines(keepends=True) if "checksum" not in line)
    model.commit({"model-card.yaml": text.replace("1.0.0", "1.1.0")}, tag="v1.1.0")
    manifest = valid.pop(SENTIMENT).replace("v1.0.0", "v1.1.0").replace("pool: production", f"pool: {pool}")
    workers = {"workers/worker-a.yaml": valid["workers/worker-a.yaml"].replace("pool: production", f"pool: {pool}")}
    file = f"models/{folder}/sentiment.yaml"
    assert await told(git, valid | workers | {file: manifest}) == [
        (
            f"{severity} {model.url}@v1.1.0:model-card.yaml:12 (artifacts): CHECKSUM_MISSING: "
            f"{file} runs an artifact without a checksum"
        ),
    ]


async def test_step_5_some_matching_worker_must_run_the_schema_version(git, valid, model, make_card):
    """The message names the version, every matching worker and what each of them supports."""
    model.commit(
        {"model-card.yaml": make_card(model.url, **{'"3.0.0"': '"3.1.0"', "1.0.0": "2.0.0", "v1.0.0": "v2.0.0"})},
        tag="v2.0.0",
    )
    worker = valid["workers/worker-a.yaml"]
    files = changed(valid, SENTIMENT, "v1.0.0", "v2.0.0") | {
        "workers/worker-b.yaml": worker.replace("worker-a", "worker-b").replace('"3.0.0"', '"2.2.0", "3.0.0"'),
        "workers/worker-c.yaml": worker.replace("worker-a", "worker-c")
        .replace("3.0.0", "3.1.0")
        .replace("us-east-1", "eu-west-1"),
    }
    assert await told(git, files) == [
        (
            f"error {SENTIMENT}:11 (deployment_config.worker_selector): SCHEMA_INCOMPATIBLE: no matching worker runs "
            f"schemaVersion 3.1.0 of {model.url}@v2.0.0:model-card.yaml: "
            "worker-a supports 3.0.0; worker-b supports 2.2.0, 3.0.0"
        ),
    ]
    files["workers/worker-b.yaml"] = files["workers/worker-b.yaml"].replace("2.2.0", "3.1.0")
    assert await told(git, files) == []


async def test_step_5_a_selector_that_matches_nothing_says_what_there_is(git, valid):
    """Region and labels are compared with what the workers have."""
    assert await told(git, changed(valid, SENTIMENT, "us-east-1", "us-west-1")) == [
        (
            f"error {SENTIMENT}:11 (deployment_config.worker_selector): SELECTOR_MATCHES_NOTHING: no worker has "
            "region=us-west-1, pool=production; there is worker-a (pool=production, region=us-east-1)"
        ),
    ]


async def test_an_invalid_worker_makes_no_second_error_of_its_deployments(git, valid):
    """Its labels can be read, so the deployments that want it are not blamed."""
    files = changed(valid, "workers/worker-a.yaml", "max_models: 5", "max_models: 0")
    assert await told(git, files) == [
        "error workers/worker-a.yaml:3 (capacity.max_models): VALUE_OUT_OF_RANGE: 0 is less than the minimum of 1"
    ]


async def test_a_model_can_be_disabled_though_it_could_not_run(git, valid, model):
    """PRD §7.4: neither a vanished worker nor a git host that is down keeps an operator from disabling."""
    shutil.rmtree(model.bare)
    files = changed(valid, SENTIMENT, "enabled: true", "enabled: false")
    del files["workers/worker-a.yaml"]
    verdict = await judged(git, files)
    assert {issue.code for issue in verdict.issues} == {"REPOSITORY_NOT_FOUND", "SELECTOR_MATCHES_NOTHING"}
    assert verdict.snapshot.manifests["sentiment"].wanted_replicas == 0
    assert verdict.snapshot.specs == {}


async def test_all_errors_of_a_commit_come_at_once(git, valid, model, make_card):
    """One bad commit with something wrong at every step: nothing hides anything else."""
    model.commit({"model-card.yaml": make_card(model.url, **{"512Mi": "lots"})}, tag="v1.0.1")
    files = changed(valid, SENTIMENT, "priority: 80", "priority: 101")
    files = changed(files, SENTIMENT, "v1.0.0", "v1.0.1") | {
        "models/staging/branch.yaml": valid[SENTIMENT].replace("v1.0.0", "main").replace("id: sentiment", "id: branch"),
        "models/staging/lost.yaml": valid[SENTIMENT]
        .replace("pool: production", "pool: moon")
        .replace("id: sentiment", "id: lost"),
        "workers/worker-b.yaml": "worker_id: worker-b\nlabels: {pool: staging, region: us-east-1}\n",
    }
    del files["errors/.gitkeep"]
    verdict = await judged(git, files)
    assert verdict.snapshot is None
    assert sorted({issue.code for issue in verdict.issues}) == [
        "CARD_INVALID",
        "CARD_TAG_MISMATCH",
        "CHECK_SKIPPED",
        "REF_UNPINNED",
        "SELECTOR_MATCHES_NOTHING",
        "STRUCTURE_INVALID",
        "VALUE_OUT_OF_RANGE",
        "WORKER_CONFIG_INVALID",
    ]
    assert all(issue.remedy for issue in verdict.issues)


async def test_a_commit_is_loaded_by_its_id(git, remote, valid):
    """Author and subject come along; an older commit stays loadable."""
    old = remote.commit(valid, "Deploy sentiment")
    new = remote.commit({SENTIMENT: valid[SENTIMENT].replace("enabled: true", "enabled: maybe")}, "Oops")
    loaded = await load_snapshot(git, remote.url, old, today=TODAY)
    assert loaded.snapshot.sha == old
    assert (loaded.result.author, loaded.result.subject) == ("Olga Ops <olga@acme.com>", "Deploy sentiment")
    assert loaded.result.accepted
    assert (loaded.result.deployments, loaded.result.workers) == (1, ("worker-a",))
    rejected = await load_snapshot(git, remote.url, new, today=TODAY)
    assert rejected.snapshot is None
    assert not rejected.result.accepted


async def test_a_commit_is_not_rejected_because_a_host_is_down(git, remote, valid):
    """GIT_UNREACHABLE alone is tried again; with another error beside it the commit is rejected with both."""
    files = changed(
        valid, SENTIMENT, valid[SENTIMENT].split("repository: ")[1].split("\n")[0], "http://127.0.0.1:1/x.git"
    )
    down = remote.commit(files)
    with pytest.raises(LongshoreError, match="GIT_UNREACHABLE"):
        await load_snapshot(git, remote.url, down, today=TODAY)
    bad = remote.commit({"workers/worker-a.yaml": "worker_id: worker-a\n"})
    loaded = await load_snapshot(git, remote.url, bad, today=TODAY)
    assert {issue.code for issue in loaded.issues} >= {"GIT_UNREACHABLE", "WORKER_CONFIG_INVALID"}


async def test_a_second_validation_needs_no_model_repository(git, remote, valid, model):
    """Cards are cached by commit: a registry change that touches no reference asks no model host."""
    remote.commit(valid)
    await load_snapshot(git, remote.url, remote.head(), today=TODAY)
    shutil.rmtree(model.bare)
    again = remote.commit({SENTIMENT: valid[SENTIMENT].replace("replicas: 1", "replicas: 3")})
    assert (await load_snapshot(git, remote.url, again, today=TODAY)).snapshot is not None


async def test_a_thousand_issues_are_capped_in_the_payload(git, remote):
    """What is left out is counted, and errors come before warnings."""
    sha = remote.commit({f"models/staging/m{number}.yaml": "x: 1\n" for number in range(100)})
    result = (await load_snapshot(git, remote.url, sha, today=TODAY)).result
    assert len(result.issues) == MAX_ISSUES
    assert result.truncated > 0
    assert len(result.model_dump_json()) < 200_000


@pytest.mark.parametrize(
    "case",
    [
        ("{$ref: 'https://evil.example/schema.json'}", "SCHEMA_REF_FORBIDDEN", "interface.input_schema.$ref"),
        ("{type: string, pattern: '(?=a)b'}", "SCHEMA_TOO_COSTLY", "interface.input_schema.pattern"),
    ],
)
async def test_step_4_the_schemas_of_a_card_are_judged(git, valid, model, make_card, case):
    """They lead nowhere else and cost little; both teams are told where in the card."""
    schema, code, place = case
    text = make_card(model.url, **{"input_schema: {type: object}": f"input_schema: {schema}", "1.0.0": "2.0.0"})
    model.commit({"model-card.yaml": text.replace("ref: v1.0.0", "ref: v2.0.0")}, tag="v2.0.0")
    (issue,) = (await judged(git, changed(valid, SENTIMENT, "v1.0.0", "v2.0.0"))).issues
    assert (issue.code, issue.place, issue.line, len(issue.told)) == (code, place, 24, 2)
