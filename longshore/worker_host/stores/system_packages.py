"""Whether the operating system has the packages that a card names. Longshore installs none (PRD §6.2 step 5)."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import structlog

from longshore.schemas.failures import LongshoreError
from longshore.worker_host import processes

log = structlog.get_logger()

QUERY_TIMEOUT_SECONDS = 30.0

# What dpkg and rpm allow in a name; never a leading dash (FAULTS 47).
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._:-]*")


async def require_system_packages(names: Sequence[str]) -> None:
    """Raise SYSTEM_PACKAGE_MISSING, naming every package that dpkg or rpm does not have installed.

    Where neither is there (macOS, a minimal image) nothing can be asked: that is logged, and the model's own
    start tells.
    """
    if not names:
        return
    query = _query()
    if query is None:
        log.warning("system_packages_unchecked", packages=list(names))
        return
    present = await asyncio.gather(*(_installed(query, name) for name in names))
    missing = [name for name, there in zip(names, present, strict=True) if not there]
    if missing:
        raise LongshoreError("SYSTEM_PACKAGE_MISSING", f"not installed on this device: {', '.join(missing)}")


def _query() -> tuple[str, ...] | None:
    if shutil.which("dpkg-query"):
        return ("dpkg-query", "--show", "--showformat=${db:Status-Status}\\n", "--")
    if shutil.which("rpm"):
        return ("rpm", "--query", "--queryformat=installed\\n", "--")
    return None


async def _installed(query: tuple[str, ...], name: str) -> bool:
    if not _NAME.fullmatch(name):
        return False
    try:
        done = await processes.run(
            [*query, name], cwd=Path("/"), env=processes.environment(), timeout=QUERY_TIMEOUT_SECONDS
        )
    except processes.ProcessTimeoutError as error:
        raise LongshoreError("IO_ERROR", str(error)) from error
    return done.returncode == 0 and "installed" in done.stdout.split()
