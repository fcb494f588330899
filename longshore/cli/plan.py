"""`longshore plan PATH`: what a commit would change, before it is pushed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from longshore.cli import exits
from longshore.cli.settings import run_with_settings
from longshore.cli.status import StatusSettings
from longshore.schemas.policies import RepositoryPolicy

if TYPE_CHECKING:
    from longshore.cli.proposal import Proposal
    from longshore.planning.costs import Preview


class PlanSettings(StatusSettings, RepositoryPolicy):
    """Where the fleet is, and what its registry may refer to."""


class _PlanCommand(TyperCommand):
    """2 says that there are changes, so what was typed wrongly ends with 1."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().make_context(*args, **kwargs)
        except Exception as error:
            if getattr(error, "exit_code", None) == exits.USAGE:  # a UsageError, whose class typer keeps to itself
                vars(error)["exit_code"] = exits.FAILED
            raise


app = typer.Typer(add_completion=False)

Registry = Annotated[Path, typer.Argument(metavar="PATH", help="Folder of the registry, a clone of it.")]
State = Annotated[
    Path | None, typer.Option("--state", metavar="FILE", help="Plan for a recorded state, without a server.")
]


@app.command(cls=_PlanCommand)
@run_with_settings(PlanSettings, usage_code=exits.FAILED)
async def main(
    settings: PlanSettings,
    path: Registry,
    *,
    rev: Annotated[str | None, typer.Option(help="Revision to plan instead of the files as they lie there.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the plan as one JSON document.")] = False,
    state: State = None,
    save_state: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Record the fleet's state, for --state and for bug reports.")
    ] = None,
) -> None:
    """Show what a commit would change, on which device, and why there.

    It is planned as the fleet does once it is pushed; of the applied commit, it is what the fleet does by itself.
    Ends with 0 where all is as wanted, with 2 where there are changes, with 1 on any error.
    """
    from longshore.cli.proposal import propose  # noqa: PLC0415 (`--help` needs none of these)
    from longshore.cli.recorded import look, save  # noqa: PLC0415
    from longshore.planning.costs import preview  # noqa: PLC0415

    with telling_why():
        seen = await look(settings, settings.registry_name, state)
        if save_state is not None:
            save(seen, save_state)
        proposal = await propose(path, rev, settings, seen)
    shown = preview(proposal.plan, proposal.asked, proposal.desired)
    print(_as_json(proposal, shown) if json else _as_text(proposal, shown))
    plan = proposal.plan
    raise typer.Exit(exits.CHANGES if plan.deployments or plan.adopted else exits.OK)


@contextmanager
def telling_why() -> Iterator[None]:
    """End with 1 where a registry cannot be read, or is invalid: stderr has why, as `longshore validate` says it."""
    from rich.console import Console  # noqa: PLC0415 (`--help` needs none of these)

    from longshore.cli.proposal import Invalid  # noqa: PLC0415
    from longshore.cli.validate.text import as_text  # noqa: PLC0415
    from longshore.registry.repositories.local import UnusablePath  # noqa: PLC0415

    try:
        yield
    except UnusablePath as unusable:
        typer.echo(f"error: {unusable}", err=True)
        raise typer.Exit(exits.FAILED) from unusable
    except Invalid as invalid:
        Console(stderr=True, highlight=False, soft_wrap=True).print(as_text(invalid.report))
        raise typer.Exit(exits.FAILED) from invalid


def _as_text(proposal: Proposal, shown: Preview) -> str:
    from longshore.planning.explain import why_not  # noqa: PLC0415 (`--help` needs none of these)
    from longshore.planning.render import capacities, render, summary  # noqa: PLC0415

    plan = proposal.plan
    if not plan.deployments and not plan.adopted:
        return render(plan.model_copy(update={"cause": None})).rstrip()
    parts = [render(plan, shown.costs, why_not(plan, proposal.asked, proposal.desired))]
    parts.append(capacities(shown.capacity))
    if proposal.held_back is not None:
        commit = plan.sha or "COMMIT"
        parts.append(
            f"! MASS_UNLOAD_BLOCKED: {proposal.held_back}\n"
            f"  It will be held back until somebody types `longshore accept-unload {commit}`.\n"
        )
    applied = f"applied {proposal.asked.applied_sha[:7]}" if proposal.asked.applied_sha else "nothing applied yet"
    parts.append(f"{summary(plan)} (ledger {plan.stamp}, {applied})")
    return "\n".join(parts)


def _as_json(proposal: Proposal, shown: Preview) -> str:
    from pydantic_core import to_json  # noqa: PLC0415 (`--help` needs none of these)

    from longshore.planning.explain import why_not  # noqa: PLC0415
    from longshore.planning.order import by_device  # noqa: PLC0415

    plan = proposal.plan
    document = {
        "stamp": plan.stamp,
        "applied_sha": proposal.asked.applied_sha,
        "plan": plan,
        "devices": {
            worker_id: [{"deployment_id": name, "action": command.action} for name, command in commands]
            for worker_id, commands in by_device(plan).items()
        },
        "not_chosen": why_not(plan, proposal.asked, proposal.desired),
        "costs": [
            {"deployment_id": deployment_id, "worker_id": worker_id, **cost.model_dump()}
            for (deployment_id, worker_id), cost in sorted(shown.costs.items())
        ],
        "capacity": shown.capacity,
        "refused_by_guard": proposal.held_back,
    }
    return to_json(document, indent=2).decode()
