"""What may be shown of a text that others wrote: without secrets, and not longer than its reader can bear (FAULTS 53).

Whatever leaves us for people (error files, commit statuses, notifications) goes through here, last.
"""

from __future__ import annotations

import re

GONE = "[redacted]"

# Nobody reads more, and a text of 50 MB must not hold up the broker.
_LONGEST_READ = 200_000

# Bounded repetitions throughout: a text of megabytes must not cost more than one pass over it.
_USERINFO = re.compile(r"\b([a-z][a-z0-9+.-]{0,30}://)[^/\s]*@", re.IGNORECASE)

# A block of which an excerpt has only the beginning, or only the end, is one too.
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY( BLOCK)?-----.*?"
    r"(-----END [A-Z0-9 ]{0,30}PRIVATE KEY( BLOCK)?-----|\Z)",
    re.DOTALL,
)
_END_OF_KEY = re.compile(r"\A.*-----END [A-Z0-9 ]{0,30}PRIVATE KEY( BLOCK)?-----", re.DOTALL)

_VALUE = r"""(?!\[redacted\])("[^"\n]*"|'[^'\n]*'|[^\s,;&"'<>)\]}]+)"""
_PAIRS = (
    re.compile(
        r"(authorization[\"']?\s{0,3}[:=]\s{0,3}+[\"']?+(?:basic|bearer|token|digest)?+\s{0,3}+)" + _VALUE,
        re.IGNORECASE,
    ),
    re.compile(r"(\bbearer\s{1,3})[\w.~+/=-]{8,}", re.IGNORECASE),
    # Not `tokens`, `tokenizer`, `max_tokens`: models have them, and they are no secrets.
    re.compile(
        r"((?:password|passwd|passphrase|secret|token(?!s\b|i[sz])|api[_-]?key|access[_-]?key|private[_-]?key"
        r"|credential)[\w-]{0,40}[\"']?\s{0,3}[:=]\s{0,3}+)" + _VALUE,
        re.IGNORECASE,
    ),
    # Only with `=`, as in a query: `key: value` is what messages about documents say.
    re.compile(r"(\b(?:key|sig|signature|x-amz-signature|pwd)=)" + _VALUE, re.IGNORECASE),
)

# What is a secret by its own shape: ids of AWS keys, tokens of GitHub, GitLab and Slack.
_TOKENS = re.compile(
    r"\b(?:(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|xox[a-z]-[\w-]{10,})"
)


def without_userinfo(text: str) -> str:
    """Return a URL, or a text with URLs, without the user and the token that people put in them."""
    return _USERINFO.sub(r"\1", text)


def redacted(text: str) -> str:
    """Return `text` without what looks like a secret. What it returns stays as it is when it is given again."""
    text = _PRIVATE_KEY.sub(GONE, text)
    if "PRIVATE KEY" in text:
        text = _END_OF_KEY.sub(GONE, text)
    text = without_userinfo(text)
    for pattern in _PAIRS:
        text = pattern.sub(rf"\1{GONE}", text)
    return _TOKENS.sub(GONE, text)


def beginning(text: str, limit: int) -> str:
    """Return the redacted beginning of `text`, at most `limit` characters."""
    # Redacted before it is cut: half a secret would not be recognised.
    shown = redacted(text[:_LONGEST_READ])
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def end(text: str, limit: int) -> str:
    """Return the redacted end of `text`, at most `limit` characters in whole lines, after how much is left out.

    The cause of a traceback stands at its end.
    """
    shown = redacted(text[-_LONGEST_READ:].partition("\n")[2] if len(text) > _LONGEST_READ else text)
    if len(text) <= _LONGEST_READ and len(shown) <= limit:
        return shown
    kept = shown[-limit:].partition("\n")[2] if len(shown) > limit else shown
    return f"[{len(text) - len(kept):,} characters left out]\n{kept}"
