"""Run a benchmark: `python3 dev.py bench [NAME [ARGUMENT…]]`. Without a name, all of them, one after the other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SUPPORT = HERE.parent / "tests" / "support"  # the whole system as separate processes, which the tests use as well


def names() -> list[str]:
    return sorted(file.stem for file in HERE.glob("*.py") if file.stem not in {"run", "floor"})


def run(name: str, arguments: list[str]) -> int:
    inherited = os.environ.get("PYTHONPATH")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(SUPPORT), inherited]))}
    print(f"== {name}", flush=True)
    return subprocess.call([sys.executable, str(HERE / f"{name}.py"), *arguments], env=environment)


def main() -> None:
    wanted, arguments = sys.argv[1:2] or names(), sys.argv[2:]
    if unknown := set(wanted) - set(names()):
        sys.exit(f"no benchmark {', '.join(unknown)}; there are: {', '.join(names())}")
    sys.exit(max(run(name, arguments) for name in wanted))


if __name__ == "__main__":
    main()
