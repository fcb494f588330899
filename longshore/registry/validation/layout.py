"""Where things lie in a registry: step 1 of PRD §5.1, and what keeps a file from being read at all. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from longshore.registry.repositories.entries import MAX_FILES, MAX_TOTAL_BYTES, Kind, Tree
from longshore.registry.repositories.references import path_fault, shown_path
from longshore.schemas.issues import Issue

FOLDERS = ("models/production", "models/staging", "transactions", "workers", "errors")
"""The mandatory folders (PRD §2.3, §5.1 step 1)."""

_MODELS = ("models/production/", "models/staging/")


def is_manifest(path: str) -> bool:
    return path.startswith(_MODELS) and path.endswith(".yaml")


def is_worker_config(path: str) -> bool:
    return path.startswith("workers/") and path.endswith(".yaml") and path.count("/") == 1


def wanted(tree: Tree) -> list[str]:
    """Return those of a registry's files whose content matters to validation, and may be read (FAULTS 26, 37, 38).

    None of them where there are too many, or too much of them: `layout_issues` says so.
    """
    if next(_cap_issues(tree), None) is not None:
        return []
    return [path for path in _documents(tree) if tree[path].fault is None]


def layout_issues(tree: Tree) -> Iterator[Issue]:
    """Say what is wrong with the paths of a registry, and with what lies at them, before anything is read."""
    yield from _cap_issues(tree)
    yield from _folder_issues(tree)
    yield from _place_issues(tree)
    yield from _entry_issues(tree)
    yield from _name_issues(tree)


def _documents(tree: Tree) -> list[str]:
    return [path for path in tree if (is_manifest(path) or is_worker_config(path)) and path_fault(path) is None]


def _cap_issues(tree: Tree) -> Iterator[Issue]:
    count = sum(map(_in_reach, tree))
    if count > MAX_FILES:
        message = f"models/ and workers/ hold {count:,} files; the limit is {MAX_FILES:,}, so none of them was read"
        yield _issue("FILE_TOO_LARGE", "models", message)
    total = sum(tree[path].size for path in _documents(tree) if tree[path].fault is None)
    if total > MAX_TOTAL_BYTES:
        message = f"manifests and workers have {total:,} bytes; the limit is {MAX_TOTAL_BYTES:,}, so none was read"
        yield _issue("FILE_TOO_LARGE", "models", message)


def _folder_issues(tree: Tree) -> Iterator[Issue]:
    for folder in FOLDERS:
        if folder in tree and tree[folder].kind is Kind.FILE:
            yield _issue("STRUCTURE_INVALID", folder, f"{folder} is a file; it must be a folder")
        elif folder not in tree and not any(path.startswith(f"{folder}/") for path in tree):
            yield _issue("STRUCTURE_INVALID", folder, f"the folder {folder} is missing")


def _place_issues(tree: Tree) -> Iterator[Issue]:
    for path in sorted(filter(_in_reach, tree)):
        if not path.endswith(".yaml") and path.lower().endswith((".yml", ".yaml")):
            yield _issue("STRUCTURE_INVALID", path, "only files that end in .yaml are read: rename it")
        elif path.endswith(".yaml") and not _is_read(path):
            place = "models/production or models/staging" if path.startswith("models/") else "workers itself"
            yield _issue("STRUCTURE_INVALID", path, f"it would not be read here: move it to {place}")


def _entry_issues(tree: Tree) -> Iterator[Issue]:
    """Say what is too large, and what is no file where files are read or folders must be."""
    for path, entry in sorted(tree.items()):
        if entry.fault is None or not (_in_reach(path) or path in {"models", *FOLDERS}):
            continue
        if entry.kind is not Kind.FILE or _is_read(path):
            code, reason = entry.fault
            yield _issue(code, path, f"{shown_path(path)} {reason}")


def _name_issues(tree: Tree) -> Iterator[Issue]:
    """Say which paths no message can show, and which of them other systems could not tell apart."""
    first_of: dict[str, str] = {}
    for path in sorted(filter(_in_reach, tree)):
        if fault := path_fault(path):
            yield _issue("PATH_FORBIDDEN", path, fault)
        same = first_of.setdefault(unicodedata.normalize("NFC", path).casefold(), path)
        if same != path:
            message = f"it differs from {shown_path(same)} in case only: on some systems the two are one file"
            yield _issue("STRUCTURE_INVALID", path, message)


def _issue(code: str, path: str, message: str) -> Issue:
    return Issue(code=code, file=shown_path(path), message=message)


def _in_reach(path: str) -> bool:
    """Tell whether it lies where documents are read."""
    return path.startswith(("models/", "workers/"))


def _is_read(path: str) -> bool:
    return is_manifest(path) or is_worker_config(path) or path.startswith("workers/secrets/")
