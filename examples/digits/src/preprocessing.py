"""Request → 64 numbers from 0 to 1."""

from __future__ import annotations

from typing import Any


def scale(value: dict[str, Any], config: dict[str, Any]) -> list[float]:
    """Divide each pixel by the brightest value that a pixel can have."""
    return [pixel / config["brightest"] for pixel in value["pixels"]]
