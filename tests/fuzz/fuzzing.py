"""What every fuzz target shares: `atheris` where it is installed, else hypothesis, and the same command line for both.

A target is a module with `judge(data: bytes) -> None`, which raises for what must not be; it ends with `run(judge)`.
Run one for longer with `python tests/fuzz/yaml_gate.py -max_total_time=600 CORPUS`: new inputs are added to the first
folder given, so that is a scratch copy and not the corpus of the repository.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

try:
    import atheris
except ImportError:  # no wheel for this platform
    atheris = None


def instrumented() -> contextlib.AbstractContextManager[object]:
    """Return the context in which a target imports what is to be explored."""
    if atheris is None:
        return contextlib.nullcontext()
    return atheris.instrument_imports(include=["longshore", "ruamel"])


def run(judge: Callable[[bytes], None]) -> None:
    """Explore until the time of `-max_total_time=N` is up; a failure ends the process with a code that is not 0."""
    if atheris is None:
        _with_hypothesis(judge, sys.argv[1:])
        return
    atheris.Setup(sys.argv, judge)
    atheris.Fuzz()


def _with_hypothesis(judge: Callable[[bytes], None], arguments: list[str]) -> None:
    from hypothesis import HealthCheck, given, settings  # noqa: PLC0415 (only where atheris is missing)
    from hypothesis import strategies as st  # noqa: PLC0415

    options = dict(option.split("=", 1) for option in arguments if option.startswith("-"))
    folders = [Path(argument) for argument in arguments if not argument.startswith("-")]
    seeds = [file.read_bytes() for folder in folders for file in sorted(folder.iterdir())]
    for seed in seeds:
        judge(seed)
    ends = time.monotonic() + float(options.get("-max_total_time", 30))

    @settings(max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def explore(data: st.DataObject) -> None:
        text = data.draw(st.sampled_from(seeds) if seeds else st.just(b""))
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, len(text)))
        judge(text[:start] + data.draw(st.binary(max_size=20)) + text[end:])

    while time.monotonic() < ends:
        explore()


def environment() -> dict[str, str]:
    """Return the environment for a target's process: this checkout comes first."""
    root = Path(__file__).parents[2]
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
