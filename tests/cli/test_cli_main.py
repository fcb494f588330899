"""The `longshore` command as a user meets it: help, exit codes, errors, a clean end."""

import subprocess
import sys

import pytest

from longshore.cli import main as cli
from longshore.schemas.failures import LongshoreError


def longshore(*args, **options):
    command = [sys.executable, "-m", "longshore", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **options)


def test_help_lists_every_verb_and_imports_none():
    """`--help` needs neither Temporal nor pydantic: it answers at once."""
    program = (
        "import sys; from longshore.cli.main import run; code = run(['--help']);"
        "heavy = {'temporalio', 'pydantic', 'grpc', 'git', 'starlette', 'structlog'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(verb in done.stdout for verb in cli.VERBS)


@pytest.mark.parametrize(
    "verb",
    [
        *("status", "plan", "explain", "worker", "rollout", "quarantine", "reconcile"),
        *("accept-history", "accept-unload", "version"),
    ],
)
def test_each_verb_has_its_help(verb):
    """Its first line is the one that the top level shows."""
    done = longshore(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert "".join(cli.VERBS[verb].split()) in "".join(done.stdout.split())


def test_unknown_verb_is_a_usage_error_with_a_hint():
    """A typo gets the verb that was probably meant."""
    done = longshore("statsu")
    assert done.returncode == 2
    assert "status" in done.stderr


def run(monkeypatch, raised):
    def verb():
        raise raised

    monkeypatch.setattr(cli.importlib, "import_module", lambda _: type("module", (), {"main": verb}))
    return cli.run(["version"])


def test_expected_failure_is_told_with_its_remedy(monkeypatch, capsys):
    """`error CODE: message`, what to do about it, and exit code 1; no traceback."""
    code = run(monkeypatch, LongshoreError("DISK_FULL", "The disk of /var is full", details="0 bytes left"))
    assert code == 1
    assert capsys.readouterr().err.splitlines() == [
        "error DISK_FULL: The disk of /var is full",
        "Free space in the device's state folder.",
        "0 bytes left",
    ]


def test_defect_is_told_with_its_traceback(monkeypatch, capsys):
    """What nobody expected says that it is our fault."""
    assert run(monkeypatch, ZeroDivisionError("oops")) == 1
    told = capsys.readouterr().err
    assert "ZeroDivisionError: oops" in told
    assert "error INTERNAL_ERROR" in told


def test_ctrl_c_exits_with_130(monkeypatch):
    """As shells expect of a program that SIGINT ended."""
    assert run(monkeypatch, KeyboardInterrupt()) == 130


def test_unreachable_server_is_told_with_its_address():
    """The failure that an operator meets first has its own code, and no traceback."""
    done = longshore("status", "--temporal", "127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error TEMPORAL_UNAVAILABLE: No Temporal server at 127.0.0.1:1")


def test_reader_that_goes_away_gets_no_complaint():
    """`longshore status | head -1` ends without a traceback about a broken pipe."""
    process = subprocess.Popen(
        [sys.executable, "-m", "longshore", "version"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) in (0, 1)
    process.stderr.close()
