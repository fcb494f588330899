"""One settings model is flags, variables and a file, in that precedence."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from pydantic import BaseModel, Field, SecretStr, model_validator
from typer.testing import CliRunner

from longshore.cli.settings import SettingsError, load, run_with_settings


class Settings(BaseModel):
    registry: Annotated[str, Field(description="URL of the registry.")]
    poll_interval: Annotated[timedelta, Field(description="How often to look.")] = timedelta(seconds=30)
    port: Annotated[int | None, Field(ge=1, description="Port of the UI.")] = None
    secrets: Annotated[tuple[SecretStr, ...], Field(description="Secrets of the webhook.")] = ()
    handover: Annotated[bool, Field(description="Leave the runners.")] = False
    state_dir: Annotated[Path, Field(description="Where state is kept.")] = Path("state")
    level: Annotated[Literal["INFO", "DEBUG"], Field(description="Least level.")] = "INFO"

    @model_validator(mode="after")
    def _no_port_with_handover(self):
        if self.handover and self.port:
            raise ValueError("a handover has no port")
        return self


def loaded(flags=None, environment=None, file=None, verb="up"):
    return load(Settings, flags=flags or {}, environment=environment or {}, file=file, verb=verb)


def complaints(**given):
    with pytest.raises(SettingsError) as caught:
        loaded(**given)
    return caught.value.lines


def test_flag_beats_variable_beats_file_beats_default(tmp_path):
    """Each source counts only where those before it are silent."""
    file = tmp_path / "settings.toml"
    file.write_text('registry = "file"\npoll_interval = "3s"\nport = 3\n')
    settings = loaded({"registry": "flag"}, {"LONGSHORE_REGISTRY": "v", "LONGSHORE_POLL_INTERVAL": "2s"}, file)
    assert (settings.registry, settings.poll_interval, settings.port) == ("flag", timedelta(seconds=2), 3)
    assert settings.state_dir == Path("state")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("1h", 3600),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("45", 45),
        ("2d", 172_800),
    ],
)
def test_durations(text, seconds):
    """Units, sums of units, and plain numbers of seconds."""
    settings = loaded({"registry": "r"}, {"LONGSHORE_POLL_INTERVAL": text})
    assert settings.poll_interval == timedelta(seconds=seconds)


def test_numbers_of_seconds_in_a_file(tmp_path):
    """TOML has numbers: they are seconds."""
    file = tmp_path / "settings.toml"
    file.write_text('registry = "r"\npoll_interval = 90\nsecrets = ["a", "b"]\n')
    settings = loaded(file=file)
    assert settings.poll_interval == timedelta(seconds=90)
    assert [secret.get_secret_value() for secret in settings.secrets] == ["a", "b"]


def test_lists_in_a_variable_are_separated_by_commas():
    """A variable is one text; a flag is repeated instead."""
    settings = loaded({"registry": "r"}, {"LONGSHORE_SECRETS": "a, b"})
    assert [secret.get_secret_value() for secret in settings.secrets] == ["a", "b"]


def test_empty_variable_counts_as_absent():
    """`LONGSHORE_PORT=` in a compose file is no value."""
    assert loaded({"registry": "r"}, {"LONGSHORE_PORT": ""}).port is None


def test_every_fault_is_told_with_its_origin(tmp_path):
    """One line per fault, naming the flag, the variable or the key that is wrong."""
    file = tmp_path / "settings.toml"
    file.write_text("port = 0\n")
    lines = complaints(flags={"poll_interval": "soon"}, environment={"LONGSHORE_HANDOVER": "perhaps"}, file=file)
    assert "--poll-interval: 'soon' is no duration such as 30s, 5m or 1h" in lines
    assert any(line.startswith("LONGSHORE_HANDOVER: ") for line in lines)
    assert f"`port` in {file}: Input should be greater than or equal to 1" in lines
    assert "registry is missing: give --registry, LONGSHORE_REGISTRY or `registry` in a settings file" in lines


def test_secrets_are_not_repeated_in_complaints():
    """A complaint about a secret does not print it."""
    lines = complaints(flags={"registry": "r", "secrets": [b"\xff-hidden-hunter2"]})
    assert "hunter2" not in "\n".join(lines)


def test_rules_over_several_settings():
    """What a model demands of its fields together is told without a field."""
    assert complaints(flags={"registry": "r", "handover": True, "port": 5}) == ("a handover has no port",)


def test_unknown_keys_of_a_file_are_errors(tmp_path):
    """A typo is told, not ignored."""
    file = tmp_path / "settings.toml"
    file.write_text('registry = "r"\nprot = 1\n')
    assert complaints(file=file) == (
        f"`prot` in {file}: no setting of `longshore up`; what belongs to another verb goes into its table",
    )


def test_one_file_for_several_verbs(tmp_path):
    """A verb's own table counts for that verb alone, and before what is common."""
    file = tmp_path / "settings.toml"
    file.write_text('registry = "common"\n[up]\nport = 1\nregistry = "mine"\n[worker-host]\nlisten = "x"\n')
    assert (loaded(file=file).registry, loaded(file=file).port) == ("mine", 1)
    assert (loaded(file=file, verb="broker").registry, loaded(file=file, verb="broker").port) == ("common", None)


@pytest.mark.parametrize("text", ["registry = ", "\xff"])
def test_unreadable_file(tmp_path, text):
    """Broken TOML, another encoding and a missing file are told by the file's name."""
    file = tmp_path / "settings.toml"
    file.write_bytes(text.encode("latin-1"))
    assert complaints(file=file)[0].startswith(str(file))
    assert complaints(file=tmp_path / "absent.toml")[0].startswith(str(tmp_path / "absent.toml"))


def command(function):
    app = typer.Typer()
    app.command()(run_with_settings(Settings)(function))
    return app


def test_command_gets_its_settings_and_its_own_arguments(tmp_path, monkeypatch):
    """Flags are made of the fields; the function's own parameters stay."""
    seen = []

    async def verb(settings, path: Path, *, once: Annotated[bool, typer.Option("--once")] = False):
        seen.append((settings, path, once))

    monkeypatch.setenv("LONGSHORE_REGISTRY", "from the environment")
    monkeypatch.setenv("LONGSHORE_SETTINGS", str(tmp_path / "s.toml"))
    (tmp_path / "s.toml").write_text("port = 7\n")
    monkeypatch.setenv("LONGSHORE_SECRETS", "a,b")
    given = ["there", "--once", "--poll-interval", "1m"]
    result = CliRunner().invoke(command(verb), given)
    assert result.exit_code == 0, result.output
    ((settings, path, once),) = seen
    assert (settings.registry, settings.port, settings.poll_interval) == (
        "from the environment",
        7,
        timedelta(minutes=1),
    )
    assert (len(settings.secrets), path, once) == (2, Path("there"), True)


def test_bad_setting_exits_with_2():
    """A usage error, told on stderr, before anything is started."""
    result = CliRunner().invoke(command(lambda settings: None), ["--registry", "r", "--level", "LOUD"])  # noqa: ARG005
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --level: ")


def test_help_explains_each_setting():
    """Its line, its variable and its default."""
    output = CliRunner().invoke(command(lambda settings: None), ["--help"], env={"COLUMNS": "200"}).output  # noqa: ARG005
    for text in ("--poll-interval", "How often to look.", "LONGSHORE_POLL_INTERVAL", "30s", "(required)", "DURATION"):
        assert text in output


def test_a_secret_has_no_flag():
    """Argument lists can be read by everyone on the machine; the help names the variable instead."""
    app = command(lambda settings: None)  # noqa: ARG005
    refused = CliRunner().invoke(app, ["--registry", "r", "--secrets", "hush"])
    assert refused.exit_code == 2
    assert "LONGSHORE_SECRETS" in CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
