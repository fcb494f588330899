"""Who sent a webhook: the signature schemes of the git hosts, over the raw bytes and in constant time. Pure.

GitHub     X-Hub-Signature-256: sha256=<hex>              HMAC-SHA256 of the body
Bitbucket  X-Hub-Signature: sha256=<hex>                  the same
Gitea      X-Gitea-Signature: <hex>                       the same; it also sends GitHub's header
Forgejo    X-Forgejo-Signature: <hex>                     the same
GitLab     webhook-signature: v1,<base64> …               HMAC-SHA256 of `id.timestamp.body` (Standard Webhooks)
GitLab     X-Gitlab-Token: <the secret itself>            its older scheme: proves the sender, not the body
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from longshore.schemas.failures import LongshoreError

# Standard Webhooks: the key is what follows, in base64. GitLab hands out its signing tokens in this form.
_SIGNING_TOKEN_PREFIX = b"whsec_"

# Hex digests in the order in which they are believed; Gitea's alias of GitHub's header is the same HMAC.
_HEX_HEADERS = ("x-hub-signature-256", "x-hub-signature", "x-gitea-signature", "x-forgejo-signature")

_SIGNED = "webhook-signature"
_GITLAB = "x-gitlab-token"

Headers = Mapping[str, str]
"""By lower-case name."""

Secrets = Mapping[str, bytes]
"""The active secrets by what a log may call them: `current`, and `before` while that is being replaced."""


class Proof(NamedTuple):
    """What shows that the sender knows a secret of ours."""

    header: str
    secret: str
    """Which of the secrets, by its name in `Secrets`."""


def signature_header(headers: Headers, secrets: Secrets) -> str:
    """Return the name of the header that is to be believed; no body is needed for that.

    Raises LongshoreError WEBHOOK_UNSIGNED where there is no signature, or nothing to check it with.
    """
    header = next((name for name in (*_HEX_HEADERS, _SIGNED, _GITLAB) if headers.get(name)), None)
    if header is None:
        raise LongshoreError("WEBHOOK_UNSIGNED", "the delivery carries no signature that we know")
    if not secrets:
        raise LongshoreError("WEBHOOK_UNSIGNED", "this broker has no webhook secret, so it can believe nobody")
    return header


def authenticate(headers: Headers, body: bytes, secrets: Secrets) -> Proof:
    """Return the proof that the sender knows one of the `secrets`.

    Raises LongshoreError as `signature_header` does, and WEBHOOK_BAD_SIGNATURE where the signature does not fit. A bad
    signature is never rescued by another header.
    """
    header = signature_header(headers, secrets)
    # Every secret is tried, so that the time does not tell which of two fits.
    fitting = [name for name, secret in secrets.items() if _fits(header, headers, body, secret)]
    if not fitting:
        raise LongshoreError("WEBHOOK_BAD_SIGNATURE", f"{header} does not fit the body and our secret")
    return Proof(header, fitting[0])


def _fits(header: str, headers: Headers, body: bytes, secret: bytes) -> bool:
    given = headers[header]
    if header == _GITLAB:
        return _same(secret, given)
    if header == _SIGNED:
        expected = _standard(secret, headers, body)
        # A list of signatures, one for each key that the sender holds; those of other versions are not ours to judge.
        return True in [_same(expected, part.removeprefix("v1,")) for part in given.split() if part.startswith("v1,")]
    return _same(hmac.new(secret, body, hashlib.sha256).hexdigest().encode(), given.removeprefix("sha256="))


def _standard(secret: bytes, headers: Headers, body: bytes) -> bytes:
    key = secret
    if secret.startswith(_SIGNING_TOKEN_PREFIX):
        with suppress(binascii.Error):  # then it merely looks like one
            key = base64.b64decode(secret.removeprefix(_SIGNING_TOKEN_PREFIX), validate=True)
    identity = (headers.get("webhook-id", ""), headers.get("webhook-timestamp", ""))
    signed = b".".join((*(_raw(part) for part in identity), body))
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())


def _same(expected: bytes, given: str) -> bool:
    return hmac.compare_digest(expected, _raw(given))


def _raw(header: str) -> bytes:
    """Return the header as it was sent: bytes, which HTTP servers show as Latin-1."""
    return header.encode("latin-1", errors="replace")
