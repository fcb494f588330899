"""Each target is explored for LONGSHORE_FUZZ_SECONDS (30); a failure shows the input that brought it about.

A target is a module beside this one; `corpus/<target>/` holds what it starts from.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzing import environment

HERE = Path(__file__).parent

SECONDS = int(os.environ.get("LONGSHORE_FUZZ_SECONDS", "30"))

# What issue 3 allows one input; the memory includes the coverage tables and the corpus.
LIMITS = ("-timeout=2", "-rss_limit_mb=1024", "-max_len=4096", "-verbosity=0")

TARGETS = sorted(file.stem for file in HERE.glob("*.py") if file.stem not in ("fuzzing", "test_fuzz", "conftest"))


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_breaks_it(target, tmp_path):
    """Nothing raises, takes more than two seconds or outgrows its memory."""
    corpus, found = tmp_path / "corpus", tmp_path / "found"
    shutil.copytree(HERE / "corpus" / target, corpus)
    found.mkdir()
    options = (f"-max_total_time={SECONDS}", f"-artifact_prefix={found}/", *LIMITS)
    done = subprocess.run(
        [sys.executable, HERE / f"{target}.py", *options, corpus],
        env=environment(),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS * 2 + 120,
        check=False,
    )
    inputs = "\n".join(f"{file.name}: {file.read_bytes()[:2000]!r}" for file in found.iterdir())
    assert done.returncode == 0, f"{inputs}\n{done.stdout.decode(errors='replace')[-6000:]}"
    assert not inputs, inputs
