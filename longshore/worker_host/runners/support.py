"""The one package of ours that a runner needs, `jsonschema-rs`, for the model's interpreter (DESIGN §5 "Runner").

Our own wheel is built against the stable ABI and fits most interpreters; whether it fits *this* one is tried, not
deduced from tags (free-threaded builds, musl, emulated machines). Where it does not, uv fetches the newest that does.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from pathlib import Path

from longshore.schemas.failures import LongshoreError
from longshore.worker_host import processes
from longshore.worker_host.stores import interpreters
from longshore.worker_host.stores.shelves import Shelf, disk_errors

_DISTRIBUTION = "jsonschema-rs"
_PACKAGE = "jsonschema_rs"

_PROBE_TIMEOUT_SECONDS = 30.0
_INSTALL_TIMEOUT_SECONDS = 600.0

_DESCRIBE = "import sys, sysconfig; print(sys.implementation.cache_tag, sysconfig.get_config_var('SOABI'))"
_TRY = (
    "import sys; sys.path.append(sys.argv[1]); import jsonschema_rs; "
    "options = {'validate_formats': True, 'pattern_options': jsonschema_rs.RegexOptions()}; "
    "assert not jsonschema_rs.validator_for({'type': 'null'}, **options).is_valid(0)"
)


class Support:
    """Support directories, content-addressed by the package's version and the interpreter's ABI."""

    def __init__(self, root: Path) -> None:
        self._shelf = Shelf(root)
        self._keys: dict[str, str] = {}

    async def materialise(self, python: str) -> Path:
        """Return a directory from which `python` can import jsonschema_rs.

        Raises LongshoreError PYTHON_UNAVAILABLE, PACKAGE_INDEX_UNAVAILABLE (retriable), DISK_FULL, IO_ERROR.
        """
        if python not in self._keys:
            self._keys[python] = await _key(python)
        key = self._keys[python]
        async with self._shelf.lock(key):
            return self._shelf.find(key) or await self._build(key, python)

    async def _build(self, key: str, python: str) -> Path:
        async with self._shelf.staging() as aside:
            ours = aside / "ours"
            with disk_errors():
                await processes.in_thread(_link_ours, ours)
            if await _works(python, ours):
                return await self._shelf.put(ours, key)
            theirs = aside / "theirs"
            await _install(python, theirs)
            if not await _works(python, theirs):
                raise LongshoreError("PYTHON_UNAVAILABLE", f"{python} cannot import {_DISTRIBUTION}")
            return await self._shelf.put(theirs, key)


async def _key(python: str) -> str:
    done = await _python(python, _DESCRIBE)
    if done.returncode:
        raise LongshoreError("PYTHON_UNAVAILABLE", f"{python} does not start", details=done.stderr[-2000:])
    tag, abi = done.stdout.split()
    version = importlib.metadata.version(_DISTRIBUTION)
    return f"{_DISTRIBUTION}-{version}-{tag}-{abi}"


async def _works(python: str, directory: Path) -> bool:
    return (await _python(python, _TRY, str(directory))).returncode == 0


async def _python(python: str, code: str, *arguments: str) -> processes.Completed:
    # Without bytecode: what lies in a support directory is what was put there.
    argv = [python, "-I", "-B", "-c", code, *arguments]
    try:
        return await processes.run(argv, cwd=Path("/"), env=processes.environment(), timeout=_PROBE_TIMEOUT_SECONDS)
    except processes.ProcessTimeoutError as error:
        raise LongshoreError("PYTHON_UNAVAILABLE", str(error)) from error


def _link_ours(directory: Path) -> None:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"{_PACKAGE} is a dependency of ours, and is not there")
    source = spec.submodule_search_locations[0]
    shutil.copytree(
        source, directory / _PACKAGE, copy_function=_link_or_copy, ignore=shutil.ignore_patterns("__pycache__")
    )


def _link_or_copy(source: str, target: str) -> None:
    """Hard-link 15 MB in no time; across file systems, or where links are refused, copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


async def _install(python: str, directory: Path) -> None:
    argv: list[str | Path] = [
        interpreters.find_uv(), "--no-progress", "--color=never", "pip", "install", "--no-deps",
        "--only-binary=:all:", "--python", python, "--target", str(directory), _DISTRIBUTION,
    ]  # fmt: skip
    env = processes.environment(
        "NETRC", "SSL_CERT_FILE", "SSL_CERT_DIR", "XDG_CONFIG_HOME", *processes.PROXIES,
        prefixes=("UV_",), UV_PYTHON_DOWNLOADS="never",
    )  # fmt: skip
    try:
        done = await processes.run(argv, cwd=Path("/"), env=env, timeout=_INSTALL_TIMEOUT_SECONDS)
    except processes.ProcessTimeoutError as error:
        raise LongshoreError("PACKAGE_INDEX_UNAVAILABLE", str(error)) from error
    if done.returncode:
        # uv exits with 1 where the request cannot be met, with 2 where something went wrong on the way.
        code = "PYTHON_UNAVAILABLE" if done.returncode == 1 else "PACKAGE_INDEX_UNAVAILABLE"
        message = f"uv found no {_DISTRIBUTION} for {python}"
        raise LongshoreError(code, message, details=processes.redact(done.stderr)[-2000:])
