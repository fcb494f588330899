"""`longshore pre-receive`: the hook of a git server that refuses what the broker would reject (DESIGN §7)."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field

from longshore.cli import exits
from longshore.cli.durations import format_duration
from longshore.cli.settings import run_with_settings
from longshore.schemas.failures import FAILURES, LongshoreError
from longshore.schemas.policies import RepositoryPolicy

if TYPE_CHECKING:
    from longshore.cli.validate.report import Report
    from longshore.registry.repositories.pushes import RefUpdate
    from longshore.registry.repositories.repository import Repository

# What a person reads of one refused push; `longshore validate` tells the rest.
_FINDINGS = 15
_WIDEST = 200

# git servers and terminals of any age pass these on unharmed.
_PLAIN = str.maketrans({"→": "->", "…": "...", "§": "section "})


class HookSettings(RepositoryPolicy):
    branch: Annotated[str, Field(min_length=1, description="The branch that Longshore follows; others pass.")] = "main"
    time_limit: Annotated[
        timedelta, Field(gt=timedelta(0), description="Longest time for judging one push; then it is refused.")
    ] = timedelta(seconds=60)
    state_only: Annotated[
        bool, Field(description="Refuse all but commits to transactions/ and errors/: for the broker's own key.")
    ] = False


@run_with_settings(HookSettings)
async def main(settings: HookSettings) -> None:
    """Judge a push as git's pre-receive hook: refs on stdin, findings on stderr, exit code 1 refuses it."""
    from longshore.registry.repositories.pushes import read_updates  # noqa: PLC0415 (`--help` needs none of this)

    updates = read_updates(sys.stdin.read())
    try:
        async with asyncio.timeout(settings.time_limit.total_seconds()):
            accepted = all([await _accepts(update, settings) for update in updates])
    except LongshoreError as error:
        _say(f"error {error.code}: {error.failure.message}\n-> {FAILURES[error.code].remedy}")
        accepted = False
    except TimeoutError:
        _say(f"The push could not be judged within {format_duration(settings.time_limit)}: it is refused. Push again.")
        accepted = False
    raise typer.Exit(exits.OK if accepted else exits.FAILED)


async def _accepts(update: RefUpdate, settings: HookSettings) -> bool:
    """Tell whether one ref may move. Raises LongshoreError HISTORY_REWRITTEN or PUSH_FORBIDDEN."""
    from longshore.registry.repositories import pushes  # noqa: PLC0415 (`--help` needs none of this)

    watched = update.ref == f"refs/heads/{settings.branch}"
    if watched:
        repository = pushes.pushed_repository(os.environ)
        await pushes.require_forward(repository, update, settings.branch)
        if await pushes.is_brokers_own(repository, update):
            return True
    if settings.state_only:
        raise LongshoreError("PUSH_FORBIDDEN", f"the push to {update.ref} changes more than transactions/ and errors/")
    return not watched or _told(await _judge(repository, update.new, settings))


async def _judge(repository: Repository, commit: str, settings: HookSettings) -> Report:
    from longshore.cli.validate.report import check_registry, repositories, wanted_of_registry  # noqa: PLC0415 (as above)
    from longshore.registry.repositories.git_cache import FetchLimits  # noqa: PLC0415
    from longshore.registry.repositories.local import read_revision  # noqa: PLC0415

    local = await read_revision(repository, commit, wanted_of_registry)
    # One slow host shall not use up the time: what it has not answered by then is unreachable, and told as that.
    limits = FetchLimits(seconds=settings.time_limit.total_seconds() / 2)
    with tempfile.TemporaryDirectory(prefix="longshore-") as cache:
        return await check_registry(repositories(Path(cache), settings, limits), local)


def _told(report: Report) -> bool:
    """Print the findings, of many the errors, and return whether the broker would take the commit.

    It rejects none because a git host is away (it waits): nor does the hook, or nobody could disable a model then.
    """
    from longshore.cli.validate.text import findings, verdict  # noqa: PLC0415 (as above)
    from longshore.schemas.issues import Severity  # noqa: PLC0415

    errors = [issue for issue in report.issues if issue.severity is Severity.ERROR]
    others = [issue for issue in report.issues if issue.severity is not Severity.ERROR]
    chosen = {*[*errors, *others][:_FINDINGS]}
    if report.issues:
        _say(findings((issue for issue in report.issues if issue in chosen), report.sources).plain)
    if len(report.issues) > len(chosen):
        _say(f"... and {len(report.issues) - len(chosen)} more: `longshore validate` lists them all.")
    if errors and all(FAILURES[issue.code].retriable for issue in errors):
        _say("The push is accepted all the same: the broker waits for a git host that does not answer.")
        return True
    if report.issues:
        _say(verdict(report))
    return not errors


def _say(text: str) -> None:
    plain = text.translate(_PLAIN).encode("ascii", "backslashreplace").decode()
    for line in plain.rstrip("\n").splitlines():
        print(line[:_WIDEST], file=sys.stderr)
