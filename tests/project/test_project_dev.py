"""`dev.py` says exactly what to do where it cannot go on, and does nothing twice."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def dev(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The script as a module, on a machine that lacks nothing, with an empty place for its environment."""
    spec = importlib.util.spec_from_file_location("dev_of_the_project", ROOT / "dev.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.setattr(module.os, "confstr", lambda _: "glibc 2.36")
    monkeypatch.setattr(module.os, "confstr_names", {"CS_GNU_LIBC_VERSION": 2})
    monkeypatch.setattr(module.sysconfig, "get_config_var", lambda _: "x86_64-pc-linux-gnu")
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(module.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(module, "VENV", str(tmp_path / ".venv"))
    monkeypatch.setattr(module, "BIN", str(tmp_path / ".venv" / "bin"))
    monkeypatch.setattr(module, "STAMP", str(tmp_path / ".venv" / "stamp"))
    return module


def test_a_machine_that_lacks_nothing_passes(dev):
    """No complaint."""
    dev.check_machine()


@pytest.mark.parametrize(
    ("what", "value", "problem", "remedy"),
    [
        ("sys.version_info", (3, 9, 0), "this is Python 3.9", "Run: python3."),
        ("sys.platform", "win32", "not on win32", "WSL 2"),
        ("platform.machine", lambda: "riscv64", "no packages for riscv64", "x86_64 or arm64"),
        ("os.confstr", lambda _: "glibc 2.28", "glibc 2.31 or newer", "newer release"),
        ("os.confstr_names", {}, "no glibc", "Debian"),
        ("sysconfig.get_config_var", lambda _: "x86_64-alpine-linux-musl", "musl", "Debian"),
        ("shutil.which", lambda _: None, "git is missing", "apt install git"),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(
    dev, monkeypatch: pytest.MonkeyPatch, *, what, value, problem, remedy
):
    """One line says what is wrong, the next what to do."""
    monkeypatch.setattr(dev, "works", lambda _: True)
    module, name = what.split(".")
    monkeypatch.setattr(getattr(dev, module), name, value)
    with pytest.raises(SystemExit) as end:
        dev.check_machine()
    said, done = str(end.value).splitlines()
    assert problem in said
    assert "Remedy" in done
    assert remedy in done


def test_without_venv_and_uv_the_package_is_named(dev, monkeypatch: pytest.MonkeyPatch):
    """Debian ships Python without ensurepip."""
    monkeypatch.setattr(dev.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SystemExit, match="sudo apt install python3-venv"):
        dev.uv_of_our_own()


def test_an_old_macos_is_told(dev, monkeypatch: pytest.MonkeyPatch):
    """On Apple silicon Envoy's package wants macOS 15; an Intel Mac may bring its own Envoy."""
    monkeypatch.setattr(dev.sys, "platform", "darwin")
    monkeypatch.setattr(dev.platform, "mac_ver", lambda: ("14.6", ("", "", ""), "arm64"))
    monkeypatch.setattr(dev.platform, "machine", lambda: "arm64")
    with pytest.raises(SystemExit, match="macOS 15 or newer"):
        dev.check_machine()
    monkeypatch.setattr(dev.platform, "machine", lambda: "x86_64")
    dev.check_machine()


def test_a_set_up_that_is_there_is_not_done_again(dev, monkeypatch: pytest.MonkeyPatch):
    """A stamp that fits means no process is started; a changed lock means that one is."""
    started = []
    monkeypatch.setattr(dev, "run", started.append)
    monkeypatch.setattr(dev, "runs_this_python", lambda: True)
    Path(dev.BIN).mkdir(parents=True)
    (Path(dev.BIN) / "longshore").touch()
    dev.set_up()
    first = len(started)
    dev.set_up()
    assert len(started) == first > 0
    monkeypatch.setattr(dev, "stamp", lambda: "something else")
    dev.set_up()
    assert len(started) == 2 * first


def test_packages_are_installed_with_their_hashes_only(dev, monkeypatch: pytest.MonkeyPatch):
    """Every installation from an index checks hashes; the checkout itself comes without dependencies."""
    started = []
    monkeypatch.setattr(dev, "run", started.append)
    monkeypatch.setattr(dev, "runs_this_python", lambda: True)
    Path(dev.BIN).mkdir(parents=True)
    dev.set_up()
    for command in started:
        if "install" in command:
            assert "--require-hashes" in command or {"--no-deps", "--no-build-isolation"} <= set(command)


def test_an_old_python_can_read_the_file():
    """The grammar is that of Python 3.7, so that such a Python reaches the remedy instead of a SyntaxError."""
    ast.parse((ROOT / "dev.py").read_text(), feature_version=(3, 7))


def test_without_a_command_the_commands_are_listed(dev):
    """`python3 dev.py` explains itself, and sets nothing up."""
    done = subprocess.run([sys.executable, ROOT / "dev.py"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    for command in dev.COMMANDS:
        assert command in done.stderr
