"""The recipes of docs/temporal.md: each command line is one that Temporal's own command line and our fleet take."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fleet_views import places
from fleets import Wanted, registry, worker
from workflow_world import REGISTRY, World, eventually, program, real_server, world

from longshore.schemas.commits import CommitOutcome
from longshore.workflows import conventions

PAGE = Path(__file__).parents[2] / "docs" / "temporal.md"
WORKERS = tuple(worker(f"worker-{letter}") for letter in "abc")


def recipes() -> list[str]:
    """Return the second column's commands, and where a row says "the same with", that one of the row before."""
    lines: list[str] = []
    for row in re.findall(r"^\| [^|]+ \| ([^|]+) \|", PAGE.read_text(), re.MULTILINE):
        lines += (code for code in re.findall(r"`([^`]+)`", row) if code.startswith("temporal "))
        if row.startswith("the same"):
            for name, value in re.findall(r"`(?:\"(\w+)\": )?\"(\w+)\"`", row):
                key = name or "kind"
                like = next(line for line in reversed(lines) if f'"{key}": ' in line)
                lines.append(re.sub(rf'"{key}": "\w+"', f'"{key}": "{value}"', like))
    return lines


@pytest.fixture
async def busy_world() -> AsyncIterator[tuple[World, dict[str, str]]]:
    """A commit that is applied, one that is held back, and a rollout whose device does not come to an end."""
    async with real_server() as client, world(client) as around:
        await around.start_broker()
        for letter in "abc":
            await around.device(f"worker-{letter}")
        applied = around.registry.push(registry(WORKERS, Wanted("ten", replicas=2)))
        await around.result(applied)
        loaded, *_ = places(await around.settled())
        reloading, never = asyncio.Event(), asyncio.Event()

        async def hang(_: Any) -> None:
            reloading.set()
            await never.wait()

        for device in around.devices.values():
            device.before = hang
        newer = around.registry.push(registry(WORKERS, Wanted("ten", version="1.1.0", replicas=2)))
        await around.commit(newer)
        await reloading.wait()
        held = around.registry.rewrite(registry(WORKERS, Wanted("ten", version="2.0.0", replicas=2)))
        assert (await around.result(held)).outcome is CommitOutcome.HISTORY_REWRITTEN
        words = {"REGISTRY": REGISTRY, "SHA": held, "DEPLOYMENT": "ten", "WORKER": loaded, "YOU": "olga", "WHY": "why"}
        yield around, words | {"ID": conventions.rollout_workflow_id("ten")}
        never.set()


async def test_every_recipe_is_taken(busy_world: tuple[World, dict[str, str]]) -> None:
    """Spelt as on the page, with the capitals filled in; and the orders have done what the page says."""
    around, words = busy_world
    lines = recipes()
    assert len(lines) > 20

    async def applied() -> bool:
        return (await around.fleet()).applied_sha == words["SHA"]

    address = around.client.service_client.config.target_host
    for line in lines:
        arguments = [re.sub("|".join(words), lambda name: words[name[0]], part) for part in shlex.split(line)[1:]]
        process = await asyncio.create_subprocess_exec(
            program("temporal"),
            *arguments,
            "--address",
            address,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        # Only one commit is held back here: of the other kind the fleet says that there is none.
        taken = process.returncode == 0 or b"COMMIT_NOT_HELD: MASS_UNLOAD_BLOCKED" in said
        assert taken, f"{line}\n{said.decode()}"
        if "--name accept" in line:
            await eventually(applied, "what was accepted is applied")
    view = await around.fleet()
    assert view.cordons == {}
    assert [(hold.kind, hold.by, hold.reason) for hold in view.holds] == [("aborted", "olga", "why")]
