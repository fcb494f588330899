"""The whole demo, every part real, and what a person does with it: watch, paste, press Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "-m", "longshore", "demo"]
STAYS = "Everything stays up until Ctrl-C"


@pytest.fixture
def state() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ls-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **changes}


def left_running(state: Path) -> list[str]:
    """Return the command lines of processes that have to do with the state folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if any(str(state) in argument for argument in command):
            found.append(" ".join(command))
    return found


@pytest.mark.e2e
def test_the_demo_keeps_its_promises_until_ctrl_c(state: Path):
    """All steps succeed, no request fails under load, pasted lines work, and Ctrl-C leaves no process behind."""
    report = state / "report.json"
    demo = subprocess.Popen(
        [*DEMO, "--json", report, "--state-dir", state / "demo"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    said = []
    try:
        for line in demo.stdout:
            said.append(line)
            if STAYS in line:
                break
        assert STAYS in said[-1], "".join(said)
        answers = [paste(line) for line in said if line.startswith("curl ")] if shutil.which("curl") else []
        demo.send_signal(signal.SIGINT)
        said += demo.communicate(timeout=90)[0]
    finally:
        demo.kill()
    assert demo.returncode == 0, "".join(said)
    assert left_running(state) == []
    assert answers in ([], [200, 200, 422])
    told = json.loads(report.read_text())
    assert told["ok"], told
    assert [step["name"] for step in told["steps"] if not step["ok"]] == []
    loads = [step["facts"]["load"] for step in told["steps"] if "load" in step["facts"]]
    assert len(loads) == 2
    for load in loads:
        assert load["failed"] == 0
        assert set(load["versions"]) == {"1.0.0", "1.1.0"}
        assert load["requests"] == load["outcomes"]["200"] > 1000
    facts = {step["name"]: step["facts"] for step in told["steps"]}
    assert facts["read a plan: edited → printed"] == {"commands": 3}
    lost = facts["device lost → its replica READY elsewhere"]
    assert 0 < lost["failed"] < lost["ready_elsewhere"] <= lost["recorded"]
    assert lost["from"] != lost["to"]
    back = facts["device back → what is too many is gone"]
    assert back["survivors"]["failed"] == 0
    assert back["survivors"]["requests"] == back["survivors"]["versions"]["1.0.0"] > 1000
    assert any("the fleet acts unasked: " + lost["from"] + " has failed" in line for line in said)
    (bad,) = [step["facts"] for step in told["steps"] if step["name"] == "bad push: push → refused"]
    assert {"REF_UNPINNED", "UNKNOWN_FIELD", "MANIFEST_INVALID"} <= set(bad["codes"])
    assert bad["refused"]["failed"] == 0


def paste(line: str) -> int:
    """Run a line as a shell would, and return the status of the HTTP answer."""
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=30, check=True)
    return int(done.stdout.split()[1])


def test_a_missing_program_is_named_with_its_remedy(state: Path, tmp_path: Path):
    """Nothing is started, the exit code is 1, and the report says why."""
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    for name in ("git", "uv", "temporal", "envoy"):
        (tmp_path / name).symlink_to("/bin/true")
    code = f"import sys; sys.executable = {str(python)!r}; from longshore.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "demo", "--once", "--json", state / "report.json", "--state-dir", state / "demo"],
        capture_output=True,
        text=True,
        env=environment(PATH=str(tmp_path)),
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "weed: python3 dev.py setup" in done.stdout
    assert json.loads((state / "report.json").read_text())["ok"] is False
