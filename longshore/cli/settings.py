"""One settings model → flags, environment variables and one TOML file, in that precedence, before the defaults.

A room declares its settings as one plain pydantic model whose fields have a `description`. A field `state_dir` is the
flag `--state-dir`, the variable `LONGSHORE_STATE_DIR` and the key `state_dir` of the file that `--settings` or
`LONGSHORE_SETTINGS` names. A secret has no flag: argument lists are there for every user of a machine to read. A file
that several commands share puts what only one of them knows into a table with that verb's name (`[worker-host]`);
everything else in it must be a setting of the command that reads it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin

import typer
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource

from longshore.cli import exits
from longshore.cli.durations import format_duration, parse_duration
from longshore.cli.main import VERBS

PREFIX = "LONGSHORE_"
_SEQUENCES = (list, tuple, set, frozenset)
Model = TypeVar("Model", bound=BaseModel)


class SettingsError(Exception):
    """Some settings are missing or wrong; each line names one of them, and where it was given."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


def run_with_settings(
    model: type[Model], *, usage_code: int = exits.USAGE
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Give a command function its settings as first argument, and a flag for each of their fields but secrets.

    The function may take typer arguments and options of its own after the settings, and may be `async`. Settings that
    are missing or wrong end the process with `usage_code`.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        flagged = {name: field for name, field in model.model_fields.items() if not is_secret(field)}

        @functools.wraps(function)
        def command(ctx: typer.Context, settings: Path | None, **given: Any) -> None:
            flags = {name: given.pop(name) for name in flagged}
            typed = {name: value for name, value in flags.items() if _was_typed(ctx, name)}
            try:
                loaded = load(model, flags=typed, file=settings, verb=_verb(ctx))
            except SettingsError as error:
                for line in error.lines:
                    print(f"error: {line}", file=sys.stderr)
                raise typer.Exit(usage_code) from error
            result = function(loaded, **given)
            if inspect.iscoroutine(result):
                asyncio.run(result)

        parameters = [
            inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
            *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own),
            *(_flag(name, field) for name, field in flagged.items()),
            _SETTINGS_FLAG,
        ]
        command.__doc__ = "\n\n".join(filter(None, [function.__doc__, *_secrets_help(model)]))
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate


def load(
    model: type[Model],
    *,
    flags: Mapping[str, Any],
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    verb: str = "",
) -> Model:
    """Return the settings that flags, environment and file make together. Raises SettingsError with every fault."""
    sources: list[dict[str, tuple[str, Any]]] = [
        {name: (_flag_name(name), value) for name, value in flags.items()},
        {name: (_variable_name(name), value) for name, value in _from_environment(model, environment).items()},
        {name: (f"`{name}` in {file}", value) for name, value in _from_file(model, file, verb).items()},
    ]
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    for source in sources:
        for name, (origin, value) in source.items():
            if name not in origins:
                origins[name] = origin
                try:
                    values[name] = _as_written(model.model_fields[name], value)
                except ValueError as error:
                    unreadable[name] = str(error)
    lines = [f"{origins[name]}: {message}" for name, message in unreadable.items()]
    try:
        settings = model.model_validate(values)
    except ValidationError as error:
        faults = [e for e in error.errors() if not (e["loc"] and e["loc"][0] in unreadable)]
        raise SettingsError([*lines, *(_line(e["type"], e["loc"], e["msg"], origins) for e in faults)]) from error
    if lines:
        raise SettingsError(lines)
    return settings


def is_secret(field: FieldInfo) -> bool:
    return SecretStr in _kinds(field.annotation) or SecretStr in get_args(field.annotation)


def _secrets_help(model: type[BaseModel]) -> list[str]:
    return [
        f"{_variable_name(name)} (or a settings file, never a flag): {field.description}"
        for name, field in model.model_fields.items()
        if is_secret(field)
    ]


def _flag_name(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _variable_name(name: str) -> str:
    return f"{PREFIX}{name.upper()}"


def _from_environment(model: type[BaseModel], environment: Mapping[str, str] | None) -> dict[str, Any]:
    values = os.environ if environment is None else environment
    as_settings = cast("type[BaseSettings]", type(model.__name__, (model, BaseSettings), {}))
    source = _EnvironmentSource(as_settings, values)
    return {name: value for name, value in source().items() if name in model.model_fields}


class _EnvironmentSource(EnvSettingsSource):
    """Texts as they stand (this file reads them), from a given mapping; an empty variable counts as absent."""

    def __init__(self, settings_cls: type[BaseSettings], environment: Mapping[str, str]) -> None:
        self._environment = environment
        super().__init__(settings_cls, env_prefix=PREFIX)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): text for name, text in self._environment.items() if text}

    def prepare_field_value(self, field_name: str, field: FieldInfo, value: Any, value_is_complex: bool) -> Any:  # noqa: ARG002, FBT001 (pydantic-settings' signature)
        return value


def _from_file(model: type[BaseModel], file: Path | None, verb: str) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        document = tomllib.loads(file.read_text())
    except OSError as error:
        raise SettingsError([f"{file}: {error.strerror}"]) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError([f"{file}: {error}"]) from error
    own = document.get(verb, {})
    shared = {name: value for name, value in document.items() if name not in VERBS}
    values = {**shared, **own}
    unknown = [
        f"`{name}` in {file}: no setting of `longshore {verb}`; what belongs to another verb goes into its table"
        for name in values
        if name not in model.model_fields
    ]
    if unknown:
        raise SettingsError(unknown)
    return values


def _as_written(field: FieldInfo, value: Any) -> Any:
    """Read the notations that pydantic has not: durations such as `30s`, lists such as `a,b`. Raises ValueError."""
    if not isinstance(value, str):
        return value
    kinds = _kinds(field.annotation)
    if timedelta in kinds:
        return parse_duration(value)
    if kinds.intersection(_SEQUENCES):
        return [part.strip() for part in value.split(",")]
    return value


def _kinds(annotation: Any) -> set[Any]:
    """Return the plain types in `annotation`: of `timedelta | None` timedelta and NoneType."""
    origin = get_origin(annotation)
    if origin in _SEQUENCES:
        return {origin}
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    return {kind for part in get_args(annotation) for kind in _kinds(part)} or {annotation}


def _line(kind: str, place: tuple[int | str, ...], message: str, origins: Mapping[str, str]) -> str:
    if not place:
        return message.removeprefix("Value error, ")
    name = str(place[0])
    if kind == "missing" and name not in origins:
        return f"{name} is missing: give {_flag_name(name)}, {_variable_name(name)} or `{name}` in a settings file"
    inner = "".join(f"[{step}]" for step in place[1:])
    return f"{origins.get(name, name)}{inner}: {message.removeprefix('Value error, ')}"


def _verb(ctx: typer.Context) -> str:
    """Return the verb of `longshore`; commands below one verb share its table."""
    names = ctx.command_path.split()
    return next((name for name in names if name in VERBS), names[-1])


def _was_typed(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _flag(name: str, field: FieldInfo) -> inspect.Parameter:
    kinds = _kinds(field.annotation)
    if bool in kinds:
        written: Any = bool | None
    elif kinds.intersection(_SEQUENCES):
        written = list[str] | None
    else:
        written = str | None
    default = None if field.is_required() else field.get_default(call_default_factory=True, validated_data={})
    option = typer.Option(
        help=f"{field.description} (required)" if field.is_required() else field.description,
        envvar=_variable_name(name),
        metavar=None if bool in kinds else _metavar(kinds),
    )
    # The default is here for the help alone: what was not typed is never read from the flags.
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=_shown(default), annotation=Annotated[written, option]
    )


def _metavar(kinds: set[Any]) -> str:
    names = {timedelta: "DURATION", Path: "PATH", int: "INTEGER", float: "NUMBER"}
    return next((metavar for kind, metavar in names.items() if kind in kinds), "TEXT")


def _shown(default: Any) -> Any:
    if default is None or isinstance(default, bool):
        return default
    if isinstance(default, _SEQUENCES):
        return [str(item) for item in default] or None
    if isinstance(default, timedelta):
        return format_duration(default)
    return str(default) or None


_SETTINGS_FLAG = inspect.Parameter(
    "settings",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        Path | None,
        typer.Option(help="A TOML file with these settings.", envvar=f"{PREFIX}SETTINGS", metavar="FILE"),
    ],
)
