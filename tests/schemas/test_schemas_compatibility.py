from __future__ import annotations

import pytest

from longshore.schemas.compatibility import matrix


@pytest.mark.parametrize(
    ("supported", "card", "runs"),
    [
        (["3.0.0"], "3.0.0", True),
        (["3.1.0"], "3.0.0", True),
        (["3.0.0"], "3.1.0", False),
        (["2.2.0"], "2.0.0", True),
        (["3.1.0"], "2.2.0", False),
        (["2.2.0", "3.0.0"], "3.0.0", True),
        (["9.9.9"], "9.9.9", True),
        (["9.9.9"], "3.0.0", False),
        ([], "3.0.0", False),
    ],
)
def test_a_worker_runs_what_its_versions_are_compatible_with(supported, card, runs):
    """PRD §3.4: the matrix decides; a version that it does not know runs only itself."""
    assert matrix().runs(supported, card) is runs


def test_a_minor_version_never_breaks():
    """The matrix obeys its own rules: a newer minor version runs every older one of its major version."""
    for version, row in matrix().compatibility.items():
        older = [v for v in matrix().compatibility if v.split(".")[0] == version.split(".")[0] and v <= version]
        assert set(older) <= set(row.compatible_with)
        assert {v.split(".")[0] for v in row.compatible_with} == {version.split(".")[0]}
