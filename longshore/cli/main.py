"""`longshore VERB …`: the verbs and their one-line helps.

The module of a verb is imported when that verb runs, and not before: `longshore --help` needs none of them.
A verb's module exposes either `app` (a `typer.Typer` with commands of its own) or `main` (one command function).
"""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from longshore.cli import exits

VERBS = {
    "up": "Start an embedded Temporal server and a broker for one registry.",
    "broker": "Start a broker alone, against any Temporal cluster.",
    "worker-host": "Start the daemon of one device: it runs models and owns the local Envoy.",
    "status": "Show workers, deployments and the last commits.",
    "accept-history": "Carry out a commit although it does not descend from the one that runs.",
    "accept-unload": "Carry out a commit although it takes away much of what serves.",
    "plan": "Show what a commit would change, on which device, and why there.",
    "explain": "Say why a deployment is where it is, and why it is not elsewhere.",
    "worker": "Take a device out of use (cordon, drain), and back (uncordon).",
    "rollout": "Pause, resume or abort the rollout of one deployment.",
    "quarantine": "List and release versions that failed on too many devices.",
    "reconcile": "Look now whether all is as the applied commit wants it, and mend what is not.",
    "validate": "Check a registry as the broker would, without a server.",
    "pre-receive": "Judge a push in a git server's hook: refuse what the broker would reject.",
    "init": "Write the skeleton of a registry or of a model repository.",
    "demo": "Show everything at work on this machine, with real models.",
    "version": "Show the version.",
}


class LazyVerbs(TyperGroup):
    """Help and completion see stubs; the verb that runs is loaded."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, _, rest = super().resolve_command(ctx, args)
        return name, load_verb(name) if name else None, rest


def load_verb(name: str) -> Any:
    """Import the module of one verb and return its command."""
    module = importlib.import_module(f"longshore.cli.{name.replace('-', '_')}")
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False)
        app.command(help=module.main.__doc__ or VERBS[name])(module.main)
    return typer.main.get_command(app)


def longshore() -> LazyVerbs:
    """Return the whole command line, no verb loaded."""
    return LazyVerbs(
        name="longshore",
        help="Deliver ML models to fleets of devices: git says what runs, Temporal makes it happen.",
        commands={name: TyperCommand(name=name, help=text) for name, text in VERBS.items()},
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run(args: list[str]) -> int:
    """Run one command line and return its exit code; what went wrong is said on stderr."""
    try:
        longshore().main(args, prog_name="longshore")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else exits.FAILED
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except Exception as error:  # noqa: BLE001 (the last frame of the process: whatever it is, it must be told)
        return _tell(error)
    return exits.OK


def _tell(error: Exception) -> int:
    from longshore.schemas.failures import LongshoreError  # noqa: PLC0415 (pydantic costs 0.1 s that --help has not)

    if isinstance(error, LongshoreError):
        failure = error.failure
        details = f"\n{failure.details}" if failure.details else ""
        print(f"error {failure.code}: {failure.message}\n{failure.remedy}{details}", file=sys.stderr)
    else:
        traceback.print_exception(error)
        print("error INTERNAL_ERROR: this is a defect of Longshore, please report it.", file=sys.stderr)
    return exits.FAILED


def main() -> NoReturn:
    """Be the `longshore` command."""
    exits.leave(run(sys.argv[1:]))
