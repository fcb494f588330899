"""Which Pythons this device really has: each one listed here has been started (a version manager's shim may not)."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import structlog

from longshore.schemas.failures import LongshoreError
from longshore.worker_host import processes

log = structlog.get_logger()

# A cold interpreter on a slow card; one that needs longer is of no use for a model either.
START_TIMEOUT_SECONDS = 30.0

# The base executable, since an environment that is made from another environment breaks with it.
_ASK = """
import json, platform, sys, sysconfig
print(json.dumps({
    "path": getattr(sys, "_base_executable", None) or sys.executable,
    "version": sys.version_info[:3],
    "usable": sys.implementation.name == "cpython" and sys.version_info.releaselevel == "final"
        and not sysconfig.get_config_var("Py_GIL_DISABLED"),
    "build": [sys.version, sysconfig.get_config_var("SOABI"), sysconfig.get_platform(), platform.libc_ver()],
}))
"""


@dataclass(frozen=True)
class Interpreter:
    path: Path
    version: tuple[int, int, int]
    build: str
    """What a compiled wheel, and so an environment, depends on: version, compiler, ABI, platform, libc, place."""

    @property
    def minor(self) -> str:
        """`3.11`, as cards and device reports write it."""
        return f"{self.version[0]}.{self.version[1]}"


def find_uv() -> Path:
    """Return uv from PATH or from the PyPI package. Raises LongshoreError PROGRAM_MISSING."""
    if found := shutil.which("uv"):
        return Path(found)
    try:
        import uv  # noqa: PLC0415 (an extra: a device without it can still say what is missing)

        return Path(uv.find_uv_bin())
    except (ImportError, FileNotFoundError) as error:
        raise LongshoreError("PROGRAM_MISSING", "uv is not installed on this device") from error


async def discover() -> dict[str, Interpreter]:
    """Return the newest CPython of each minor version that starts, among PATH, uv's own and the one that runs us."""
    candidates = [sys.executable, *await _listed()]
    started = await asyncio.gather(*(_start(Path(path)) for path in dict.fromkeys(candidates)))

    best: dict[str, Interpreter] = {}
    for interpreter in filter(None, started):
        known = best.get(interpreter.minor)
        if known is None or interpreter.version > known.version:
            best[interpreter.minor] = interpreter
    return best


async def _listed() -> list[str]:
    """Return the interpreters that uv knows. Without an answer from it there is still the one that runs us."""
    env = processes.environment(prefixes=("UV_PYTHON_INSTALL",), UV_PYTHON_DOWNLOADS="never")
    argv: list[str | Path] = ["python", "list", "--no-config", "--output-format=json", "--no-python-downloads"]
    try:
        done = await processes.run([find_uv(), *argv], cwd=Path("/"), env=env, timeout=START_TIMEOUT_SECONDS)
    except (LongshoreError, processes.ProcessTimeoutError) as error:
        log.warning("python_list_failed", error=str(error))
        return []
    if done.returncode:
        log.warning("python_list_failed", error=done.stderr[-500:])
        return []
    return [entry["path"] for entry in json.loads(done.stdout) if entry["path"]]


async def _start(path: Path) -> Interpreter | None:
    try:
        done = await processes.run(
            [path, "-I", "-c", _ASK], cwd=Path("/"), env=processes.environment(), timeout=START_TIMEOUT_SECONDS
        )
        facts = json.loads(done.stdout)
    except (LongshoreError, OSError, ValueError, processes.ProcessTimeoutError) as error:
        log.info("python_unusable", path=str(path), error=str(error))
        return None
    if not facts["usable"]:
        return None
    base = facts["path"]
    major, minor, patch = facts["version"]
    return Interpreter(Path(base), (major, minor, patch), json.dumps([*facts["build"], base]))
