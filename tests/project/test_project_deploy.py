"""What is shipped for production, checked as far as it can be without running it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.temporal.yml"


@pytest.fixture
def compose():
    return YAML(typ="safe", pure=True).load(COMPOSE)


def test_the_compose_file_follows_the_compose_specification():
    """check-jsonschema's own copy of the schema accepts it."""
    checker = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", COMPOSE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_ports_are_bound_to_loopback(compose):
    """Nothing is reachable from outside unless someone puts a proxy in front of it."""
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_images_are_pinned_and_data_is_in_named_volumes(compose):
    """The same file brings the same release tomorrow, and no restart loses data."""
    for name, service in compose["services"].items():
        assert re.search(r":\d+\.\d+", service["image"]), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (source.startswith("./deploy/") and (ROOT / source).is_file()), (
                volume
            )


def test_what_runs_for_ever_has_a_health_check(compose):
    """Docker can tell a service that works from one that merely runs."""
    for name, service in compose["services"].items():
        if service["restart"] == "unless-stopped":
            assert "healthcheck" in service, name


def test_no_secret_stands_in_the_compose_file(compose):
    """Every password comes from the environment, and its absence is an error that says what is missing."""
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|PWD|SECRET", name):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?.+\}", value), name
    named = set(re.findall(r"\$\{([A-Z_]+):\?", COMPOSE.read_text()))
    example = (ROOT / "deploy" / "compose.env.example").read_text()
    assert {line.split("=")[0] for line in example.splitlines() if "=" in line} == named


def test_two_brokers_run(compose):
    """One of them may fail."""
    assert sum(service["image"].startswith("longshore/broker") for service in compose["services"].values()) == 2


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here")
def test_systemd_accepts_the_unit():
    """`systemd-analyze verify` finds nothing to say."""
    unit = ROOT / "deploy" / "longshore-worker-host.service"
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("script", sorted((ROOT / "deploy").glob("*.sh")), ids=lambda path: path.name)
def test_shell_scripts_parse(script):
    """A plain `sh` reads them."""
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
