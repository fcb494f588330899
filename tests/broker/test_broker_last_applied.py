"""A ledger that was lost: which commit git and the workflows say was applied (FAULTS 57, 70)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from repositories import ModelRepository, Registry

from longshore.broker.registry_service import RegistryService
from longshore.broker.settings import BrokerSettings
from longshore.registry.repositories.git import Git
from longshore.schemas.reconciliations import LastApplied


class Commits:
    """The commits' workflows that Temporal still knows, with the generations of their plans."""

    def __init__(self, plans: Mapping[str, int] = MappingProxyType({})) -> None:
        self._plans = plans

    async def planned(self, sha: str) -> int | None:
        return self._plans.get(sha)


class Setting:
    """A registry with three commits: the second is broken, the third in order."""

    def __init__(self, root: Path) -> None:
        self.registry = Registry(root)
        (root / "artifacts").mkdir()
        model = ModelRepository(root, root / "artifacts", "http://127.0.0.1:1")
        for version in ("1.0.0", "1.1.0"):
            model.release(version)
        self.registry.worker("worker-a")
        self.registry.deployment("ten", model, "1.0.0")
        self.first = self.registry.push("Deploy")
        self.registry.deployment("ten", model, "9.9.9")
        self.registry.push("A version that does not exist")
        self.registry.deployment("ten", model, "1.1.0")
        self.head = self.registry.push("Deploy 1.1.0")
        settings = BrokerSettings(registry=self.registry.url, state_dir=root / "broker", repository_schemes=("file",))
        self.service = RegistryService(Git(root / "cache", settings), self.registry.url, "main")

    def record(self, text: str) -> None:
        """Write the recorded state, as the broker would."""
        path = self.registry.clone / "transactions" / "actual-state.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        self.registry.push("Longshore: applied")

    async def found(self, plans: Mapping[str, int] = MappingProxyType({})) -> LastApplied:
        return await self.service.last_applied(Commits(plans))


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


async def test_the_recorded_state_names_the_applied_commit(setting: Setting) -> None:
    """Also where later commits would validate: they may be held back."""
    setting.record(f"commit: '{setting.first}'\ngeneration: 41\nworkers: []\n")
    assert await setting.found() == LastApplied(sha=setting.first, generation=41, workers=("worker-a",))


async def test_a_commit_that_was_planned_since_counts_more(setting: Setting) -> None:
    """The fleet was terminated while the head was rolled out: going back would undo an accepted commit."""
    setting.record(f"commit: '{setting.first}'\ngeneration: 41\nworkers: []\n")
    assert await setting.found({setting.head: 42}) == LastApplied(
        sha=setting.head, generation=42, workers=("worker-a",)
    )


@pytest.mark.parametrize("state", ["", "workers: []\n", "commit: 7\n", "commit: '" + "0" * 40 + "'\n", "{"])
async def test_without_a_recorded_commit_it_is_the_newest_valid_ancestor(setting: Setting, state: str) -> None:
    """Never the head, which may have been refused; nor what does not validate, as it never was applied."""
    setting.record(state)
    assert (await setting.found()).sha == setting.first


async def test_a_registry_with_one_commit_has_none_applied(tmp_path: Path) -> None:
    """A fleet that is new has nothing to make anew."""
    registry = Registry(tmp_path)
    registry.worker("worker-a")
    registry.push("Begin")
    settings = BrokerSettings(registry=registry.url, state_dir=tmp_path / "broker", repository_schemes=("file",))
    service = RegistryService(Git(tmp_path / "cache", settings), registry.url, "main")
    assert (await service.last_applied(Commits())).sha is None
