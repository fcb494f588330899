"""Which repository a push was to: every way in which hosts and operators write it."""

from __future__ import annotations

from typing import Any

import pytest

from longshore.broker.deliveries import Delivery, new_head
from longshore.broker.payloads import repository_named, repository_path
from longshore.broker.signatures import Proof
from longshore.schemas.failures import LongshoreError

CLONE_URL = "https://git.example/ops/model-registry.git"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        (CLONE_URL, "ops/model-registry"),
        ("https://git.example/Ops/Model-Registry/", "ops/model-registry"),
        ("https://git.example:8443/gitea/ops/model-registry.git", "gitea/ops/model-registry"),
        ("ssh://git@git.example:7999/ops/model-registry.git", "ops/model-registry"),
        ("git@git.example:ops/model-registry.git", "ops/model-registry"),
        ("git.example:group/sub/registry", "group/sub/registry"),
        ("file:///srv/git/registry.git", None),
        ("/srv/git/registry.git", None),
        ("https://git.example", None),
        ("https://[git.example/ops/registry", None),
        ("", None),
    ],
)
def test_the_path_of_a_url(url: str, path: str | None) -> None:
    """What tells two repositories of one host apart; a local path tells nothing."""
    assert repository_path(url) == path


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        (
            {"repository": {"full_name": "Ops/Model-Registry", "clone_url": "https://git.example/x/y"}},
            "ops/model-registry",
        ),
        ({"project": {"path_with_namespace": "group/sub/registry"}, "repository": {"name": "r"}}, "group/sub/registry"),
        ({"repository": {"slug": "registry", "project": {"key": "OPS"}}}, "ops/registry"),
        ({"repository": {"clone_url": CLONE_URL}}, "ops/model-registry"),
        ({"project": {"git_http_url": CLONE_URL}}, "ops/model-registry"),
        ({"repository": {"clone_url": "file:///srv/registry.git"}}, None),
        ({"repository": {"full_name": 7, "slug": 7, "project": []}}, None),
        ({"repository": "ops/model-registry"}, None),
        ({}, None),
    ],
)
def test_the_repository_of_a_payload(payload: dict[str, Any], named: str | None) -> None:
    """Each host's own field, and its clone URL where that is all there is."""
    assert repository_named(payload) == named


@pytest.mark.parametrize(
    ("told", "watched", "ours"),
    [
        ("ops/registry", "ops/registry", True),
        ("ops/registry", "gitea/ops/registry", True),
        ("gitea/ops/registry", "ops/registry", True),
        ("ops/other", "ops/registry", False),
        ("dev/registry", "ops/registry", False),
        ("devops/registry", "ops/registry", False),
        (None, "ops/registry", True),
        ("ops/registry", None, True),
    ],
)
def test_another_repository_is_never_trusted(told: str | None, watched: str | None, ours: bool) -> None:  # noqa: FBT001 (a table)
    """A hook of another repository that shares the secret is ignored; what cannot be compared is a hint (FAULTS 13)."""
    heads: dict[str, str | None] = {"main": "1" * 40}
    delivery = Delivery(
        Proof("x-hub-signature-256", "current"), id=None, event="push", is_push=True, heads=heads, repository=told
    )
    if ours:
        assert new_head(delivery, "main", watched) == "1" * 40
    else:
        with pytest.raises(LongshoreError, match="WEBHOOK_IGNORED"):
            new_head(delivery, "main", watched)
