"""A model's Python environment: resolved, locked with hashes, built aside and shared (PRD §6.2 step 5).

An environment is built in a staging folder and renamed when it is complete, rather than built in place under a
completion marker: a crash then leaves nothing that looks like an environment. The rename is harmless because we only
ever run `<env>/bin/python`, a link to the interpreter's own absolute path, because `pyvenv.cfg` names the interpreter
and not the environment, and because `--relocatable` makes uv write console scripts that find themselves.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from longshore.schemas.cards import Runtime
from longshore.schemas.failures import LongshoreError
from longshore.worker_host import processes
from longshore.worker_host.breakers import Breaker
from longshore.worker_host.stores import interpreters
from longshore.worker_host.stores.interpreters import Interpreter
from longshore.worker_host.stores.shelves import Shelf, disk_errors
from longshore.worker_host.stores.system_packages import require_system_packages

# Resolving reads metadata only; installing may fetch gigabytes (torch) over a slow line.
RESOLVE_TIMEOUT_SECONDS = 600.0
INSTALL_TIMEOUT_SECONDS = 3600.0

LOCK_NAME = "requirements.lock"

# How an operator tells uv where packages come from and how to get out: all of it must reach uv.
_UV_SETTINGS = (
    "NETRC",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "XDG_CONFIG_HOME",
    "UV_CONFIG_FILE",
    "UV_DEFAULT_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_INSECURE_HOST",
    "UV_KEYRING_PROVIDER",
    "UV_NATIVE_TLS",
    "UV_NO_INDEX",
    "UV_OFFLINE",
    "UV_REQUEST_TIMEOUT",
    "UV_SYSTEM_CERTS",
    "UV_TORCH_BACKEND",
    *processes.PROXIES,
)
_UV_PREFIXES = ("UV_CONCURRENT", "UV_HTTP", "UV_INDEX")

_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_REFUSED = re.compile(r"401 Unauthorized|403 Forbidden", re.IGNORECASE)
_UNREACHABLE = re.compile(
    r"error sending request|request failed after|failed to fetch|failed to download|HTTP status server error"
    r"|timed out|dns error|network was disabled|connection (reset|refused|closed)",
    re.IGNORECASE,
)

Beat = Callable[[str], None]


class Environments:
    """The environments of one device, one per resolved lock and interpreter build, with uv's cache beside them."""

    def __init__(self, root: Path, breaker: Breaker) -> None:
        self._environments = Shelf(root / "environments")
        self._locks = Shelf(root / "locks")
        self._packages = Shelf(root / "packages")
        self._breaker = breaker
        self._interpreters: dict[str, Interpreter] = {}

    async def probe(self) -> tuple[str, ...]:
        """Start every interpreter that can be found (about a second), and return what `pythons` says from now on."""
        self._interpreters = await interpreters.discover()
        return self.pythons()

    def pythons(self) -> tuple[str, ...]:
        """The minor versions that have really been started, such as `("3.11", "3.12")`, lowest first."""
        return tuple(found.minor for found in sorted(self._interpreters.values(), key=lambda found: found.version))

    async def materialise(self, runtime: Runtime, beat: Beat) -> Path:
        """Return the Python executable of an environment that holds exactly the runtime's dependencies.

        `beat` is given uv's own words, line by line as they come. Requests for one environment build it once.
        No dependencies need no network.
        Raises LongshoreError SYSTEM_PACKAGE_MISSING, PYTHON_UNAVAILABLE, DEPENDENCIES_INVALID,
        PACKAGE_INDEX_UNAVAILABLE (retriable), AUTH_FAILED, CIRCUIT_OPEN, DISK_FULL, IO_ERROR, PROGRAM_MISSING.
        """
        await require_system_packages(runtime.system_packages)
        interpreter = await self._interpreter(runtime.python_version)
        lock_key = _digest(interpreter.build, *sorted(set(runtime.dependencies)))
        lock = await self._lock(lock_key, runtime.dependencies, interpreter, beat)
        key = _digest(interpreter.build, lock)
        async with self._environments.lock(key):
            found = self._environments.find(key)
            if found is None:
                try:
                    found = await self._build(key, lock, interpreter, beat)
                except LongshoreError as error:
                    if error.code == "DEPENDENCIES_INVALID":
                        await self._locks.drop(lock_key)  # the index may have changed since it was resolved
                    raise
        return found / "bin" / "python"

    async def _interpreter(self, version: str) -> Interpreter:
        if version not in self._interpreters:
            await self.probe()  # it may have been installed a minute ago
        if version not in self._interpreters:
            has = ", ".join(self.pythons()) or "none"
            raise LongshoreError("PYTHON_UNAVAILABLE", f"Python {version} is not on this device, which has {has}")
        return self._interpreters[version]

    async def _lock(self, key: str, dependencies: Sequence[str], interpreter: Interpreter, beat: Beat) -> str:
        """Resolve all packages, once per set of dependencies and interpreter build."""
        if not dependencies:
            return ""
        async with self._locks.lock(key):
            found = self._locks.find(key)
            if found is None:
                async with self._locks.staging() as aside:
                    wanted, resolved = aside / "requirements.in", aside / LOCK_NAME
                    with disk_errors():
                        wanted.write_text("\n".join(dependencies) + "\n")
                    async with self._breaker.guard():
                        await self._uv(
                            "pip", "compile", "--generate-hashes", "--only-binary=:all:", "--no-emit-index-url",
                            "--no-header", "--no-annotate", "--python", interpreter.path, "-o", resolved, wanted,
                            timeout=RESOLVE_TIMEOUT_SECONDS, beat=beat,
                        )  # fmt: skip
                    found = await self._locks.put(resolved, key)
            with disk_errors():
                return found.read_text()

    async def _build(self, key: str, lock: str, interpreter: Interpreter, beat: Beat) -> Path:
        async with self._environments.staging() as aside:
            env = aside / "env"
            await self._uv(
                "venv", "--quiet", "--relocatable", "--no-project", "--python", interpreter.path, env,
                timeout=RESOLVE_TIMEOUT_SECONDS, beat=beat,
            )  # fmt: skip
            with disk_errors():
                (env / LOCK_NAME).write_text(lock)
            if lock:
                async with self._breaker.guard():
                    await self._uv(
                        "pip", "sync", "--require-hashes", "--only-binary=:all:", "--link-mode=hardlink",
                        "--python", env / "bin" / "python", env / LOCK_NAME,
                        timeout=INSTALL_TIMEOUT_SECONDS, beat=beat,
                    )  # fmt: skip
            return await self._environments.put(env, key)

    async def _uv(self, *args: str | Path, timeout: float, beat: Beat) -> None:  # noqa: ASYNC109 (handed on)
        """Run uv, from the root folder so that no project's configuration is picked up on the way."""
        cache = self._packages.entry("uv")
        with disk_errors():
            cache.mkdir(exist_ok=True)
        self._packages.find("uv")
        env = processes.environment(
            *_UV_SETTINGS, prefixes=_UV_PREFIXES, UV_PYTHON_DOWNLOADS="never", UV_CACHE_DIR=str(cache)
        )
        argv = [interpreters.find_uv(), "--no-progress", "--color=never", *args]
        try:
            done = await processes.run(argv, cwd=Path("/"), env=env, timeout=timeout, on_line=beat)
        except processes.ProcessTimeoutError as error:
            raise LongshoreError("PACKAGE_INDEX_UNAVAILABLE", str(error), details=_tail(error.stderr)) from error
        if done.returncode:
            raise _failure(done)


def _failure(done: processes.Completed) -> LongshoreError:
    """Read uv's explanation. It exits with 1 where the request cannot be met, with 2 where something went wrong."""
    said = done.stderr
    # From its error on, in one line, since that names what conflicts with what.
    sentence = " ".join(said[said.find("error:") :].replace("error: ", "", 1).split())[:500]
    if _FULL.search(said):
        code = "DISK_FULL"
    elif _REFUSED.search(said):
        code = "AUTH_FAILED"
    elif _UNREACHABLE.search(said):
        code = "PACKAGE_INDEX_UNAVAILABLE"
    else:
        code = "DEPENDENCIES_INVALID" if done.returncode == 1 else "IO_ERROR"
    return LongshoreError(code, f"uv: {processes.redact(sentence)}", details=_tail(said))


def _tail(text: str) -> str | None:
    return processes.redact(text.strip())[-8000:] or None


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
