"""Request → clean text."""

from __future__ import annotations

import html
import re
import unicodedata
from typing import Any

_ADDRESS = re.compile(r"(https?://|www\.)\S+")
_TAG = re.compile(r"<[^<>]*>")
_SPACE = re.compile(r"\s+")


def clean_text(value: dict[str, Any], config: dict[str, Any]) -> str:
    """Return the request's text without markup, addresses and surplus space, cut to `max_length` characters.

    Letter case and punctuation stay: VADER reads both.
    """
    text = unicodedata.normalize("NFC", html.unescape(value["text"]))
    text = _ADDRESS.sub(" ", _TAG.sub(" ", text))
    return _SPACE.sub(" ", text).strip()[: config["max_length"]]
