"""`longshore version`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def main() -> None:
    """Show the version."""
    try:
        print(version("longshore"))
    except PackageNotFoundError:
        print("a checkout that is not installed")
