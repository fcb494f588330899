"""The JSON by which the git hosts tell of a push: read strictly, and each host's shape made one. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

from longshore.broker.urls import located
from longshore.schemas.failures import LongshoreError

# A push has six levels; a parser's own bound differs from one Python to the next.
MAX_DEPTH = 32

_FORM = "application/x-www-form-urlencoded"
_BRANCH = "refs/heads/"
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_NO_COMMIT = "0" * 40  # git's way of saying that a branch is gone

Payload = dict[str, Any]


def read_payload(body: bytes, content_type: str) -> Payload:
    """Return the payload. GitHub sends it as a form unless the hook's content type is changed to JSON.

    Raises LongshoreError WEBHOOK_BAD_JSON, also for what Python's parser would let through: a key that stands twice,
    NaN, any depth (FAULTS 12).
    """
    try:
        text = body.decode()
        if content_type.lower().startswith(_FORM):
            (text,) = parse_qs(text, errors="strict", max_num_fields=10).get("payload", [])
        payload = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise LongshoreError("WEBHOOK_BAD_JSON", "the body is not JSON as the git hosts write it") from error
    if not isinstance(payload, dict):
        raise LongshoreError("WEBHOOK_BAD_JSON", "the body is no JSON object")
    if not _is_shallow(payload):
        raise LongshoreError("WEBHOOK_BAD_JSON", f"the body is nested more than {MAX_DEPTH} levels deep")
    return payload


def pushed_heads(payload: Payload) -> dict[str, str | None]:
    """Return the new head of each branch that was pushed; None where the host does not say, zeros where it was deleted.

    `ref` and `after` are GitHub's, GitLab's, Gitea's and Forgejo's; Bitbucket has two kinds of lists.
    """
    pushed: list[tuple[Any, Any]] = [(payload.get("ref"), payload.get("after"))]
    changes = _object(payload, "push").get("changes", payload.get("changes"))
    for change in changes if isinstance(changes, list) else ():
        if isinstance(change, dict):
            pushed += [_cloud_change(change), (_object(change, "ref").get("id"), change.get("toHash"))]
    return {
        ref.removeprefix(_BRANCH): head if isinstance(head, str) and _COMMIT.fullmatch(head) else None
        for ref, head in pushed
        if isinstance(ref, str) and ref.startswith(_BRANCH)
    }


def is_deletion(head: str | None) -> bool:
    return head is not None and not head.strip("0")


def repository_named(payload: Payload) -> str | None:
    """Return the path of the repository that was pushed to, in small letters, where the payload names it."""
    for about in (_object(payload, "project"), _object(payload, "repository")):
        full_name = about.get("path_with_namespace") or about.get("full_name")
        if isinstance(full_name, str):
            return _plain(full_name)
        key, slug = _object(about, "project").get("key"), about.get("slug")  # Bitbucket Data Center
        if isinstance(key, str) and isinstance(slug, str):
            return _plain(f"{key}/{slug}")
        url = about.get("clone_url") or about.get("git_http_url")
        if isinstance(url, str):
            return repository_path(url)
    return None


def repository_path(url: str) -> str | None:
    """Return `ops/model-registry`, in small letters, of a git host's URL; None where the URL names no host."""
    there = located(url)
    return _plain(there.path) if there else None


def _cloud_change(change: Payload) -> tuple[str, Any]:
    """Return the ref and the new head of one change of Bitbucket Cloud: the new side is null where it was deleted."""
    new, old = _object(change, "new"), _object(change, "old")
    side, head = (new, _object(new, "target").get("hash")) if new else (old, _NO_COMMIT)
    return (f"{_BRANCH}{side.get('name')}", head) if side.get("type") == "branch" else ("", None)


def _unique(pairs: Sequence[tuple[str, Any]]) -> Payload:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return made


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _is_shallow(payload: Payload) -> bool:
    level: list[Any] = [payload]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return True
    return False


def _children(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return tuple(value.values())
    return value if isinstance(value, list) else ()


def _object(parent: Payload, key: str) -> Payload:
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def _plain(path: str) -> str | None:
    return path.strip("/").removesuffix(".git").casefold() or None
