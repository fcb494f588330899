"""Makes the artifacts of the example models, by their own `train.py` in an environment with their own requirements.

Both are kept in the state folder's cache, by the content that they were made from: a second demo trains nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sys
from pathlib import Path

from longshore.cli.demo.processes import DemoFailed, search_path

INGREDIENTS = ("train.py", "requirements.txt", "config/model-config.json")
"""What an artifact is made from."""


class Trainer:
    def __init__(self, cache: Path) -> None:
        self._cache = cache

    async def artifact(self, source: Path) -> bytes:
        """Return what `source/train.py` writes. Raises DemoFailed with the tool's own words."""
        trained = self._cache / "artifacts" / _digest(*(source / name for name in INGREDIENTS))
        if not trained.exists():
            python = await self._environment(source / "requirements.txt")
            aside = trained.with_suffix(".new")
            aside.parent.mkdir(parents=True, exist_ok=True)
            await self._run(python, "train.py", aside, cwd=source)
            aside.rename(trained)
        return trained.read_bytes()

    async def _environment(self, requirements: Path) -> Path:
        folder = self._cache / "environments" / _digest(requirements)
        python = folder / "bin" / "python"
        complete = folder / "complete"
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            await self._run("uv", "venv", "--quiet", "--python", sys.executable, folder, cwd=requirements.parent)
            await self._run(
                "uv", "pip", "install", "--quiet", "--python", python, "-r", requirements, cwd=requirements.parent
            )
            complete.touch()
        return python

    async def _run(self, *argv: str | Path, cwd: Path) -> None:
        inherited = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
        environment = {**inherited, "PATH": search_path(), "UV_CACHE_DIR": str(self._cache / "uv")}
        child = await asyncio.create_subprocess_exec(
            *map(str, argv),
            cwd=cwd,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await child.communicate()
        except asyncio.CancelledError:
            child.kill()
            await child.wait()
            raise
        if child.returncode != 0:
            raise DemoFailed(f"{Path(argv[0]).name} failed:\n{output.decode(errors='replace').strip()}")


def _digest(*files: Path) -> str:
    """Return a hash of the files and of this interpreter's version."""
    content = hashlib.sha256(sys.version.encode())
    for file in files:
        content.update(file.name.encode() + b"\0" + file.read_bytes())
    return content.hexdigest()[:16]
