"""How long the gatekeeper takes for a large registry: `python3 dev.py bench validation`.

1,000 deployments that share 100 cards, and 500 workers, in real git repositories. The floor is git itself in the same
run: the same registry read from the object database, and nothing else done with it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from longshore.registry.documents import reading
from longshore.registry.repositories.entries import Tree, tree_of
from longshore.registry.repositories.git import Git
from longshore.registry.validation.contents import read_contents
from longshore.registry.validation.layout import FOLDERS, wanted
from longshore.registry.validation.loading import load_snapshot
from longshore.schemas.documents import DocumentKind
from longshore.schemas.policies import RepositoryPolicy

BASE = Path(__file__).parents[1] / "tests" / "corpus" / "registry" / "base"
MANIFEST, WORKER, CARD = ((BASE / f"{name}.yaml").read_text() for name in ("manifest", "worker", "card"))
URL = "ssh://git@git.acme.com/sentiment.git"  # the base's model repository
TODAY = date(2025, 11, 1)
REGIONS = ("us-east-1", "us-west-2", "eu-west-1", "ap-south-1")
Result = TypeVar("Result")


def registry(deployments: int, cards: int, workers: int, model: str) -> dict[str, str]:
    files = {f"{folder}/.gitkeep": "" for folder in FOLDERS}
    for number in range(deployments):
        files[f"models/production/model-{number:04}.yaml"] = (
            MANIFEST.replace(URL, model)
            .replace("id: sentiment", f"id: model-{number:04}")
            .replace("ref: v1.0.0", f"ref: v1.{number % cards}.0")
            .replace("region: us-east-1", f"region: {REGIONS[number % len(REGIONS)]}")
            .replace("priority: 80", f"priority: {1 + number % 100}")
        )
    for number in range(workers):
        files[f"workers/worker-{number:04}.yaml"] = WORKER.replace("worker-a", f"worker-{number:04}").replace(
            "us-east-1", REGIONS[number % len(REGIONS)]
        )
    return files


def commit(repository: Path, ref: str, files: dict[str, str], parent: str = "") -> str:
    """Add a commit with `files` to a bare repository through git fast-import; return its id."""
    parts = [f"commit {ref}\ncommitter Olga Ops <olga@acme.com> 1750000000 +0000\ndata 6\nchange\n{parent}"]
    parts += [f"M 100644 inline {path}\ndata {len(text)}\n{text}\n" for path, text in files.items()]
    git(repository, "fast-import", "--quiet", "--force", stdin="".join(parts) + "\n")
    return git(repository, "rev-parse", ref)


def git(repository: Path, *args: str, stdin: str = "") -> str:
    done = subprocess.run(["git", *args], cwd=repository, input=stdin, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def bare(folder: Path) -> Path:
    folder.mkdir()
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main", ".")
    git(folder, "config", "uploadpack.allowFilter", "true")
    return folder


async def timed(call: Callable[[], Awaitable[Result]]) -> tuple[float, Result]:
    start = time.perf_counter()
    result = await call()
    return time.perf_counter() - start, result


async def measure(root: Path, deployments: int, cards: int, workers: int) -> dict[str, Any]:
    model = bare(root / "model.git")
    for number in range(cards):
        card = CARD.replace(URL, model.as_uri()).replace("1.0.0", f"1.{number}.0")
        commit(model, f"refs/tags/v1.{number}.0", {"model-card.yaml": card, "src/model.py": ""})
    files = registry(deployments, cards, workers, model.as_uri())
    ops = bare(root / "registry.git")
    first = commit(ops, "refs/heads/main", files)
    path = "models/production/model-0000.yaml"
    change = {path: files[path].replace("priority: 1\n", "priority: 2\n")}
    second = commit(ops, "refs/heads/main", change, parent="from refs/heads/main^0\n")
    cache = Git(root / "cache", RepositoryPolicy(repository_schemes=("file",)))
    await cache.fetch_branch(ops.as_uri(), "main")

    async def read(sha: str) -> dict[str, bytes]:
        return await cache.read(ops.as_uri(), sha, wanted(await cache.tree(ops.as_uri(), sha)))

    empty, _ = await timed(lambda: load_snapshot(cache, ops.as_uri(), first, today=TODAY))
    floor, content = await timed(lambda: read(second))
    steps = step_shares(tree_of(content), content)
    reading.read_document.cache_clear()
    cold, loaded = await timed(lambda: load_snapshot(cache, ops.as_uri(), first, today=TODAY))
    confirmed = loaded.confirmed
    warm, again = await timed(lambda: load_snapshot(cache, ops.as_uri(), second, today=TODAY, confirmed=confirmed))
    assert loaded.snapshot, [str(issue) for issue in loaded.issues[:3]]
    assert again.snapshot, [str(issue) for issue in again.issues[:3]]
    return {
        "deployments": deployments,
        "cards": cards,
        "workers": workers,
        "floor_read_from_git_s": floor,
        "empty_caches_s": empty,
        "first_s": cold,
        "second_one_file_changed_s": warm,
        "second_by_first": warm / cold,
        "second_by_floor": warm / floor,
        "steps_s": steps,
    }


def step_shares(tree: Tree, content: dict[str, bytes]) -> dict[str, float]:
    """Return the seconds of each pure step, nothing cached (PRD §5.1)."""
    reading.read_document.cache_clear()
    shares = {}
    for name, kind, prefix in (
        ("2, 3: manifests and references", DocumentKind.MANIFEST, "models/"),
        ("6: worker configurations", DocumentKind.WORKER_CONFIG, "workers/"),
    ):
        start = time.perf_counter()
        for path, data in content.items():
            if path.startswith(prefix):
                reading.read_document(kind, data)
        shares[name] = time.perf_counter() - start
    start = time.perf_counter()
    read_contents(tree, content)
    shares["1: structure and identities"] = time.perf_counter() - start
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployments", type=int, default=1000)
    parser.add_argument("--cards", type=int, default=100)
    parser.add_argument("--workers", type=int, default=500)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="longshore-bench-") as root:
        figures = asyncio.run(measure(Path(root), options.deployments, options.cards, options.workers))
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
